"""The archive of `examples`: the older part of the topic, kept as long as anybody wants (see
`archive_file`).

    <root>/date=2026-01-05/hour=13/p0-00000000000000004711.parquet   of one partition
    <root>/p0.json                                                    how far it has come

A file is written whole, then the pointer moves; a crash between them writes the same file again,
under the same name, since its name is that of its first record. Where files of two lives overlap, a
reader skips what it has seen.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from checkpointer.archive.archive_file import (
    FORMAT,
    ArchivedFile,
    check_format,
    decode_file,
    describe,
    encode_file,
    event_hour,
    record_headers,
    rows_of_sources,
    without_sources,
)
from checkpointer.store import Damaged, Files, NewerFormat
from stream import Chain, Fold, Record
from stream.internal_topics import BatchHeader

#: Besides what is of another form: no JSON, an infinity in place of a number, brackets without end.
_UNREADABLE = (ValueError, OverflowError, RecursionError)
#: The partition and the first offset of a file; what has another name is none of the archive's.
_FILE = re.compile(
    r"date=[^/]+/hour=[^/]+/p([0-9]{1,9})-([0-9]{1,20})\.parquet",
)


@dataclass(frozen=True)
class ArchiveHead:
    """How far one partition is archived: the next offset of `examples` to read, and every
    chain's (end, barrier)."""

    next_offset: int
    ends: dict[str, tuple[int, int]]
    lost: int = 0  # records that retention took before they were archived


