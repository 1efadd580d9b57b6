"""Settings and fixtures of all tests."""

import os
import uuid
from collections.abc import Callable, Generator, Iterator

import pytest
from hypothesis import settings

from everspun.launcher import Broker, start_broker
from everspun.launcher.broker import why_not_embedded, why_not_kafka
from stream.monitoring.time_limit import processes_per_core

# torch's threads wait for each other by spinning: beside other workers, a gradient of few rows took
# ten times as many CPU seconds. It is not loaded yet, and what tests start inherits this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Kernels compile on first use and tests share small machines: an example is never failed for its
# time.
settings.register_profile("everspun", deadline=None)
# Dear tests take a share of `settings.default.max_examples`: 100 here, 1,000 in `make slow`.
settings.register_profile("thorough", deadline=None, max_examples=1_000)
settings.register_profile("quick", deadline=None, max_examples=10)  # `make quick`
settings.load_profile("everspun")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that may take long begin first, so that none of them is left to run alone at the
    end."""

    def most_s(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark is not None and mark.args else 0.0

    items.sort(key=most_s, reverse=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """On a machine that does much else, a test is given more time before it is ended, as its own
    waits are (`TimeLimit`)."""
    mark = item.get_closest_marker("timeout")
    seconds = float(
        mark.args[0] if mark is not None and mark.args else item.config.getini("timeout")
    )
    if (busy := processes_per_core()) > 1:
        item.add_marker(pytest.mark.timeout(busy * seconds), append=False)
    return (yield)


@pytest.fixture(scope="session")
def broker_of_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Broker]]:
    """Brokers by kind ("embedded", "kafka"), each started when first asked for, ended with the
    session.

    EVERSPUN_KAFKA=host:port names a running Apache Kafka to be used instead of a started one. A
    kind that cannot be had on this machine skips at a desk and fails where CI=true.
    """
    running: dict[str, Broker] = {}

    def get(kind: str) -> Broker:
        if kind == "kafka" and "EVERSPUN_KAFKA" in os.environ:
            return start_broker(os.environ["EVERSPUN_KAFKA"], tmp_path_factory.getbasetemp())
        if kind not in running:
            reason = {"embedded": why_not_embedded, "kafka": why_not_kafka}[kind]()
            if reason is not None:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
                    f"{kind} broker: {reason}"
                )
            running[kind] = start_broker(kind, tmp_path_factory.mktemp(kind))
        return running[kind]

    yield get
    for broker in running.values():
        broker.stop()


@pytest.fixture(params=["embedded", pytest.param("kafka")])
def broker(request: pytest.FixtureRequest, broker_of_kind: Callable[[str], Broker]) -> Broker:
    """Each kind of broker in turn, shared by the session: use `topic_prefix` for topics of your
    own."""
    return broker_of_kind(request.param)


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}."
