"""The producer's thread: one that cannot be started, one that dies, and its end while others give
events."""

import sys
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from stream.config import StreamConfig
from stream.decoding import decode_impressions
from stream.log import MemoryLog
from stream.log.memory import MemoryAppend, MemoryWriter
from stream.monitoring import TimeLimit
from stream.producer.config import ProducerConfig
from stream.producer.producer import Delivery, EventProducer, Undelivered
from stream.record import Partition

TS = 1_700_000_000_000
STREAM = StreamConfig(partitions=1, reconnect_max_ms=20)


def log() -> MemoryLog:
    made = MemoryLog(lambda: TS)
    made.create("impressions", 1)
    return made


def impression(i: int) -> dict[str, object]:
    named = {"session": "s", "source": "ann", "vendor": "v", "item": "x"}
    return {"id": f"i{i}", "ts_ms": TS} | named


def records(made: MemoryLog) -> int:
    return len(made.records(Partition("impressions", 0)))


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_thread_that_cannot_be_started_is_started_by_the_next_event(
    monkeypatch: pytest.MonkeyPatch,
):
    made = log()
    producer, other = EventProducer(made, STREAM, str), EventProducer(made, STREAM, str)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for one in (producer, other):
            with pytest.raises(RuntimeError, match="new thread"):
                one.impression(impression(1))
            assert one.buffered_rows == 0, "it was not accepted"
    producer.impression(impression(2))
    producer.close(20_000)
    other.close(20_000)
    assert records(made) == 1


def test_a_callback_that_exits_ends_no_thread():
    made = log()

    def leave(delivery: Delivery) -> None:
        sys.exit(3)

    producer = EventProducer(made, STREAM, str, on_delivery=leave)
    producer.impression(impression(1))
    with pytest.raises(RuntimeError, match="on_delivery raised"):
        producer.flush(20_000)
    producer.impression(impression(2))
    with pytest.raises(RuntimeError, match="on_delivery raised"):
        producer.close(20_000)
    assert records(made) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_thread_left_that_died_is_sent_by_the_next_one():
    made, exits = log(), [SystemExit()]

    class Dying(MemoryWriter):
        def poll(self) -> None:
            if exits and records(made):
                raise exits.pop()
            super().poll()

    made.writer = lambda: Dying(made)
    producer = EventProducer(made, STREAM, str, ProducerConfig(batch_age_max_ms=0))
    producer.impression(impression(1))
    assert producer._thread is not None
    producer._thread.join(20)
    producer.flush(20_000)
    assert producer.buffered_rows == 0
    assert records(made) == 2, "the first one's acknowledgement was not seen"
    producer.close(20_000)


def test_records_that_are_too_large_for_their_topic_are_divided():
    """One such batch held up all others for good; one event that is too large for its topic costs
    itself. What was refused once is not tried again with each batch."""
    made = log()
    made.create("clicks", 1)

    class Limited(MemoryWriter):
        refused = 0

        def append(self, partition: Partition, value: Any, *more: Any, **named: Any) -> Any:
            if len(value) <= 2_200:
                return super().append(partition, value, *more, **named)
            Limited.refused += 1
            self._failure = "too large"
            sent = MemoryAppend(self, -1, False)
            sent.too_large = True
            return sent

    made.writer = lambda: Limited(made)
    producer = EventProducer(made, STREAM, str, ProducerConfig(batch_age_max_ms=10_000))
    for batch in range(3):
        for i in range(100):
            long = "x" * 1_000 if (batch, i) == (0, 50) else "x"
            producer.impression(impression(100 * batch + i) | {"item": long})
        producer.click({"id": "i1", "ts_ms": TS, "session": "s"})
        producer.flush(20_000)
        if batch == 0:
            first = Limited.refused
    assert producer.dropped == 1
    assert Limited.refused == first
    found, bad = decode_impressions(
        made.records(Partition("impressions", 0)), 0, np.full(records(made), TS), STREAM
    )
    assert not bad
    ids = set(found.table.column("id").to_pylist())
    assert ids == {f"i{i}" for i in range(300)} - {"i50"}
    producer.close(20_000)


def test_who_closes_takes_no_more_events_and_delivers_those_it_took():
    """The log acknowledges nothing before the feeder was refused."""
    made, refused = log(), threading.Event()

    class Held(NamedTuple):
        offset: int

        @property
        def done(self) -> bool:
            return refused.is_set()

    class Slow(MemoryWriter):
        def append(self, *parts: Any, **more: Any) -> Held:
            return Held(super().append(*parts, **more).offset)

    made.writer = lambda: Slow(made)
    producer = EventProducer(made, STREAM, str, ProducerConfig(batch_age_max_ms=0))

    def feed() -> None:
        for i in range(100_000):
            try:
                producer.impression(impression(i))
            except RuntimeError:
                refused.set()
                return
            time.sleep(0.001)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    limit = TimeLimit(60)
    while not producer.buffered_rows and not limit.over:
        time.sleep(0.001)
    producer.close(20_000)
    assert producer.buffered_rows == 0
    feeder.join(20)


def test_a_flush_waits_for_what_was_accepted_before_it_however_much_follows():
    made, goes_on = log(), threading.Event()
    goes_on.set()

    def follow(delivery: Delivery) -> None:
        if goes_on.is_set():  # before the batch leaves the buffer, so that it is never empty
            producer.impression(impression(1_000 + delivery.offset))

    quick = ProducerConfig(batch_age_max_ms=1)
    producer = EventProducer(made, STREAM, str, quick, follow)
    for i in range(10):
        producer.impression(impression(i))
        producer.flush(20_000)
        assert producer.buffered_rows > 0
        assert made.records(Partition("impressions", 0))[-1].offset >= i
    goes_on.clear()
    producer.close(20_000)
    assert (producer.buffered_rows, producer._rows_by_flushes) == (0, {})


@pytest.mark.parametrize("wait", ["flush", "close"])
def test_within_on_delivery_nothing_is_waited_for(wait: str):
    made = log()
    producer = EventProducer(made, STREAM, str, on_delivery=lambda _: getattr(producer, wait)(1))
    producer.impression(impression(1))
    with pytest.raises(RuntimeError, match="on_delivery raised") as raised:
        producer.flush(20_000)
    assert "nothing can be waited for" in str(raised.value.__cause__)
    producer.close(20_000)
    assert records(made) == 1


def test_a_topic_of_other_partitions_than_the_config_says_is_named(
    caplog: pytest.LogCaptureFixture,
):
    made = MemoryLog(lambda: TS)
    made.create("impressions", 2)
    few = EventProducer(made, STREAM, str)
    few.impression(impression(1))
    few.close(20_000)
    assert "stream.partitions = 1, and impressions has 2" in caplog.text
    many = EventProducer(made, StreamConfig(partitions=4, reconnect_max_ms=20), str)
    many.impression(impression(1))
    with pytest.raises(Undelivered):
        many.close(200)
    assert "stream.partitions = 4, and impressions has 2" in caplog.text
    assert "Traceback" not in caplog.text
