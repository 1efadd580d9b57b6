"""What only the log in memory does: fates of sends, and its own clock."""

import pytest

from stream.log.log import SendFailed
from stream.log.memory import Fate, MemoryLog
from stream.record import Partition

PARTITION = Partition("a", 0)


def log(*fates: Fate) -> MemoryLog:
    coming = iter(fates)
    made = MemoryLog(lambda: 77, (lambda _: next(coming)) if fates else None)
    made.create("a", 1, append_time=True)
    return made


def test_a_lost_send_is_not_in_the_log_and_ends_the_writer():
    made = log(Fate.LOST, Fate.ACKNOWLEDGED)
    writer = made.writer()
    with pytest.raises(SendFailed, match="lost"):
        writer.append(PARTITION, b"1")
    with pytest.raises(SendFailed, match="lost"):
        writer.append(PARTITION, b"2")
    assert made.end(PARTITION) == 0
    assert made.writer().append(PARTITION, b"3").offset == 0


def test_an_unacknowledged_send_is_in_the_log_and_ends_the_writer():
    made = log(Fate.UNACKNOWLEDGED)
    writer = made.writer()
    with pytest.raises(SendFailed):
        writer.append(PARTITION, b"1")
    assert made.end(PARTITION) == 1


def test_a_pending_send_is_done_when_acknowledged():
    writer = log(Fate.PENDING, Fate.PENDING).writer()
    sent = writer.append(PARTITION, b"1")
    assert not sent.done
    with pytest.raises(SendFailed):
        _ = sent.offset
    writer.pending[0].acknowledge()
    assert sent.offset == 0
    writer.flush(100)
    writer.append(PARTITION, b"2")
    with pytest.raises(SendFailed, match="100 ms"):
        writer.flush(100)


def test_the_log_stamps_with_its_own_clock():
    made = log()
    made.writer().append(PARTITION, b"1", timestamp_ms=5)
    assert made.records(PARTITION)[0].timestamp_ms == 77


def test_names_are_checked():
    made = log()
    with pytest.raises(ValueError, match="exists"):
        made.create("a", 1)
    with pytest.raises(ValueError, match="no such partition"):
        made.append(Partition("a", 1), b"1")
