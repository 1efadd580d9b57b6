"""Print a config file to begin with, or the reference of all keys."""

import argparse
from importlib.resources import files

from everspun import config


def arguments(parser: argparse.ArgumentParser) -> None:
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--example", action="store_true", help="a TOML file to begin with")
    kind.add_argument(
        "--markdown", action="store_true", help="the reference of all keys (docs/configuration.md)"
    )


def run(options: argparse.Namespace) -> int:
    if options.markdown:
        print(config.markdown())
    else:
        print(files("everspun").joinpath("example.toml").read_text(), end="")
    return 0
