"""The log in memory: the twin of `kafka`, for tests and the simulator. The clock is an argument.

It does what a broker does and nothing more: offsets without holes, the broker's stamps where a
topic asks for them, retention on demand, groups that hand partitions out in order of joining.
`on_append` decides the fate of each send, so that a simulation can lose a record, or only its
acknowledgement.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from stream.log.log import Headers, OffsetOutOfRange, OnPartitions, SendFailed
from stream.record import Partition, Record


class Fate(Enum):
    """What becomes of a send."""

    ACKNOWLEDGED = "acknowledged"
    PENDING = "pending"  # in the log, the writer told later: `MemoryAppend.acknowledge`
    LOST = "lost"  # not in the log, the writer told
    UNACKNOWLEDGED = "unacknowledged"  # in the log, the writer told that it failed


@dataclass
class _PartitionLog:
    records: list[Record] = field(default_factory=list)
    first: int = 0

    @property
    def end(self) -> int:
        return self.first + len(self.records)


@dataclass
class _Topic:
    partitions: list[_PartitionLog]
    append_time: bool  # message.timestamp.type=LogAppendTime
    id: str


class MemoryLog:
    """A log in this process, for tests: `now` stamps records, ms since 1970; `on_append` decides
    what becomes of each."""

    def __init__(
        self, now: Callable[[], int], on_append: Callable[[Partition], Fate] | None = None
    ):
        self._now = now
        self.on_append = on_append
        self._topics: dict[str, _Topic] = {}
        self._made = 0
        self._groups: dict[str, _Group] = {}

    def create(self, topic: str, partitions: int, append_time: bool = False) -> None:
        """A new topic. With `append_time` the log stamps every record with its own clock (T1)."""
        if topic in self._topics:
            raise ValueError(f"topic {topic!r} exists")
        self._made += 1
        self._topics[topic] = _Topic(
            [_PartitionLog() for _ in range(partitions)], append_time, f"id-{self._made}"
        )

    def delete(self, topic: str) -> None:
        """The topic is gone, with all that stood in it; one of this name may be created anew."""
        del self._topics[topic]

    def topic_id(self, topic: str) -> str:
        return self._topics[topic].id if topic in self._topics else ""

    def partitions(self, topic: str) -> int:
        return len(self._topics[topic].partitions) if topic in self._topics else 0

    def reader(self) -> "MemoryReader":
        return MemoryReader(self)

    def group_reader(self, group: str, member: str = "") -> "MemoryGroupReader":
        return MemoryGroupReader(self, self._groups.setdefault(group, _Group()))

    def writer(self) -> "MemoryWriter":
        return MemoryWriter(self)

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> int:
        """Put one record at the end, whatever `on_append` says. Returns its offset."""
        log = self._log(partition)
        if self._topics[partition.topic].append_time or timestamp_ms is None:
            timestamp_ms = self._now()
        log.records.append(Record(log.end, timestamp_ms, key or None, value, headers))
        return log.end - 1

    def delete_below(self, partition: Partition, offset: int) -> None:
        """Retention: the records below `offset` are gone."""
        log = self._log(partition)
        offset = min(max(offset, log.first), log.end)
        del log.records[: offset - log.first]
        log.first = offset

    def records(self, partition: Partition) -> list[Record]:
        """Everything still there; not to be changed."""
        return self._log(partition).records

    def first(self, partition: Partition) -> int:
        return self._log(partition).first

    def end(self, partition: Partition) -> int:
        return self._log(partition).end

    def read(self, partition: Partition, offset: int, max_records: int) -> list[Record]:
        """The next records at or after `offset`. Raises OffsetOutOfRange."""
        log = self._log(partition)
        if not log.first <= offset <= log.end:
            raise OffsetOutOfRange(partition, offset, log.first, log.end)
        at = offset - log.first
        return log.records[at : at + max_records]

    def _log(self, partition: Partition) -> _PartitionLog:
        try:
            return self._topics[partition.topic].partitions[partition.partition]
        except (KeyError, IndexError):
            raise ValueError(
                f"{partition.topic}[{partition.partition}]: no such partition"
            ) from None


class MemoryAppend:
    """See `stream.log.log.Append`."""

    def __init__(self, writer: "MemoryWriter", offset: int, done: bool):
        self._writer, self._offset, self.done = writer, offset, done
        self.too_large = False

    @property
    def offset(self) -> int:
        if not self.done:
            self._writer.poll()
            raise SendFailed("not acknowledged yet")
        return self._offset

    def acknowledge(self) -> None:
        """A `Fate.PENDING` send's acknowledgement arrives."""
        self.done = True


