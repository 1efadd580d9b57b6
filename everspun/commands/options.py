"""Options that several commands share."""

import argparse
import dataclasses
import io
import json
import math
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from everspun import config
from everspun.commands.answer import FLAG, CommandAnswer
from everspun.config import Config
from stream import MOMENT_MAX_MS

#: What --config names where it is not given.
CONFIG = Path("everspun.toml")
#: Seconds and hours beyond this are nobody's wait.
NUMBER_MAX = 1e9
#: A column that is wrapped has so many characters at least.
WRAPPED_MIN = 16
#: Keys of [stream] in which `{role}` stands for the role that a process runs.
OF_A_PRINCIPAL = (
    "sasl_username",
    "sasl_password_file",
    "sasl_token_file",
    "ssl_certfile",
    "ssl_keyfile",
)


def config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", "-c", type=Path, default=CONFIG, help="TOML file (everspun.toml)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key; may be repeated",
    )
    json_option(parser)


def json_option(parser: argparse.ArgumentParser) -> None:
    """`--json`, where the command has none yet."""
    if FLAG not in parser._option_string_actions:
        parser.add_argument(FLAG, action="store_true", help="for machines: JSON, and nothing else")


def whole(text: str) -> int:
    """A whole number of 64 bits, as an argument. Raises ArgumentTypeError."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is no whole number") from None
    if not -(1 << 63) <= value < 1 << 63:
        raise argparse.ArgumentTypeError(f"{text[:100]} is beyond 64 bits")
    return value


def natural(text: str) -> int:
    """A whole number from 0 up, as an argument. Raises ArgumentTypeError."""
    if (value := whole(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value}: 0 or more")
    return value


def moment_ms(text: str) -> int:
    """A moment that a calendar has, in ms since 1970, as an argument. Raises ArgumentTypeError."""
    if (value := natural(text)) > MOMENT_MAX_MS:
        raise argparse.ArgumentTypeError(f"{value}: allowed is up to {MOMENT_MAX_MS} (year 9999)")
    return value


def newest(found: list[Any], limit: int) -> list[Any]:
    """The last `limit` of them; of 0 none."""
    return found[max(0, len(found) - limit) :]


def finite(text: str) -> float:
    """A number from 0 up that ends, as an argument. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is no number") from None
    if not 0 <= value < math.inf or value > NUMBER_MAX:
        raise argparse.ArgumentTypeError(f"{text[:100]}: allowed is 0 to {NUMBER_MAX:g}")
    return value


def load(options: argparse.Namespace, role: str = "operator", text: str | None = None) -> Config:
    """The configuration; modules beside its file can be imported, after all others. `role` is the
    principal for whom `{role}` stands in names of users and files of secrets; `text`, what was read
    of the file already."""
    beside = str(options.config.absolute().parent)
    if beside not in sys.path:
        sys.path.append(beside)
    path = getattr(options, "in_force", None) or options.config
    text = config.read_text(path) if text is None else text
    read = config.loads(text, options.set, f"{path}: ")
    stream = read.stream
    mine = {name: getattr(stream, name).replace("{role}", role) for name in OF_A_PRINCIPAL}
    return dataclasses.replace(read, stream=dataclasses.replace(stream, **mine))


class PlainConsole(Console):
    """Shows text as it is: what stands in events, names and reasons is never taken for markup,
    emoji codes or a terminal's control sequences. Colour is given by `style=`, or by a `Text` of
    ours."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **given: Any) -> Text:
        return super().render_str(shown(text), **given)

    def print(self, *objects: Any, **given: Any) -> None:
        """Tables are made to fit."""
        fit = (fitted(one, self.width) if isinstance(one, Table) else one for one in objects)
        super().print(*fit, **given)


class AnswerConsole(PlainConsole):
    """Hands tables, data and lines to the answer in JSON instead of showing them."""

    def __init__(self, answer: CommandAnswer) -> None:
        super().__init__(width=10_000, file=_Nowhere())
        self._answer = answer

    def print(self, *objects: Any, **given: Any) -> None:
        for one in objects:
            if isinstance(one, Table):
                names = [str(column.header) for column in one.columns]
                columns = [[str(cell) for cell in column.cells] for column in one.columns]
                rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
                self._answer.table(str(one.title or ""), rows)
            else:
                self._answer.write(f"{one}\n")

    def print_json(self, text: str | None = None, **given: Any) -> None:  # type: ignore[override]
        self._answer.data(json.loads(text or "null"))


def fitted(table: Table, width: int) -> Table | Text:
    """The table, if it fits or its widest column alone is wrapped; else its rows as pairs of name
    and value, in lines that do."""
    cells = [[_plain(column.header), *map(_plain, column.cells)] for column in table.columns]
    widths = [max(map(cell_len, column)) for column in cells]
    spare = width - sum(widths) - 3 * len(widths) - 1
    if spare >= 0:
        return table
    widest = max(range(len(widths)), key=widths.__getitem__)
    if widths[widest] + spare >= WRAPPED_MIN:
        for at, column in enumerate(table.columns):
            column.no_wrap = at != widest
            column.overflow = "fold"
        return table
    names = [column[0] for column in cells]
    lines = [_plain(table.title)] if table.title else []
    for row in zip(*(column[1:] for column in cells), strict=True):
        given = zip(names, row, strict=True)
        lines += _flowing([f"{name} {value}".strip() for name, value in given if value], width)
    return Text("\n".join(lines) if table.row_count else f"none: {', '.join(names)}")


def _flowing(pairs: list[str], width: int) -> list[str]:
    """As many in a line as fit; the lines after the first are indented."""
    lines: list[str] = []
    line = ""
    for pair in pairs:
        joined = f"{line}   {pair}" if line else f"{'  ' if lines else ''}{pair}"
        if cell_len(joined) <= width:
            line = joined
            continue
        lines += [line] if line else []
        begin = "  " if lines else ""
        *full, line = textwrap.wrap(
            pair, width, initial_indent=begin, subsequent_indent="  ", break_on_hyphens=False
        )
        lines += full
    return [*lines, line]


def _plain(cell: Any) -> str:
    """A cell as one line of text."""
    return " ".join(shown(str(cell)).split()) if cell is not None else ""


class _Nowhere(io.TextIOBase):
    """Takes what a bar of progress draws."""

    def write(self, text: str) -> int:
        return len(text)


def shown(text: str) -> str:
    """Text of somebody else's as a terminal may have it: control characters but line ends and tabs,
    and halves of surrogate pairs, by their escapes."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


#: C0 but tab and line feed, DEL, C1, marks that turn the direction of text, lone surrogates.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def console() -> Console:
    """A terminal as wide as it is, or as COLUMNS says; a file or pipe gets lines of 140 characters
    where COLUMNS says nothing, and who asked for JSON an answer."""
    if isinstance(sys.stdout, CommandAnswer):
        return AnswerConsole(sys.stdout)
    if sys.stdout is None:  # closed before the start: `>&-`
        return PlainConsole(width=140, file=_Nowhere())
    columns = os.environ.get("COLUMNS", "")
    stated = sys.stdout.isatty() or (columns.isdecimal() and int(columns) > 0)
    return PlainConsole() if stated else PlainConsole(width=140)
