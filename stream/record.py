"""A record of the log, and a position in it.

A *position* (T4) names one row of one record: `offset << 20 | row`. Ranges of positions, `[start,
end)`, are what batches cover and what progress is counted in. A whole record at offset `o` covers
`[o << 20, (o + 1) << 20)`.
"""

from typing import NamedTuple

#: Bits of a position that name the row (T4).
ROW_BITS = 20
ROWS_PER_RECORD_MAX = 1 << ROW_BITS
#: The highest offset whose positions are 64-bit numbers.
OFFSET_MAX = (1 << 63 - ROW_BITS) - 1

#: A header's number has no more digits: it is below 2^63.
DECIMAL_DIGITS_MAX = 18

#: Header of a control record (T2). Its value is `heartbeat`; the record has no value.
CONTROL = "control"
HEARTBEAT = "heartbeat"
#: Header of a heartbeat: its writer's clock, decimal milliseconds (T2).
CLOCK_MS = "clock_ms"
#: Header of a barrier heartbeat, and of the empty batch that answers it (E3): the period k,
#: decimal.
BARRIER = "barrier"
#: Header of what labelers, counters and breakers write: whose it is (C9).
HASH_KEY = "hash_key"


class Record(NamedTuple):
    """One record as the log gives it. `timestamp_ms` is Kafka's; the arrival (T1) is its running
    maximum."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    batch_fault: int = (
        0  # not 0: it stands for a whole batch that cannot be read (`stream.log.broken_batches`)
    )

    def header(self, name: str) -> bytes | None:
        """The first header of this name, or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def is_heartbeat(self) -> bool:
        """T2: an event that has the header and a value is an event."""
        return not self.value and self.header(CONTROL) == HEARTBEAT.encode()

    @property
    def barrier(self) -> int | None:
        """The period k of a barrier heartbeat, else None."""
        return decimal(self.header(BARRIER))


def decimal(raw: bytes | None) -> int | None:
    """The number that a header holds, 0 or more; None if there is none, or it holds something
    else."""
    return (
        int(raw) if raw is not None and raw.isdigit() and len(raw) <= DECIMAL_DIGITS_MAX else None
    )


class Partition(NamedTuple):
    """A topic's partition."""

    topic: str
    partition: int


def position(offset: int, row: int = 0) -> int:
    """The position of a row of a record (T4)."""
    if not 0 <= row < ROWS_PER_RECORD_MAX:
        raise ValueError(
            f"row {row} of offset {offset}: a record holds at most {ROWS_PER_RECORD_MAX} rows"
        )
    return offset << ROW_BITS | row


def offset_of(pos: int) -> int:
    """The offset of the record that a position lies in."""
    return pos >> ROW_BITS


def row_of(pos: int) -> int:
    """The row, from 0, that a position names within its record."""
    return pos & (ROWS_PER_RECORD_MAX - 1)
