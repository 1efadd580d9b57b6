"""Makes `staged_run` importable: tests have no packages (importlib mode)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everspun.launcher import Broker
from everspun.launcher.broker import why_not_kafka

sys.path.insert(0, str(Path(__file__).parent))
from staged_run import Run


@pytest.fixture
def start_run(
    broker_of_kind: Callable[[str], Broker], topic_prefix: str
) -> Iterator[Callable[..., Run]]:
    """Starts runs over one broker; all are ended with the test."""
    broker = broker_of_kind("kafka" if why_not_kafka() is None else "embedded")
    running: list[Run] = []

    def start(name: str, *overrides: str) -> Run:
        running.append(Run(broker, topic_prefix + name, *overrides))
        return running[-1]

    yield start
    for run in running:
        run.close()
