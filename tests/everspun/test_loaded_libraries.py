"""What a command loads before it does anything: no compiler and no client of what it does not ask.

Each of these libraries takes a tenth of a second or more to load, and most commands read the
configuration and are over.
"""

import subprocess
import sys
from importlib import import_module

import pytest

from everspun.commands.mistakes import NAMED

HEAVY = {"numba", "torch", "pyarrow.compute", "scipy", "kafka", "grpc", "faust", "asyncio"}

CONFIG = """
[stream]
categorical_features = ["brand"]
numeric_features = ["price"]
[features.tags]
kind = "list"
[features.clicks]
kind = "counter"
of = "item"
[features.newest]
kind = "sequence"
by = "brand"
of = "item"
[model]
categorical = ["item", "brand"]
"""
LOADED = """
import sys
from everspun.__main__ import main
if sys.argv[1:]:
    try:
        main(sys.argv[1:])
    except SystemExit as ended:
        assert not ended.code, ended.code
else:
    import everspun.config
    assert everspun.config.loads(sys.stdin.read()).stream.counters
print("loaded:", *sys.modules)
"""


def loaded(*arguments: str) -> set[str]:
    """The modules of a process that has run a command, or read a configuration."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        input=CONFIG,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_a_configuration_is_read_without_what_computes():
    modules = loaded()
    assert "stream.columns.declaration" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_front_door_loads_no_library(option: str):
    assert not loaded(option) & {*HEAVY, "numpy", "pyarrow", "rich"}


@pytest.mark.parametrize("command", ["config", "simulate --help"])
def test_a_command_that_asks_no_other_process_loads_no_client(command: str):
    assert not loaded(*command.split()) & HEAVY


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_class_of_errors_that_is_named_is_there(name: str):
    module, _, qualified = name.rpartition(".")
    assert issubclass(getattr(import_module(module), qualified), Exception)
