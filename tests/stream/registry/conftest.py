"""Helpers of these tests stand beside them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from small_registry import SmallRegistry  # noqa: E402


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    """A schema registry over HTTP."""
    with SmallRegistry() as running:
        yield running
