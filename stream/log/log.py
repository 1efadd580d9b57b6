"""The log as the parts see it: partitions of records, read by position and appended to.

`memory` implements these in one process and `kafka` over a broker; one contract suite
(`tests/stream/log/test_log.py`) runs on both. Nothing is ever committed: a reader's positions are
set by `seek`, from what the output log says (C2).

A reader or writer belongs to one thread.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from stream.record import Partition, Record

#: Of a record: names and values, in order; a name may come twice.
Headers = tuple[tuple[str, bytes], ...]
#: Called with the partitions that a group gave to, or took from, this member.
OnPartitions = Callable[[list[Partition]], None]


class LogError(Exception):
    """What a log may raise."""


class Unavailable(LogError):
    """The broker did not answer within the deadline. Reading may be tried again; nothing was
    skipped."""


class OffsetOutOfRange(LogError):
    """A position that the partition does not hold: below retention, or above the end of a log
    that lost its tail."""

    def __init__(self, partition: Partition, offset: int, first: int, end: int):
        super().__init__(
            f"{partition.topic}[{partition.partition}]: offset {offset} is outside [{first}, "
            f"{end}] still there"
        )
        self.partition, self.offset, self.first, self.end = partition, offset, first, end


class SendFailed(LogError):
    """A send failed or is in doubt. The writer is of no more use: drop it, and read what the log
    holds (C5)."""


class NotConnected(SendFailed, Unavailable):
    """A writer's first connection failed: no broker answered within the deadline, and nothing was
    sent."""


class Append(Protocol):
    """A record on its way. It is in the log once `done`; a failed one makes its writer raise."""

    @property
    def done(self) -> bool:
        """Whether the log has confirmed it."""

    @property
    def offset(self) -> int:
        """Where it stands. Raises SendFailed if it is not known to be in the log."""

    @property
    def too_large(self) -> bool:
        """Whether the log has refused it for its size, and would again."""


class Reader(Protocol):
    """Reads partitions of its own choice, each from a position of its own."""

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Read exactly these. One that stays keeps its position; a new one gives nothing before
        it was sought."""

    def seek(self, partition: Partition, offset: int) -> None:
        """The next record read from this partition is the first at or after `offset`; what was
        fetched is dropped."""

    def position(self, partition: Partition) -> int:
        """The offset after the last record given, or behind what follows it and is no record
        (markers of transactions, what was aborted)."""

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        """At most `max_records` next records, each partition's in log order; empty after
        `timeout_ms` without one.

        Waits out a broker that is gone (empty answers). Raises OffsetOutOfRange; Unavailable if a
        position is out of range and the broker does not say of which.
        """

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Give nothing from these until `resume`; their positions stay."""

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Give records of these again, from where their positions stayed."""

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset still there. Raises Unavailable."""

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset behind the last record that can be read: the end, or where a transaction is
        still open. Raises Unavailable."""

    def topic_id(self, topic: str) -> str:
        """What tells a topic from one of the same name that was made after it was deleted, as far
        as is known now and half a minute late at most; "" where a broker has no such ids, or was
        not asked of the topic yet."""

    def close(self) -> None:
        """Give up its connections; nothing is read afterwards."""


class GroupReader(Reader, Protocol):
    """A reader whose partitions a group hands out. Its callbacks run inside `poll`.

    `on_assigned` gets the partitions that are new to this member and must seek each of them.
    """

    def subscribe(self, topic: str, on_assigned: OnPartitions, on_revoked: OnPartitions) -> None:
        """Read what the group gives this member of a topic."""


class Writer(Protocol):
    """Appends records; what it has sent is in the log once `flush` returns."""

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> Append:
        """Send one record. `timestamp_ms` is needed where timestamps are the writer's, and ignored
        where they are the broker's (T1). Raises SendFailed if this or an earlier send failed: from
        then on, always."""

    def flush(self, timeout_ms: int) -> None:
        """Return once everything sent is in the log. Raises SendFailed otherwise."""

    def poll(self) -> None:
        """Raises SendFailed if an earlier send has failed."""

    def wait(self, timeout_ms: int) -> None:
        """Return once the oldest send under way has ended, well or badly, or after this time; at
        once if there is none. Raises nothing: `poll` says what became of it."""

    def close(self) -> None:
        """Drop the writer, and what it has not sent, at once."""


class Log(Protocol):
    """Where readers and writers come from."""

    def reader(self) -> Reader:
        """One without partitions: `assign` gives it some."""

    def group_reader(self, group: str, member: str = "") -> GroupReader:
        """`member` names this one among the group's: one of this name that dies and comes back
        takes its partitions at once (`static_members`), and one that another process has replaced
        ends with a LogError. "" = nobody's."""

    def writer(self) -> Writer:
        """One of the caller's own; it closes it."""

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 if there is none of this name. Raises Unavailable."""
