"""Which model versions are known to a learner: what `checkpoints` holds to its end, and no
search without end (E2)."""

import json

import pyarrow as pa
import pytest

from learners.process import examples_reader
from learners.process.examples_reader import CheckpointsReader
from learners.training.progressive import Published
from stream import Partition
from stream.log import MemoryLog, Unavailable
from stream.monitoring import TimeLimit

TOPIC = Partition("checkpoints", 0)


class SlowLog(MemoryLog):
    """Every second poll gives nothing, as of a broker on a busy machine. Counts polls."""

    polls = 0

    def read(self, partition, offset, max_records):
        self.polls += 1
        return [] if self.polls % 2 else super().read(partition, offset, 1)


def announce(log: MemoryLog, name: str) -> None:
    log.append(
        TOPIC,
        json.dumps(
            {
                "model": "m",
                "kind": "published",
                "name": name,
                "event_time_max_ms": 5,
                "created_ms": 7,
            }
        ).encode(),
    )


def test_an_announced_version_is_found_however_slowly_the_broker_answers():
    log = SlowLog(now=lambda: 0)
    log.create("checkpoints", 1)
    for number in range(20):
        announce(log, f"v{number}")
    published = Published("m", live=False, versions_max=100)
    CheckpointsReader(log, "checkpoints", published).catch_up(pa.array(["v19", ""]))
    assert not published.unknown(pa.array([f"v{n}" for n in range(20)]))


class DeletedLog(MemoryLog):
    """Says of a topic that is gone what a broker does, and counts how often it was asked."""

    looks = 0

    def end(self, partition):
        self.looks += 1
        if not self.partitions(partition.topic):
            raise Unavailable("no answer")
        return super().end(partition)

    def partitions(self, topic):
        self.looks += 1
        return super().partitions(topic)


@pytest.fixture
def log():
    return DeletedLog(now=lambda: 0)


@pytest.fixture
def reading(log, monkeypatch):
    """(what is published, a reader that may look again after a millisecond)"""
    monkeypatch.setattr(examples_reader, "CHECKPOINTS_RETRY_MS", 1)
    monkeypatch.setattr(examples_reader, "CHECKPOINTS_RETRY_MAX_MS", 1)
    published = Published("m", live=False, versions_max=100)
    return published, CheckpointsReader(log, "checkpoints", published)


def until_known(published, reader, name):
    limit = TimeLimit(20)
    while published.unknown(pa.array([name])):
        assert not limit.over
        reader.catch_up(pa.array([name]))


def test_a_topic_that_is_not_there_at_first_or_for_a_while_is_read_once_it_is(log, reading):
    published, reader = reading
    reader.catch_up(pa.array(["v0"]))
    for number in range(3):
        log.create("checkpoints", 1)
        announce(log, f"v{number}")
        until_known(published, reader, f"v{number}")
        log.delete("checkpoints")
        reader.catch_up(pa.array(["gone"]))
    reader.close()


@pytest.mark.parametrize("before", [1, 3])
def test_a_topic_made_anew_between_two_looks_is_read_from_its_beginning(log, reading, before):
    """Also where it is longer by then than the former was."""
    published, reader = reading
    log.create("checkpoints", 1)
    for number in range(before):
        announce(log, f"v{number}")
    until_known(published, reader, "v0")
    log.delete("checkpoints")
    log.create("checkpoints", 1)
    announce(log, "w0")
    announce(log, "w1")
    until_known(published, reader, "w0")


def test_records_that_retention_took_are_passed_over(log, reading):
    published, reader = reading
    log.create("checkpoints", 1)
    announce(log, "v0")
    until_known(published, reader, "v0")
    announce(log, "v1")
    announce(log, "v2")
    log.delete_below(TOPIC, 2)
    until_known(published, reader, "v2")


def test_a_topic_that_is_gone_is_not_looked_at_with_every_batch(log):
    published = Published("m", live=False, versions_max=100)
    reader = CheckpointsReader(log, "checkpoints", published)
    for number in range(50):
        reader.catch_up(pa.array([f"v{number}"]))
    assert log.looks == 1


def test_versions_that_nobody_announced_are_forgotten_on_time(log, monkeypatch):
    """New ones with each batch, as of a site that sends something else in their place."""
    now_s = [0.0]
    monkeypatch.setattr(examples_reader.time, "monotonic", lambda: now_s[0])
    log.create("checkpoints", 1)
    published = Published("m", live=False, versions_max=100)
    reader = CheckpointsReader(log, "checkpoints", published)
    for number in range(100):
        now_s[0] += 0.5
        reader.catch_up(pa.array([f"v{number}-{n}" for n in range(100)]))
    assert len(reader._missing) <= 500
    for number in range(200):
        reader.catch_up(pa.array([f"w{number}-{n}" for n in range(100)]))
    assert len(reader._missing) <= examples_reader.MISSING_MAX + 100


def test_a_version_nobody_announced_is_not_looked_for_with_every_batch():
    log = SlowLog(now=lambda: 0)
    log.create("checkpoints", 1)
    announce(log, "v0")
    published = Published("m", live=False, versions_max=100)
    reader = CheckpointsReader(log, "checkpoints", published)
    reader.catch_up(pa.array(["strange"]))
    polls = log.polls
    for _ in range(50):
        reader.catch_up(pa.array(["strange", "v0"]))
    assert log.polls == polls
    announce(log, "v1")
    reader.catch_up(pa.array(["strange", "v1"]))  # another one is looked for at once
    assert published.unknown(pa.array(["strange", "v1"])) == {"strange"}
