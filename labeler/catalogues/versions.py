"""The rows of one catalogue as of the time that the slowest partition has reached, and what later
records change (A3).

A catalogue has an arrival of its own, by the rules of inputs (T1 to T3). What it gives an
impression is a function of its log and of the impression's arrival, however both were read: the
last row of the key that arrived at or before. What is the state is written with the place in the
log that it is read to, so that a start goes on there.

Pure: it is told what was read.
"""

import json
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
    RowReader,
    WrongRow,
    found_of,
)
from stream.kernels import I64
from stream.log.rows import StoredRows

#: Bytes of later rows that are held for partitions ahead of the slowest one.
LATER_BYTES_MAX = 134_217_728
#: Of records that could not be read the newest are kept; so many bytes at most.
BAD_BYTES_MAX = 33_554_432
#: What a later row takes beside its value, about.
LATER_BYTES = 300
#: A place in the log is written at least each so many records.
PLACE_EVERY = 1_000
#: Rows that are written at once, at most.
WRITTEN_MAX = 4_096


class CatalogueBegin(NamedTuple):
    """Where the topic of a catalogue begins, and what tells it from a former one ("" = unknown)."""

    first: int
    topic_id: str = ""


class _ReadTo(NamedTuple):
    """What stands below `offset` arrived at this time or earlier, and is read."""

    arrival_ms: int
    offset: int
    bad_ms: int = 0  # when the last of it arrived that is no row


class _Later(NamedTuple):
    arrival_ms: int
    row: CatalogueRow
    offset: int


class _Bad(NamedTuple):
    arrival_ms: int
    record: BadRecord


class RowVersions:
    """Read on from where its rows were written, or from the first record of the catalogue."""

    def __init__(
        self, stream: StreamConfig, reader: RowReader, held: StoredRows, begin: CatalogueBegin
    ) -> None:
        """`held`: what was written of the same topic by the same rules is gone on with; anything
        else there is deleted. Raises RowsFailed."""
        self.held, self._reader = held, reader
        self._topic_id = begin.topic_id
        self._decides = (
            f"{reader.decides} {stream.jump_max_ms} {stream.skew_ms} {stream.jump_confirm_ms} "
            f"{stream.replayed}"
        )
        place = self._written() or _ReadTo(0, begin.first)
        self.next_offset, self._place = place.offset, place
        self._clock = arrival_clock(stream, place.arrival_ms)
        self.low_ms = place.arrival_ms  # `held` is as of this arrival
        self.bad_ms = place.bad_ms  # arrival of the last record below it that was no row
        self._ends: deque[_ReadTo] = deque()  # of what was read, above `low_ms`
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
        return self.held.memory_bytes + self._later_bytes + self._bad_bytes

    def lacks(self, arrival_ms: int) -> bool:
        """Whether more must be read before it is known what an impression of this arrival is
        given."""
        return self.arrival_ms <= arrival_ms

    def read(self, records: Iterable[Record]) -> None:
        """The next records. Raises RowsFailed."""
        new = [record for record in records if record.offset >= self.next_offset]
        if not new:
            return
        self.next_offset = new[-1].offset + 1
        arrived = self._clock.admit(new)
        if not len(arrived.records):
            return
        rows: list[_Later] = []
        for i, arrival_ms in enumerate(arrived.arrival_ms.tolist()):
            row = self._take(arrived.records[i], arrival_ms)
            if row is not None:
                rows.append(row)
        end = _ReadTo(self.arrival_ms, arrived.records[-1].offset + 1)
        if not self._ends or end.offset - self._ends[-1].offset >= PLACE_EVERY:
            self._ends.append(end)
        self._put(rows)

    def settle(self, low_ms: int) -> None:
        """No impression asks for what was before this time: what arrived by then becomes the
        state. Raises RowsFailed."""
        if low_ms <= self.low_ms:
            return
        self.low_ms = low_ms
        rows = []
        while self._later and self._later[0].arrival_ms <= low_ms:
            later = self._later.popleft()
            self._later_bytes -= _size(later.row)
            versions = self._of[later.row.key]
            del versions[0]
            if not versions:
                del self._of[later.row.key]
            rows.append(later)
        self._put(rows)

    def find(self, keys: pa.Array, arrival_ms: I64) -> FoundRows:
        """Of each key, (n,), the last row that arrived at or before. Raises RowsFailed, and
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

    def _put(self, rows: list[_Later]) -> None:
        """These are the state now. It is written with where it is read to."""
        for at in range(0, len(rows), WRITTEN_MAX):
            some = rows[at : at + WRITTEN_MAX]
            self.held.put([one.row.key for one in some], [one.row.value for one in some])
            self._commit(_ReadTo(some[-1].arrival_ms, some[-1].offset + 1))
        end = self._place
        while self._ends and self._ends[0].arrival_ms <= self.low_ms:
            end = self._ends.popleft()
        if end.offset >= self._place.offset + PLACE_EVERY:
            self._commit(end)

    def _commit(self, place: _ReadTo) -> None:
        bad = bisect_right(self._bad, place.arrival_ms, key=_arrived)
        bad_ms = self._bad[bad - 1].arrival_ms if bad else self.bad_ms
        said = {"topic_id": self._topic_id, "decides": self._decides}
        said |= place._replace(bad_ms=bad_ms)._asdict()
        self.held.commit(json.dumps(said).encode())
        self._place = place

    def _written(self) -> _ReadTo | None:
        """Where what is held was read to; None = nothing that is of use is."""
        said = json.loads(self.held.position or b"{}")
        topic_id = said.get("topic_id", "")
        same = topic_id == self._topic_id or "" in (topic_id, self._topic_id)
        if said.get("decides") == self._decides and same:
            self._topic_id = self._topic_id or topic_id
            return _ReadTo(said["arrival_ms"], said["offset"], said["bad_ms"])
        self.held.clear()
        return None

    def _take(self, record: Record, arrival_ms: int) -> _Later | None:
        """A row that is the state at once; later ones are held."""
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
            return None
        if row is None:
            return None
        later = _Later(arrival_ms, row, record.offset)
        if arrival_ms <= self.low_ms:
            return later
        self._later.append(later)
        self._of.setdefault(row.key, []).append(later)
        self._later_bytes += _size(row)
        return None


def _size(row: CatalogueRow) -> int:
    return len(row.key) + len(row.value) + LATER_BYTES


def _bad_size(bad: _Bad) -> int:
    return len(bad.record.record.value or b"") + LATER_BYTES


def _arrived(bad: _Bad) -> int:
    return bad.arrival_ms
