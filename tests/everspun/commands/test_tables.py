"""Tables fit a terminal of 80 columns: nothing is cut off, and no short value is broken."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from everspun.commands.options import PlainConsole, console
from everspun.status import Quality, StatusSnapshot
from everspun.status.table import STAGES, Stage, counted, render

WORDS = st.lists(st.text("abcdef-_=:.", min_size=1, max_size=12), max_size=12).map(" ".join)


def printed(what: Any, width: int = 80) -> list[str]:
    out = PlainConsole(width=width, file=io.StringIO())
    out.print(what)
    return out.file.getvalue().splitlines()  # type: ignore[attr-defined]


@given(st.lists(st.lists(WORDS, min_size=6, max_size=6), max_size=3))
def test_every_word_of_a_table_stands_in_lines_that_fit(rows: list[list[str]]):
    table = Table("name", "state", "learned to (UTC)", "rows", "", "reason", title="all of them")
    for row in rows:
        table.add_row(*row)
    lines = printed(table)
    assert max(map(len, lines)) <= 80
    words = {word for line in lines for word in line.replace("│", " ").replace("┃", " ").split()}
    assert {word for row in rows for cell in row for word in cell.split()} <= words
    assert "…" not in "".join(lines)


def test_rows_too_wide_for_columns_are_pairs_of_name_and_value():
    table = Table("name", "learned to (UTC)", *(f"column {n}" for n in range(6)), "reason")
    why = "entropy is above its band " * 6
    table.add_row("0041-c", "2026-11-30 05:44:00", *6 * ["1,234,567"], why)
    table.add_row("0042-c", "", *6 * [""], "")
    lines = printed(table)
    assert lines[0].startswith("name 0041-c   learned to (UTC) 2026-11-30 05:44:00   column 0")
    assert lines[1].startswith("  column 1 1,234,567   column 2 1,234,567")
    assert lines[-1] == "name 0042-c"
    assert "┃" in printed(table, 300)[0] or "┏" in printed(table, 300)[0]


def test_the_status_page_fits_whatever_it_counts():
    stages = {name: Stage(name, 12, 9e14, 9_999_999, 123_456, 1.0, "staleness") for name in STAGES}
    shot = StatusSnapshot(400 * 86_400_000, stages)
    lines = printed(render(shot, Quality("shop"), "everspun status", "limits: see the config"))
    assert {len(line) for line in lines} == {80}
    assert "…" not in "".join(lines)
    (row,) = [line.split() for line in lines if "checkpointer" in line]
    said = " ".join(row[1:-1])
    assert said == "checkpointer 12 900.00 T 9,999,999 123,456 400.0 d staleness"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (9_999_999, "9,999,999"), (12_345_678, "12.35 M"), (1.2e9, "1.20 G")],
)
def test_counts_take_nine_characters(value: float, said: str):
    assert counted(value) == said


def test_columns_says_how_wide_a_pipe_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 140
    monkeypatch.setenv("COLUMNS", "80")
    assert console().width == 80
    monkeypatch.setenv("COLUMNS", "0")
    assert console().width == 140
