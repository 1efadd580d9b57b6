"""How long an outbox waits for an acknowledgement, whatever the clock does meanwhile."""

import pytest

from labeler.io import Message, Outbox, Outgoing
from stream import Partition
from stream.log import MemoryLog, SendFailed, Writer
from stream.log.memory import Fate

AT = Partition("signals", 0)
HOUR_MS, LIMIT_MS = 3_600_000, 30_000


def wait_on(outbox: Outbox[int], writer: Writer, now_ms: int, for_ms: int = 20_000) -> None:
    for passed_ms in range(0, for_ms, 100):
        outbox.advance(writer, now_ms + passed_ms)


def waiting(now_ms: int) -> tuple[Outbox[int], Writer]:
    """An outbox whose record is on its way and never acknowledged."""
    log = MemoryLog(lambda: now_ms, on_append=lambda _: Fate.PENDING)
    log.create(AT.topic, 1)
    outbox: Outbox[int] = Outbox(10, LIMIT_MS)
    outbox.put(Outgoing(Message(AT, b"x"), (), 1))
    writer = log.writer()
    outbox.advance(writer, now_ms)
    return outbox, writer


@pytest.mark.parametrize("step_ms", [0, HOUR_MS, -HOUR_MS, 48 * HOUR_MS])
def test_a_step_of_the_clock_neither_ends_nor_lengthens_the_wait(step_ms: int):
    outbox, writer = waiting(100 * HOUR_MS)
    now_ms = 100 * HOUR_MS + step_ms
    wait_on(outbox, writer, now_ms)
    with pytest.raises(SendFailed, match="30000 ms"):
        wait_on(outbox, writer, now_ms + 20_000)
