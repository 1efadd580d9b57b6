"""The rows of `examples`, as every reader folds them, read back from an arrival on (C2)."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain as chained
from typing import NamedTuple

import pyarrow as pa

from labeler.io import EMPTY_POLLS_MAX, POLL_MS
from labeler.join import LabelStrategy
from stream import LABEL, Chain, Fold, Partition, Record
from stream.internal_topics import BatchHeader, MalformedRecord, decode_examples, trim
from stream.log import Log, Reader, Unavailable

#: Records of a partition of `examples` between which is not searched any more.
NEAR_RECORDS = 64
#: Records that are looked through for the first label behind a place.
LOOK_RECORDS = 256


class Labelled(NamedTuple):
    """The rows that a record adds to its chain."""

    kind: str  # LABEL or LATE
    partition: int
    offset: int
    arrival_max_ms: int
    rows: pa.RecordBatch


class _Record(NamedTuple):
    """A record that extends its chain, with rows."""

    kind: str
    offset: int
    arrival_max_ms: int
    before: int  # where its chain ended: rows of positions below are trimmed
    value: bytes


class LabelledRows:
    """Reads the rows of a partition of `examples` back. The records that were read last, up to
    `bytes_max` of them, are kept, and read no second time. Belongs to one thread."""

    def __init__(
        self,
        log: Log,
        examples: Partition,
        strategies: tuple[LabelStrategy, ...],
        poll_records: int,
        bytes_max: int = 0,
    ):
        self._at, self._strategies = examples, strategies
        self._poll_records, self._bytes_max = poll_records, bytes_max
        self._reader = log.reader()
        self._reader.assign([examples])
        self._forget()

    def close(self) -> None:
        """Drop the reader and what is kept."""
        self._forget()
        self._reader.close()

    def _forget(self) -> None:
        self._kept: deque[_Record] = deque()
        self.bytes = 0  # of values that are kept
        self._chains: dict[str, Chain] = {}
        self._next: int | None = None  # offset behind the last record that was read
        self._covers_ms = 0  # all rows up to `_next` that arrived then or later are kept

    def since(
        self, from_ms: int, wanted: Callable[[bytes], bool] | None = None
    ) -> Iterator[Labelled]:
        """Records with rows that arrived at or after `from_ms`, and a few before them, in the
        order of the log, up to its present end. `wanted`: by its value, whether a record has to be
        read. Raises Unavailable."""
        end = self._reader.end_offsets([self._at])[self._at]
        if self._next is None or end < self._next or from_ms < self._covers_ms:
            self._begin(from_ms, end)
        for one in chained(list(self._kept), self._read(end)):
            if one.arrival_max_ms < from_ms or not (wanted is None or wanted(one.value)):
                continue
            try:
                rows = trim(decode_examples(one.value), one.before)
            except MalformedRecord:
                continue  # nobody learned a row of it
            yield Labelled(one.kind, self._at.partition, one.offset, one.arrival_max_ms, rows)

    def forget(self, before_ms: int) -> None:
        """Nobody asks for rows that arrived before that any more."""
        while self._kept and self._kept[0].arrival_max_ms < before_ms:
            self._drop()

    def _begin(self, from_ms: int, end: int) -> None:
        """Read anew, from there on."""
        self._forget()
        first = self._reader.beginning_offsets([self._at])[self._at]
        start = _search(self._reader, self._at, first, end, from_ms)
        self._chains = {f"{r.kind}/{self._at.partition}": Chain() for r in self._strategies}
        self._next, self._covers_ms = start, from_ms

    def _read(self, end: int) -> Iterator[_Record]:
        """What the log holds behind what was read, up to `end`."""
        assert self._next is not None
        if self._next >= end:
            return
        for record in _records(self._reader, self._at, self._next, end, self._poll_records):
            one = self._folded(record)
            self._next = record.offset + 1
            if one is not None:
                self._keep(one)
                yield one
        self._next = end  # offsets that hold no record too

    def _folded(self, record: Record) -> _Record | None:
        name = (record.header("chain") or b"").decode("ascii", "replace")
        chain = self._chains.get(name)
        if chain is None:
            return None
        header = _header(record)
        if header is None:
            return None
        if chain.end is None or chain.judge(header.start, header.end) is Fold.DANGLES:
            chain.end = self._end_before(name, record.offset, chain.end)
        kind, before = chain.fold(header.start, header.end)
        if kind is not Fold.EXTENDS or not record.value:
            return None
        reading = name.partition("/")[0]
        return _Record(reading, record.offset, header.arrival_max_ms, before, record.value)

    def _end_before(self, name: str, offset: int, end: int | None) -> int | None:
        """Where a chain ends before this record of it, the first one read, or one that dangles
        above `end`: there, if one of the next records goes on from it; else at the lowest start
        from which two of them lead on. So one that dangles in the log leads nowhere, and what
        retention took of the chain is passed over."""
        at, reader = self._at, self._reader
        back, until = reader.position(at), reader.end_offsets([at])[at]
        ranges = [
            (header.start, header.end)
            for record in _records(
                reader, at, offset, min(offset + LOOK_RECORDS, until), self._poll_records
            )
            if (header := _header(record)) is not None and header.chain == name
        ]
        reader.seek(at, back)
        if end is not None and _extended(ranges, end):
            return end
        starts = sorted({start for start, _ in ranges})
        leading = [start for start in starts if _extended(ranges, start) > 1]
        return next(iter(leading or (starts if end is None else [])), end)

    def _keep(self, one: _Record) -> None:
        self._kept.append(one)
        self.bytes += len(one.value)
        while self.bytes > self._bytes_max:
            self._drop()

    def _drop(self) -> None:
        gone = self._kept.popleft()
        self.bytes -= len(gone.value)
        self._covers_ms = max(self._covers_ms, gone.arrival_max_ms + 1)


def _header(record: Record) -> BatchHeader | None:
    """None = it extends no chain."""
    try:
        return BatchHeader.from_headers(record.headers)
    except MalformedRecord:
        return None


def _extended(ranges: list[tuple[int, int]], end: int) -> int:
    """How many of these extend a chain that ends there."""
    chain = Chain(end)
    return sum(chain.fold(*one)[0] is Fold.EXTENDS for one in ranges)


def _records(
    reader: Reader, at: Partition, start: int, end: int, poll_records: int
) -> Iterator[Record]:
    reader.seek(at, start)
    empty = 0
    while reader.position(at) < end:
        records = reader.poll(poll_records, POLL_MS).get(at, [])
        empty = 0 if records else empty + 1
        if empty > EMPTY_POLLS_MAX:
            raise Unavailable(f"{at.topic}[{at.partition}]: no answer while reading back to {end}")
        yield from (record for record in records if record.offset < end)


def _search(reader: Reader, at: Partition, first: int, end: int, from_ms: int) -> int:
    """An offset at or before the first label that arrived at or after `from_ms`; arrivals rise
    along a chain."""
    low, high = first, end
    while high - low > NEAR_RECORDS:
        middle = (low + high) // 2
        arrival_ms = _arrival(reader, at, middle, high)
        if arrival_ms is not None and arrival_ms < from_ms:
            low = middle
        else:
            high = middle
    return low


def _arrival(reader: Reader, at: Partition, start: int, end: int) -> int | None:
    """Of the first label at or after an offset."""
    for record in _records(reader, at, start, min(end, start + LOOK_RECORDS), NEAR_RECORDS):
        if (record.header("chain") or b"").startswith(LABEL.encode()):
            header = _header(record)
            if header is not None:
                return header.arrival_max_ms
    return None
