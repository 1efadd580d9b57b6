"""Each command that a page tells somebody to type is parsed by that command."""

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from everspun.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs" / "five-minutes").glob("*.md")),
    *(ROOT / "docs" / f"{name}.md" for name in ("kafka", "checkpoints", "replay", "serving")),
]


def typed(text: str) -> list[str]:
    """The lines of code blocks that begin with `everspun`, without what follows a command."""
    found = re.findall(r"^(?: {4})?(?:\$ )?(everspun [^\n]+)$", text, re.MULTILINE)
    lines = [re.split(r"\s[#>&|]|;|&&", line)[0].strip() for line in found]
    return [re.sub(r"\[(--[^]]+)\]", r"\1", line) for line in lines]  # what may be left out


LINES = [
    pytest.param(line, id=f"{page.stem}: {line[:60]}")
    for page in PAGES
    for line in typed(page.read_text())
    if "..." not in line
]


def parse(line: str) -> argparse.Namespace:
    """As `everspun.__main__.main` does. Raises SystemExit where the command does not take it."""
    _, name, *rest = shlex.split(line)
    own = argparse.ArgumentParser(prog=f"everspun {name}")
    import_module(COMMANDS[name][0]).arguments(own)
    return own.parse_args(rest)


@pytest.mark.parametrize("line", LINES)
def test_a_page_tells_what_can_be_typed(line: str):
    parse(line)


def test_there_are_such_lines_and_a_wrong_one_is_found():
    assert len(LINES) > 12
    with pytest.raises(SystemExit):
        parse("everspun status --no-such-option")
