"""The rows of one catalogue as of the time that the slowest partition has reached, and what later
records change (A3).

A catalogue has an arrival of its own, by the rules of inputs (T1 to T3). What it gives an
impression is a function of its log and of the impression's arrival, however both were read: the
last row of the key that arrived at or before.

Pure: it is told what was read.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from stream import Record, StreamConfig
from stream.decoding import BadRecord, arrival_clock
from stream.decoding.catalogues import (
    CatalogueRow,
    FoundRows,
    HeldRows,
    RowReader,
    WrongRow,
    found_of,
)
from stream.kernels import I64

#: Bytes of later rows that are held for partitions ahead of the slowest one.
LATER_BYTES_MAX = 134_217_728
#: Of records that could not be read the newest are kept; so many bytes at most.
BAD_BYTES_MAX = 33_554_432
#: What a later row takes beside its value, about.
LATER_BYTES = 300


class _Later(NamedTuple):
    arrival_ms: int
    row: CatalogueRow


class _Bad(NamedTuple):
    arrival_ms: int
    record: BadRecord


class RowVersions:
    """Read from the first record of the catalogue on."""

    def __init__(
        self, stream: StreamConfig, reader: RowReader, held: HeldRows, next_offset: int
    ) -> None:
        self.next_offset, self.held = next_offset, held
        self._reader, self._clock = reader, arrival_clock(stream)
        self.low_ms = 0  # `held` is as of this arrival
        self._later: deque[_Later] = deque()
        self._of: dict[bytes, list[_Later]] = {}  # of `_later`, by key
        self._later_bytes = 0
        self._bad: list[_Bad] = []  # a range that is labelled again says them again
        self._bad_bytes = 0
        self.wrong = self.forgotten = 0  # records that could not be read; too many to be kept

    @property
    def arrival_ms(self) -> int:
        """What time it is in the catalogue, as far as it is read."""
        return self._clock.maximum_ms

    @property
    def is_full(self) -> bool:
        """Whether it holds so much that no more should be read."""
        return self._later_bytes > LATER_BYTES_MAX

    @property
    def bytes(self) -> int:
        """Memory of all that is held, about."""
        return self.held.bytes + self._later_bytes + self._bad_bytes

    def lacks(self, arrival_ms: int) -> bool:
        """Whether more must be read before it is known what an impression of this arrival is
        given."""
        return self.arrival_ms <= arrival_ms

    def read(self, records: Iterable[Record]) -> None:
        """The next records. Raises CatalogueFailed."""
        new = [record for record in records if record.offset >= self.next_offset]
        if not new:
            return
        self.next_offset = new[-1].offset + 1
        arrived = self._clock.admit(new)
        for i, arrival_ms in enumerate(arrived.arrival_ms.tolist()):
            self._take(arrived.records[i], arrival_ms)

    def settle(self, low_ms: int) -> None:
        """No impression asks for what was before this time: what arrived by then becomes the
        state. Raises CatalogueFailed."""
        if low_ms <= self.low_ms:
            return
        self.low_ms = low_ms
        while self._later and self._later[0].arrival_ms <= low_ms:
            later = self._later.popleft()
            self._later_bytes -= _size(later.row)
            versions = self._of[later.row.key]
            del versions[0]
            if not versions:
                del self._of[later.row.key]
            self.held.put(later.row.key, later.row.value)

    def find(self, keys: pa.Array, arrival_ms: I64) -> FoundRows:
        """Of each key, (n,), the last row that arrived at or before. Raises CatalogueFailed, and
        ValueError for a time that was passed."""
        if len(arrival_ms) and int(arrival_ms.min()) < self.low_ms:
            raise ValueError(f"rows stand at {self.low_ms}, {arrival_ms.min()} was passed (A3)")
        found = found_of(keys, self.held.get)
        if not self._of:
            return found
        rows, places = list(found.rows), found.places.copy()
        for at, key in enumerate(keys.unique().to_pylist()):  # as `found_of` orders them
            for later in self._of.get(key.encode(), ()):
                rows.append(later.row.value)
                places[(found.places == at) & (arrival_ms >= later.arrival_ms)] = len(rows) - 1
        return FoundRows(rows, places)

    def bad_between(self, after_ms: int, until_ms: int) -> list[BadRecord]:
        """What could not be read and arrived after the first time, by the second, in order."""
        first, end = (bisect_right(self._bad, ms, key=_arrived) for ms in (after_ms, until_ms))
        return [one.record for one in self._bad[first:end]]

    def _take(self, record: Record, arrival_ms: int) -> None:
        try:
            row = self._reader.read(record)
        except WrongRow as error:
            self.wrong += 1
            bad = _Bad(arrival_ms, BadRecord(record, error.name, error.reason))
            self._bad.append(bad)
            self._bad_bytes += _bad_size(bad)
            while self._bad_bytes > BAD_BYTES_MAX:
                self._bad_bytes -= _bad_size(self._bad.pop(0))
                self.forgotten += 1
            return
        if row is None:
            return
        if arrival_ms <= self.low_ms:
            self.held.put(row.key, row.value)
            return
        later = _Later(arrival_ms, row)
        self._later.append(later)
        self._of.setdefault(row.key, []).append(later)
        self._later_bytes += _size(row)


def _size(row: CatalogueRow) -> int:
    return len(row.key) + len(row.value or b"") + LATER_BYTES


def _bad_size(bad: _Bad) -> int:
    return len(bad.record.record.value or b"") + LATER_BYTES


def _arrived(bad: _Bad) -> int:
    return bad.arrival_ms
