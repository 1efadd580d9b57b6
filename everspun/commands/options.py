"""Options that several commands share."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from everspun import config
from everspun.config import Config


def config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", "-c", type=Path, default=Path("everspun.toml"), help="TOML file (everspun.toml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key; may be repeated"
    )


def load(options: argparse.Namespace) -> Config:
    return config.load(options.config, options.set)


def console() -> Console:
    """A terminal as wide as it is; a file or pipe gets lines of 140 characters."""
    return Console() if sys.stdout.isatty() else Console(width=140)
