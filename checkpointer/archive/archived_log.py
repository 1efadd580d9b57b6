"""The log whose topic `examples` goes on below what the broker still holds: the rest comes from the
archive.

Offsets are the topic's own, so whoever reads (learners, the checkpointer that looks for a
beginning) sees one long topic, and notices nothing where the archive ends and the broker begins.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from checkpointer.archive.archive import Archive, first_offset_of
from stream import Partition, Record
from stream.log import GroupReader, Log, OnPartitions, Reader, Writer


class ArchivedLog:
    """See `stream.log.log.Log`."""

    def __init__(self, log: Log, archive: Archive, topic: str) -> None:
        self._log, self._archive, self._topic = log, archive, topic

    def reader(self) -> "ArchivedReader":
        return ArchivedReader(self._log.reader(), self._archive, self._topic)

    def group_reader(self, group: str, member: str = "") -> "ArchivedGroupReader":
        return ArchivedGroupReader(
            self._log.group_reader(group, member), self._archive, self._topic
        )

    def writer(self) -> Writer:
        return self._log.writer()

    def partitions(self, topic: str) -> int:
        return self._log.partitions(topic)


@dataclass
class Cursor:
    """A place in the archived part of one partition."""

    archive: Archive
    paths: list[str]  # not read yet, oldest first
    next_offset: int
    end: int  # where the broker goes on
    records: deque[Record] = field(default_factory=deque)

    def take(self, limit: int) -> list[Record]:
        """At most so many next records; empty at the end of the archived part. A file that could
        not be read comes next again."""
        while not self.records and self.paths:
            found = self.archive.records(self.paths[0])
            del self.paths[0]
            self.records.extend(r for r in found if self.next_offset <= r.offset < self.end)
        taken = [self.records.popleft() for _ in range(min(limit, len(self.records)))]
        if taken:
            self.next_offset = taken[-1].offset + 1
        return taken


class ArchivedReader:
    """See `stream.log.log.Reader`. A position below the broker's first record is read from the
    archive up to there."""

    def __init__(self, inner: Reader, archive: Archive, topic: str) -> None:
        self._inner, self._archive, self._topic = inner, archive, topic
        self._cursors: dict[Partition, Cursor] = {}
        self._paused: set[Partition] = (
            set()
        )  # by the caller; the inner reader pauses what a cursor reads, too

    def assign(self, partitions: Iterable[Partition]) -> None:
        wanted = list(partitions)
        self._inner.assign(wanted)
        self._cursors = {p: c for p, c in self._cursors.items() if p in wanted}
        self._paused &= set(wanted)

    def seek(self, partition: Partition, offset: int) -> None:
        self._leave(partition)
        if partition.topic == self._topic:
            first = self._inner.beginning_offsets([partition])[partition]
            paths = self._archive.paths(partition.partition) if offset < first else []
            if paths:
                begins = [first_offset_of(path) for path in paths]
                from_file = max(0, bisect_right(begins, offset) - 1)
                self._cursors[partition] = Cursor(self._archive, paths[from_file:], offset, first)
                self._inner.seek(partition, first)
                self._inner.pause([partition])
                return
        self._inner.seek(partition, offset)

    def position(self, partition: Partition) -> int:
        cursor = self._cursors.get(partition)
        return self._inner.position(partition) if cursor is None else cursor.next_offset

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        given: dict[Partition, Sequence[Record]] = {}
        left = max_records
        for partition in [p for p in self._cursors if p not in self._paused]:
            cursor = self._cursors[partition]
            records = cursor.take(left)
            if records:
                given[partition] = records
                left -= len(records)
            else:
                # What the archive lacks below the broker's first record the broker refuses, by
                # name.
                self._leave(partition)
                self._inner.seek(partition, max(cursor.next_offset, self._gap(partition, cursor)))
            if left <= 0:
                break
        live = self._inner.poll(max(1, left), 0 if given else timeout_ms) if left > 0 else {}
        return given | {p: r for p, r in live.items() if p not in given and p not in self._cursors}

    def _leave(self, partition: Partition) -> None:
        if self._cursors.pop(partition, None) is not None and partition not in self._paused:
            self._inner.resume([partition])

    def _gap(self, partition: Partition, cursor: Cursor) -> int:
        """Records at the end of the archived part that extend no chain are not kept: a gap up to
        the archive's head is none."""
        head = self._archive.head(partition.partition)
        return min(cursor.end, head.next_offset) if head is not None else cursor.next_offset

    def pause(self, partitions: Iterable[Partition]) -> None:
        wanted = set(partitions)
        self._paused |= wanted
        self._inner.pause(wanted)

    def resume(self, partitions: Iterable[Partition]) -> None:
        wanted = set(partitions)
        self._paused -= wanted
        self._inner.resume(wanted - self._cursors.keys())

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        wanted = list(partitions)
        found = self._inner.beginning_offsets(wanted)
        for partition in wanted:
            if partition.topic == self._topic and (
                paths := self._archive.paths(partition.partition)
            ):
                found[partition] = min(found[partition], first_offset_of(paths[0]))
        return found

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._inner.end_offsets(partitions)

    def topic_id(self, topic: str) -> str:
        return self._inner.topic_id(topic)

    def close(self) -> None:
        self._inner.close()


class ArchivedGroupReader(ArchivedReader):
    """See `stream.log.log.GroupReader`."""

    def __init__(self, inner: GroupReader, archive: Archive, topic: str) -> None:
        super().__init__(inner, archive, topic)
        self._group = inner

    def subscribe(self, topic: str, on_assigned: OnPartitions, on_revoked: OnPartitions) -> None:
        def revoked(partitions: list[Partition]) -> None:
            for partition in partitions:
                self._cursors.pop(partition, None)
                self._paused.discard(partition)
            on_revoked(partitions)

        self._group.subscribe(topic, on_assigned, revoked)
