"""What becomes of evaluations that the log does not take."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from learners.process import LearnerMetrics, evaluation_sender
from learners.process.evaluation_sender import EvaluationSender
from stream import Partition
from stream.log import MemoryLog
from stream.log.memory import Fate
from stream.monitoring import TimeLimit

TOPIC = "evaluations"


class Sending:
    """A sender over a log in memory."""

    def __init__(self) -> None:
        self.log = MemoryLog(lambda: 1)
        self.metrics = LearnerMetrics()
        self.faults: list[BaseException] = []
        self.sender = EvaluationSender(self.log, TOPIC, self.metrics, self.faults.append)
        self.sender.start()
        self._sent = 0

    def send(self) -> None:
        said = {"model": "m", "chain": "label/0", "start": self._sent, "partition": 3}
        self._sent += 1
        self.sender.send(said)

    @property
    def lost(self) -> int:
        return int(self.metrics.unsent._value.get())

    def there(self, partition: int) -> int:
        return len(self.log.records(Partition(TOPIC, partition)))


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sending]:
    monkeypatch.setattr(evaluation_sender, "RETRY_MS", 1)
    monkeypatch.setattr(evaluation_sender, "RETRY_MAX_MS", 2)
    one = Sending()
    yield one
    one.sender.close()
    assert not one.faults


def until(true: Callable[[], bool]) -> None:
    limit = TimeLimit(20)
    while not true():
        assert not limit.over
        time.sleep(0.002)


def test_a_topic_that_is_made_late_or_otherwise_is_found(sending: Sending) -> None:
    sending.send()
    until(lambda: sending.lost == 1)
    sending.log.create(TOPIC, 2)
    sending.send()
    until(lambda: sending.there(1) == 1)
    sending.log.on_append = lambda _: Fate.LOST
    sending.send()
    until(lambda: sending.lost == 2)
    sending.log.delete(TOPIC)
    sending.log.create(TOPIC, 1)
    sending.log.on_append = None
    sending.send()
    until(lambda: sending.there(0) == 1)


def test_what_the_log_has_not_confirmed_is_lost_with_its_writer(sending: Sending) -> None:
    sending.log.create(TOPIC, 1)
    sending.log.on_append = lambda _: Fate.PENDING
    for _ in range(3):
        sending.send()
    until(lambda: sending.there(0) == 3)
    sending.log.on_append = lambda _: Fate.LOST
    sending.send()
    until(lambda: sending.lost == 4)


def test_more_than_may_wait_are_lost(sending: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_sender, "WAITING_MAX", 2)
    sending.log.create(TOPIC, 1)
    came, goes_on = threading.Event(), threading.Event()

    def wait(_: Any) -> Fate:
        came.set()
        assert goes_on.wait(60)
        return Fate.ACKNOWLEDGED

    sending.log.on_append = wait
    sending.send()
    assert came.wait(60)
    for _ in range(5):
        sending.send()
    assert sending.lost == 3
    goes_on.set()
    sending.sender.close()
    assert sending.there(0) == 3