class Archive:
    """Files under one root, by partition."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def head(self, partition: int) -> ArchiveHead | None:
        """How far a partition is archived; None = it is not. Raises Damaged."""
        path = f"p{partition}.json"
        try:
            said = json.loads(self.files.read(path))
            check_format(path, said.get("format", FORMAT))  # 0.2.0 wrote none
            ends = {
                str(chain): (int(end), int(barrier))
                for chain, (end, barrier) in said["ends"].items()
            }
            return ArchiveHead(int(said["next_offset"]), ends, int(said["lost"]))
        except FileNotFoundError:
            return None
        except Damaged:
            raise
        except (*_UNREADABLE, KeyError, TypeError, AttributeError) as error:
            raise Damaged(
                f"archive {path}: not how far a partition is archived ({error!r})"
            ) from error

    def rebuilt_head(self, partition: int) -> ArchiveHead | None:
        """As the newest file that can be read says; what `lost` was is not known then."""
        for path in reversed(self.paths(partition)):
            try:
                file = self.describe(path)
            except NewerFormat:
                raise
            except Damaged:
                continue  # its records are read again, as long as the broker holds them
            return ArchiveHead(file.next_offset, file.ends)
        return None

    def write(self, file: ArchivedFile, records: Sequence[Record], lost: int = 0) -> None:
        self.files.write(file.path, encode_file(file, records))
        self.write_head(file.partition, ArchiveHead(file.next_offset, file.ends, lost))

    def write_head(self, partition: int, head: ArchiveHead) -> None:
        body = {"next_offset": head.next_offset, "ends": head.ends, "lost": head.lost}
        body |= {"format": FORMAT}
        self.files.write(f"p{partition}.json", json.dumps(body, sort_keys=True).encode())

    def paths(self, partition: int | None = None) -> list[str]:
        """All files of a partition (or of all), oldest records first."""
        found = [
            (int(match[2]), int(match[1]), path)
            for path in self.files.below("")
            if (match := _FILE.fullmatch(path))
        ]
        return [path for _, p, path in sorted(found) if partition in (None, p)]

    def describe(self, path: str) -> ArchivedFile:
        """Raises Damaged."""
        return describe(self.files.read(path), path)

    def records(self, path: str) -> list[Record]:
        """Raises Damaged."""
        return decode_file(self.files.read(path), path)[1]

    def record_headers(self, path: str) -> list[Record]:
        """The records without their values, which costs no row. Raises Damaged."""
        return record_headers(self.files.read(path), path)

    def count(self, sources: Sequence[str]) -> "RowsOfSources":
        """How many rows there are of these sources."""
        return self._each(lambda path: rows_of_sources(self.files.read(path), path, sources))

    def forget(self, sources: Sequence[str]) -> "RowsOfSources":
        """Take every row of these (pseudonymised) sources out of all files that can be read.
        Returns how many rows there were."""

        def take_out(path: str) -> int:
            data, rows = without_sources(self.files.read(path), path, sources)
            if rows:
                self.files.write(path, data)
            return rows

        return self._each(take_out)

    def _each(self, rows_in: Callable[[str], int]) -> "RowsOfSources":
        rows, damaged = 0, []
        for path in self.paths():
            try:
                rows += rows_in(path)
            except Damaged as error:
                damaged.append(str(error))
        return RowsOfSources(rows, damaged)


class RowsOfSources(NamedTuple):
    """Rows of some sources in the archive, and the files that cannot be read, each with what is
    wrong with it."""

    rows: int
    damaged: list[str]


def first_offset_of(path: str) -> int:
    """The first offset in an archived file, by its name, as `Archive.paths` says it."""
    return int(path.rpartition("-")[2].removesuffix(".parquet"))


@dataclass
class Archiving:
    """What becomes of one partition's records: folded (C2), gathered, and closed as files. Pure;
    `Archive` writes.

    A file ends where event time enters another hour, where the schema changes, at `bytes_max`, or
    `age_max_ms` after its first record.
    """

    partition: int
    bytes_max: int
    age_max_ms: int
    code_version: str = ""
    next_offset: int = 0
    chains: dict[str, Chain] = field(default_factory=dict)
    repeats: int = 0
    unreadable: int = 0
    _open: list[tuple[Record, BatchHeader]] = field(default_factory=list)
    _bytes: int = 0
    _opened_ms: int = 0

    @staticmethod
    def resumed(
        partition: int, head: ArchiveHead | None, bytes_max: int, age_max_ms: int, version: str
    ) -> "Archiving":
        made = Archiving(partition, bytes_max, age_max_ms, version)
        if head is not None:
            made.next_offset = head.next_offset
            made.chains = {
                chain: Chain(end, barrier) for chain, (end, barrier) in head.ends.items()
            }
        return made

    def add(self, record: Record, now_ms: int) -> Iterator[tuple[ArchivedFile, list[Record]]]:
        """Take one record; yields the file that it closes, if it does."""
        try:
            header = BatchHeader.from_headers(record.headers)
        except ValueError:
            self.unreadable += 1  # extends no chain, for any reader
            self.next_offset = record.offset + 1
            return
        chain = self.chains.setdefault(header.chain, Chain())
        if chain.judge(header.start, header.end, header.barrier or None) not in (
            Fold.EXTENDS,
            Fold.BARRIER,
        ):
            self.repeats += 1
            self.next_offset = record.offset + 1
            return
        if self._open and self._ends_before(header):
            yield self.close()
        if not self._open:
            self._opened_ms = now_ms
        chain.fold(header.start, header.end, header.barrier or None)
        self._open.append((record, header))
        self._bytes += len(record.value or b"")
        self.next_offset = record.offset + 1
        if self._bytes >= self.bytes_max:
            yield self.close()

    def due(self, now_ms: int) -> bool:
        return bool(self._open) and not 0 <= now_ms - self._opened_ms < self.age_max_ms

    @property
    def waiting(self) -> int:
        """Records gathered and not yet in a file."""
        return len(self._open)

    def _ends_before(self, header: BatchHeader) -> bool:
        with_rows = [h for _, h in self._open if h.labelled]
        if not with_rows or not header.labelled:
            return False
        first = with_rows[0]
        return (
            event_hour(header.ts_ms_min) > event_hour(first.ts_ms_min)
            or header.schema_id != first.schema_id
        )

    def close(self) -> tuple[ArchivedFile, list[Record]]:
        """What was gathered, as a file. Only where `waiting`."""
        headers = [header for _, header in self._open]
        first = self._open[0][0]
        with_rows = [h for h in headers if h.labelled]
        file = ArchivedFile(
            self.partition,
            first.offset,
            self.next_offset,
            {
                name: (chain.end or 0, chain.barrier)
                for name, chain in self.chains.items()
                if chain.end is not None
            },
            min((h.ts_ms_min for h in with_rows[:1]), default=headers[0].arrival_max_ms),
            max((h.ts_ms_max for h in with_rows), default=headers[0].arrival_max_ms),
            max(h.arrival_max_ms for h in headers),
            sum(h.labelled for h in headers),
            self.code_version,
        )
        records = [record for record, _ in self._open]
        self._open.clear()
        self._bytes = 0
        return file, records
