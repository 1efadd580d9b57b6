"""Every record of a partition as it is now, for commands that look at whole topics; of
`examples` the archive's too."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from checkpointer.archive import Archive
from checkpointer.store import Damaged
from stream import Partition, Record
from stream.log import LogError, OffsetOutOfRange, Reader

POLL_RECORDS = 2_000
#: A partition's end is known from the broker; this many empty polls before it is reached are one
#: that lies.
EMPTY_POLLS_MAX = 100
GONE_WAIT_MS = 100


class AuditError(LogError):
    """The audit could not be done (which is not the same as: it found something wrong)."""


def read_all(reader: Reader, partition: Partition) -> Iterator[Record]:
    """Every record of a partition that is there now, from the first still there."""
    return read_from(reader, partition, 0)


def read_from(reader: Reader, partition: Partition, offset: int) -> Iterator[Record]:
    """Every record at or after an offset that is there now. Raises AuditError, and what logs
    raise."""
    reader.assign([partition])
    begin = max(offset, reader.beginning_offsets([partition])[partition])
    end = reader.end_offsets([partition])[partition]
    if begin == end > offset:  # all is gone: asked twice, as a reader asks that finds a gap
        time.sleep(GONE_WAIT_MS / 1000)
        begin = max(offset, reader.beginning_offsets([partition])[partition])
    reader.seek(partition, min(begin, end))
    empty = 0
    while reader.position(partition) < end:
        try:
            records = reader.poll(POLL_RECORDS, 500).get(partition, [])
        except OffsetOutOfRange as error:
            raise AuditError(
                f"retention took records while they were read; run it again ({error})"
            ) from error
        empty = 0 if records else empty + 1
        if empty > EMPTY_POLLS_MAX:
            raise AuditError(
                f"{partition.topic}[{partition.partition}]: no record from "
                f"{reader.position(partition)} "
                f"though the end is {end}"
            )
        yield from (r for r in records if r.offset < end)


def chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, POLL_RECORDS)):
        yield chunk


@dataclass
class ExamplesRecords:
    """The records of one partition of `examples`: what the archive holds below the broker's first,
    then the broker's.

    `first` is the offset of the first record there is; `problems` says, once all were read, which
    files are damaged and which records stand in neither of the two.
    """

    reader: Reader
    partition: Partition
    archive: Archive | None = None
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker_first = self.reader.beginning_offsets([self.partition])[self.partition]
        self._paths = (
            self.archive.paths(self.partition.partition) if self.archive is not None else []
        )
        self.first = self.broker_first
        if self._paths:
            self.first = min(
                self.first, int(self._paths[0].rpartition("-")[2].removesuffix(".parquet"))
            )

    def __iter__(self) -> Iterator[Record]:
        if self._paths and self.first < self.broker_first:
            yield from self._archived()
        yield from read_all(self.reader, self.partition)

    def _archived(self) -> Iterator[Record]:
        assert self.archive is not None
        at = self.first
        for path in self._paths:
            try:
                records = self.archive.records(path)
            except Damaged as error:
                self.problems.append(str(error))
                continue
            for record in records:
                if at <= record.offset < self.broker_first:
                    yield record
                    at = record.offset + 1
        head = self.archive.head(self.partition.partition)
        behind = max(at, head.next_offset if head is not None else 0)
        if behind < self.broker_first:
            name = f"{self.partition.topic}[{self.partition.partition}]"
            self.problems.append(
                f"records {behind} to {self.broker_first - 1} of {name} are in neither archive "
                f"nor log"
            )
