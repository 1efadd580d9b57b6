"""What benches there are, read from their modules' first words: no bench is imported to be
listed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parents[1]
#: The sentence in which a bench says what it takes; every bench has one, a test sees to it.
TAKES = re.compile(r"\bTakes ([^.]*(?:\.\d[^.]*)*)\.")


class Bench(NamedTuple):
    """`python -m bench.<name>`, its question or figure in one sentence, and the time and memory
    it takes."""

    name: str
    what: str
    takes: str


def benches(folder: Path = HERE) -> Iterator[Bench]:
    """Every module whose docstring gives its command, by name."""
    for path in sorted(folder.glob("*/*.py"), key=lambda path: path.stem):
        text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        if f"python -m bench.{path.stem}" not in text:
            continue
        what = (
            text.split(". ", 1)[0]
            .removesuffix(".")
            .split(f" python -m bench.{path.stem}", 1)[0]
            .rstrip(":")
        )
        found = TAKES.search(text)
        yield Bench(path.stem, what, found.group(1) if found else "")
