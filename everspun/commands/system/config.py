"""List the keys of the configuration, or print a file to begin with, or the reference."""

import argparse
from importlib.resources import files

from everspun.commands import config_reference
from everspun.commands import options as shared


def arguments(parser: argparse.ArgumentParser) -> None:
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--example", action="store_true", help="a TOML file to begin with")
    kind.add_argument(
        "--expert", action="store_true", help="every key; without it, those of an operator"
    )
    kind.add_argument(
        "--markdown", action="store_true", help="the reference of all keys (docs/configuration.md)"
    )


def run(options: argparse.Namespace) -> int:
    if options.markdown:
        print(config_reference.markdown())
    elif options.example:
        print(files("everspun").joinpath("example.toml").read_text(), end="")
    else:
        print(config_reference.listing(options.expert, shared.console().width))
    return 0
