"""What the reader of `examples` says and how often it asks: a log where all is paused answers at
once."""

import queue
import threading
import time
from typing import Any

from learners.config import LearnerConfig
from learners.pacing import events
from learners.pacing import instructions as do
from learners.process.examples_reader import POLL_MS, ExamplesReader
from learners.process.metrics import LearnerMetrics
from stream import Partition, StreamConfig
from stream.internal_topics import BatchHeader
from stream.log import MemoryLog

STREAM = StreamConfig(partitions=1)
SEEK = do.Seek(7, 0, 0)


class Heard:
    """A reader of one partition, and what it gave."""

    def __init__(self) -> None:
        self.log = MemoryLog(now=lambda: 0)
        self.log.create(STREAM.examples, 1)
        self.given: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.polls = 0
        config = LearnerConfig()
        self.reader = ExamplesReader(
            self.log, STREAM, config, "g", "m", self.given.put, self.given.qsize, LearnerMetrics()
        )
        poll = self.reader._reader.poll

        def counted(*arguments: Any) -> Any:
            self.polls += 1
            return poll(*arguments)

        self.reader._reader.poll = counted  # type: ignore[method-assign]

    def __enter__(self) -> "Heard":
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.stop()

    def append(self) -> None:
        header = BatchHeader("label/0", 0, 0, "", "", barrier=1)
        self.log.append(Partition(STREAM.examples, 0), b"", headers=header.to_headers())

    def next(self, kind: type) -> Any:
        """Passes over nothing but what says that nothing was read."""
        while not isinstance(event := self.given.get(timeout=10), kind):
            assert isinstance(event, events.Assigned | events.Idle), event
        return event


def test_an_idle_log_is_said_once_until_something_happens() -> None:
    with Heard() as heard:
        heard.next(events.Idle)
        time.sleep(5 * POLL_MS / 1000)
        assert heard.given.empty(), "said again"
        heard.reader.order(SEEK)  # the core forgets that it was idle when it seeks
        heard.next(events.Idle)
        heard.append()
        assert len(heard.next(events.Records).batches) == 1
        heard.next(events.Idle)


def test_a_log_that_answers_at_once_is_asked_once_in_a_polls_time() -> None:
    with Heard() as heard:
        began = time.monotonic()
        time.sleep(10 * POLL_MS / 1000)
        seconds = time.monotonic() - began
        assert heard.polls <= 2 + seconds / (POLL_MS / 1000)


def test_an_order_is_performed_at_once(monkeypatch: Any) -> None:
    monkeypatch.setattr("learners.process.examples_reader.POLL_MS", 60_000)
    with Heard() as heard:
        heard.next(events.Idle)
        heard.append()
        heard.reader.order(SEEK)
        assert heard.next(events.Records).seek == SEEK.seek
        stopping = threading.Timer(0, heard.reader.stop)
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive(), "a stop is waited for"
