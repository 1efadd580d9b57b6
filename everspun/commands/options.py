"""Options that several commands share."""

import argparse
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from everspun import config
from everspun.config import Config

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
        "--config", "-c", type=Path, default=Path("everspun.toml"), help="TOML file (everspun.toml)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one key; may be repeated",
    )


def load(options: argparse.Namespace, role: str = "operator") -> Config:
    """The configuration; modules beside its file can be imported, after all others. `role` is the
    principal for whom `{role}` stands in names of users and files of secrets."""
    beside = str(options.config.absolute().parent)
    if beside not in sys.path:
        sys.path.append(beside)
    read = config.load(getattr(options, "in_force", None) or options.config, options.set)
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


def shown(text: str) -> str:
    """Text of somebody else's as a terminal may have it: control characters but line ends and tabs,
    and halves of surrogate pairs, by their escapes."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


#: C0 but tab and line feed, DEL, C1, marks that turn the direction of text, lone surrogates.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def console() -> Console:
    """A terminal as wide as it is; a file or pipe gets lines of 140 characters."""
    return PlainConsole() if sys.stdout.isatty() else PlainConsole(width=140)
