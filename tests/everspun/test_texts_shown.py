"""No text of events or of others is markup, or a command of the terminal, wherever it is shown."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table

from everspun.__main__ import main
from everspun.commands.options import PlainConsole, shown

NASTY = [
    "[/b] 5 EUR",
    "[sale] 5 EUR",
    "[red]x",
    "[fe80::1]",
    "[link=x]y[/link]",
    ":smile:",
    "[[",
    "\\[x]",
    "[/]",
    "[bold",
]


@pytest.mark.parametrize("text", NASTY)
def test_no_text_is_markup_anywhere_it_can_be_shown(text: str):
    table = Table("column", text)
    table.add_row("row", text)
    for shows in (table, text, Panel(text), {"a": text}):
        console = PlainConsole(width=200, file=io.StringIO())
        console.print(shows)
        assert text in console.file.getvalue()  # type: ignore[attr-defined]


@given(st.text(max_size=30))
def test_no_text_reaches_the_terminal_as_a_command(text: str):
    console = PlainConsole(width=400, file=io.StringIO())
    table = Table("x")
    table.add_row(text)
    console.print(table)
    console.print(text)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert not {c for c in printed if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160}
    printed.encode()
    assert shown(shown(text)) == shown(text)


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\u202e", "\ud800", "\x9b31m"])
def test_what_a_terminal_would_obey_is_escaped(text: str):
    assert shown(f"a{text}b").isascii()


def test_values_of_events_are_shown_as_they_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "c.toml").write_text('[stream]\nnumeric_features = ["price"]\n')
    event = {
        "id": "i",
        "ts_ms": 1_700_000_000_000,
        "session": "s",
        "source": "u",
        "vendor": "v",
        "item": "x",
    }
    lines = [json.dumps(event | {"features": {"price": text}}) for text in NASTY]
    (tmp_path / "e.jsonl").write_text("\n".join(lines))
    code = main(["events", "check", str(tmp_path / "e.jsonl"), "-c", str(tmp_path / "c.toml")])
    text = "".join(capsys.readouterr())
    assert code == 1
    assert not [one for one in NASTY if one not in text.replace("\\\\", "\\")]
