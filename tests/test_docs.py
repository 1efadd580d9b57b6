"""What the documentation says of the code's places and words is so."""

import ast
import importlib
import re
import textwrap
from pathlib import Path

import pyarrow as pa

from labeler.breaker import BAND_SCHEMA, TALLY_SCHEMA
from labeler.counting import SESSION_SIGNAL_SCHEMA
from stream.internal_topics import examples_schema
from stream.internal_topics.counts import COUNT_SCHEMA
from stream.internal_topics.sequence_rows import SEQUENCE_SCHEMA

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP = ("stream", "labeler", "paramserver", "learners", "checkpointer", "everspun")
PATH = re.compile(
    rf"(?<![\w/.])(?:{'|'.join((*TOP, 'tests', 'bench', 'deploy', 'examples', 'docs'))})"
    r"/[\w./-]*\w/?"
)
DOTTED = re.compile(rf"(?<![\w/.])(?:{'|'.join(TOP)})(?:\.\w+)+")
#: Places that a text speaks of before there is one.
EXAMPLES = re.compile(r"docs/(x|y)\.md|NAME")


def missing(text: str) -> set[str]:
    """The paths of ours in backticks that name nothing."""
    named = {path for code in re.findall(r"`([^`\n]+)`", text) for path in PATH.findall(code)}
    return {path for path in named if not EXAMPLES.search(path) and not (ROOT / path).exists()}


def test_every_path_that_a_page_names_is_there():
    for page in PAGES:
        assert not missing(page.read_text()), page.relative_to(ROOT)


def test_every_import_that_a_page_shows_is_one():
    shown = 0
    for page in PAGES:
        for block in re.findall(r"^ *```python\n(.*?)^ *```", page.read_text(), re.M | re.S):
            for node in ast.walk(ast.parse(textwrap.dedent(block))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in TOP:
                    module = importlib.import_module(node.module or "")
                    assert hasattr(module, "__path__"), f"{page.name}: {node.module} is a file"
                    missing = [one.name for one in node.names if not hasattr(module, one.name)]
                    assert not missing, f"{page.relative_to(ROOT)}: {node.module} has no {missing}"
                    shown += 1
    assert shown > 3


def unknown(text: str) -> set[str]:
    """The dotted names of ours in backticks that are no module, nothing in one, and no key of
    the configuration."""
    keys = set(
        re.findall(
            r"^\| `(\w+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE
        )
    )
    found = set()
    for code in re.findall(r"`([^`\n]+)`", text):
        for name in DOTTED.findall(code):
            parts = name.split(".")
            depth = max(n for n in range(1, len(parts) + 1) if n == 1 or exists(parts[:n]))
            if depth == len(parts) or (depth == 1 and parts[1] in keys):
                continue
            file = ROOT.joinpath(*parts[:depth])
            source = (
                file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
            ).read_text()
            if not re.search(rf"\b{parts[depth]}\b", source):
                found.add(name)
    return found


def exists(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists()


def test_every_name_of_code_that_a_page_says_is_there():
    for page in PAGES:
        assert not unknown(page.read_text()), page.relative_to(ROOT)


def test_the_name_rule_can_fail():
    assert unknown(
        "`stream.zebra`, `stream.record.Record`, `labeler.join.Nobody`, `stream.window_ms`"
    ) == {
        "stream.zebra",
        "labeler.join.Nobody",
    }


def test_the_path_rule_can_fail():
    assert missing("see `labeler/nowhere.py` and `stream/record.py`") == {"labeler/nowhere.py"}


def test_the_reference_names_every_package():
    named = re.findall(
        r"^::: ([\w.]+)$", (ROOT / "docs" / "api" / "packages.md").read_text(), re.MULTILINE
    )
    there = [
        ".".join(p.parent.relative_to(ROOT).parts)
        for top in TOP
        for p in (ROOT / top).rglob("__init__.py")
    ]
    assert sorted(named) == sorted(there)


def test_every_word_of_the_glossary_is_used():
    """In the protocol, the design or the code, where a reader meets it."""
    pages = " ".join(
        (ROOT / "docs" / f"{name}.md").read_text().lower()
        for name in ("protocol", "design", "contracts")
    )
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [word for row in rows if row not in ("word", "---") for word in re.split(r", ", row)]
    assert len(words) > 20
    assert not [word for word in words if word.lower() not in pages]


PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
WORDS_MAX = 35


def sentences(text: str) -> list[str]:
    """x."""
    found = []
    for block in re.split(r"\n\s*\n|\n(?=- )", text):
        if not block.lstrip().startswith("#"):
            plain = re.sub(r"`[^`]*`", "code", block.lstrip("- ")).replace("\n", " ")
            found += re.split(r"(?<=[.?!])\s+(?=[A-Z*(]|code)", plain)
    return found


def test_the_protocol_can_be_read_aloud():
    assert len(sentences(PROTOCOL)) > 500
    assert not [one for one in sentences(PROTOCOL) if len(one.split()) > WORDS_MAX]


def test_every_rule_that_the_code_cites_has_its_heading():
    headings = set(re.findall(r"^### ([A-Z]\d[a-z]?) \S", PROTOCOL, re.MULTILINE))
    cited = {
        rule
        for top in (*TOP, "tests", "bench")
        for path in (ROOT / top).rglob("*.py")
        for rule in re.findall(r"\(([TLCFJSWKXEI][1-9][a-z]?)\b", path.read_text())
    }
    assert len(cited) > 40
    assert cited <= headings, sorted(cited - headings)


SCHEMAS = {
    "examples": examples_schema(()),
    "signals": SESSION_SIGNAL_SCHEMA,
    "tallies": TALLY_SCHEMA,
    "bands": BAND_SCHEMA,
    "counts": COUNT_SCHEMA,
    "counts of sequences": SEQUENCE_SCHEMA,
}


def columns(topic: str, schema: pa.Schema) -> str:
    """The paragraph of docs/contracts.md that says a topic's columns: printed by `python
    tests/test_docs.py`."""
    return (
        f"Columns of `{topic}`: "
        + ", ".join(f"`{field.name}` {field.type}" for field in schema)
        + "."
    )


def test_contracts_say_every_column_of_every_topic():
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "contracts.md").read_text())
    for topic, schema in SCHEMAS.items():
        assert columns(topic, schema) in page, topic


if __name__ == "__main__":
    for topic, schema in SCHEMAS.items():
        print(columns(topic, schema))