class MemoryWriter:
    """See `stream.log.log.Writer`."""

    def __init__(self, log: MemoryLog):
        self._log = log
        self._failure: str | None = None
        self.pending: list[MemoryAppend] = []

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> MemoryAppend:
        self.poll()
        fate = self._log.on_append(partition) if self._log.on_append else Fate.ACKNOWLEDGED
        offset = (
            -1
            if fate is Fate.LOST
            else self._log.append(partition, value, key, headers, timestamp_ms)
        )
        if fate in (Fate.LOST, Fate.UNACKNOWLEDGED):
            self._failure = f"{partition.topic}[{partition.partition}]: {fate.value}"
            self.poll()
        sent = MemoryAppend(self, offset, fate is Fate.ACKNOWLEDGED)
        if not sent.done:
            self.pending = [a for a in self.pending if not a.done] + [sent]
        return sent

    def flush(self, timeout_ms: int) -> None:
        self.poll()
        if any(not sent.done for sent in self.pending):
            self._failure = f"flush: not acknowledged within {timeout_ms} ms"
            self.poll()

    def poll(self) -> None:
        if self._failure is not None:
            raise SendFailed(self._failure)

    def wait(self, timeout_ms: int) -> None:
        """Nothing happens here while somebody waits."""

    def close(self) -> None:
        self._failure = "closed"


class MemoryReader:
    """See `stream.log.log.Reader`. Partitions take turns in being first, so that none starves."""

    def __init__(self, log: MemoryLog):
        self._log = log
        self._positions: dict[Partition, int | None] = {}
        self._paused: set[Partition] = set()
        self._turn = 0

    def assign(self, partitions: Iterable[Partition]) -> None:
        self._positions = {p: self._positions.get(p) for p in partitions}
        self._paused &= self._positions.keys()

    def seek(self, partition: Partition, offset: int) -> None:
        if partition not in self._positions:
            raise ValueError(
                f"{partition.topic}[{partition.partition}]: not assigned to this reader"
            )
        self._positions[partition] = offset

    def position(self, partition: Partition) -> int:
        offset = self._positions.get(partition)
        if offset is None:
            raise ValueError(f"{partition.topic}[{partition.partition}]: was never sought")
        return offset

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        given: dict[Partition, Sequence[Record]] = {}
        order = list(self._positions)
        self._turn += 1
        for i in range(len(order)):
            partition = order[(self._turn + i) % len(order)]
            offset = self._positions[partition]
            if offset is None or partition in self._paused or max_records <= 0:
                continue
            try:
                records = self._log.read(partition, offset, max_records)
            except OffsetOutOfRange:
                if given:
                    # first what was read of the others, which would be skipped; the next poll
                    # raises
                    break
                raise
            if records:
                given[partition] = records
                self._positions[partition] = records[-1].offset + 1
                max_records -= len(records)
        return given

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._paused |= set(partitions) & self._positions.keys()

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._paused -= set(partitions)

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {p: self._log.first(p) for p in partitions}

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {p: self._log.end(p) for p in partitions}

    def topic_id(self, topic: str) -> str:
        return self._log.topic_id(topic)

    def close(self) -> None:
        self._positions.clear()


@dataclass
class _Group:
    members: "list[MemoryGroupReader]" = field(default_factory=list)

    def share(self, member: "MemoryGroupReader", topic: str, count: int) -> list[Partition]:
        members = [m for m in self.members if m.topic == topic]
        return [Partition(topic, p) for p in range(count) if members[p % len(members)] is member]


class MemoryGroupReader(MemoryReader):
    """See `stream.log.log.GroupReader`. A member joins with its first poll, and learns of a
    change at its next."""

    def __init__(self, log: MemoryLog, group: _Group):
        super().__init__(log)
        self._group = group
        self.topic: str | None = None
        self._on_assigned: OnPartitions | None = None
        self._on_revoked: OnPartitions | None = None

    def subscribe(self, topic: str, on_assigned: OnPartitions, on_revoked: OnPartitions) -> None:
        self.topic, self._on_assigned, self._on_revoked = topic, on_assigned, on_revoked

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        self._rebalance()
        return super().poll(max_records, timeout_ms)

    def _rebalance(self) -> None:
        if self.topic is None or self._on_assigned is None or self._on_revoked is None:
            return
        if self not in self._group.members:
            self._group.members.append(self)
        share = self._group.share(self, self.topic, self._log.partitions(self.topic))
        gone = [p for p in self._positions if p not in share]
        new = [p for p in share if p not in self._positions]
        if gone:
            self._on_revoked(gone)
        if gone or new:
            self.assign(share)
        if new:
            self._on_assigned(new)

    def close(self) -> None:
        if self in self._group.members:
            self._group.members.remove(self)
        super().close()
