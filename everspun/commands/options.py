"""Options that several commands share."""

import argparse
from pathlib import Path

from everspun import config
from everspun.config import Config


def config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", "-c", type=Path, default=Path("everspun.toml"), help="TOML file (everspun.toml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key; may be repeated"
    )


def load(options: argparse.Namespace) -> Config:
    return config.load(options.config, options.set)
