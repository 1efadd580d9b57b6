"""What the documentation says of the code's places and words is so."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP = ("stream", "labeler", "paramserver", "learners", "checkpointer", "everspun")
PATH = re.compile(rf"(?<![\w/.])(?:{'|'.join((*TOP, 'tests', 'bench', 'deploy', 'examples', 'docs'))})/[\w./-]*\w/?")
#: Places that a text speaks of before there is one.
EXAMPLES = re.compile(r"docs/(x|y)\.md|NAME")


def missing(text: str) -> set[str]:
    """The paths of ours in backticks that name nothing."""
    named = {path for code in re.findall(r"`([^`\n]+)`", text) for path in PATH.findall(code)}
    return {path for path in named if not EXAMPLES.search(path) and not (ROOT / path).exists()}


def test_every_path_that_a_page_names_is_there():
    for page in PAGES:
        assert not missing(page.read_text()), page.relative_to(ROOT)


def test_the_path_rule_can_fail():
    assert missing("see `labeler/nowhere.py` and `stream/record.py`") == {"labeler/nowhere.py"}


def test_the_reference_names_every_package():
    named = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "api" / "packages.md").read_text(), re.MULTILINE)
    there = [".".join(p.parent.relative_to(ROOT).parts) for top in TOP for p in (ROOT / top).rglob("__init__.py")]
    assert sorted(named) == sorted(there)


def test_every_word_of_the_glossary_is_used():
    """In the protocol, the design or the code, where a reader meets it."""
    pages = " ".join((ROOT / "docs" / f"{name}.md").read_text().lower() for name in ("protocol", "design", "contracts"))
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [word for row in rows if row not in ("word", "---") for word in re.split(r", ", row)]
    assert len(words) > 20
    assert not [word for word in words if word.lower() not in pages]
