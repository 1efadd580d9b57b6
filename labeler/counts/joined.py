"""What an impression is given of `counts`: totals and sequences as of its arrival (J4, J6).

An impression that arrived at a is given what was labelled by then: the totals as of the end of the
last bucket whose labels' deadlines all lie at or before a. One index serves all partitions of a
labeler. It holds one state of all that is kept, as of what the slowest of them needs, and what
later buckets change. The state lies on disk, with where it was read to (J4a).

Pure: it is told what was read.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from labeler.counts.fitting import fitting, list_bytes_max
from labeler.counts.stored_counts import apply_stored, kept_state
from stream import Record, StreamConfig
from stream.columns import Impressions
from stream.columns.counters import (
    CountedValues,
    KeptClicks,
    KeptState,
    KeySequences,
    KeyTotals,
    faded,
    no_sequences,
    slice_of,
    together,
)
from stream.internal_topics import (
    CountParts,
    CountRecord,
    MalformedRecord,
    decode_counts,
)
from stream.kernels import F64, I64, U64, Bools

Floats = npt.NDArray[np.float32]

#: Rows and clicks of later buckets that are held for partitions ahead of the slowest one.
ROWS_MAX = 2_000_000


class _BucketPlace(NamedTuple):
    bucket: int
    offset: int  # of its first part


class JoinedCounts:
    """Totals of `counts`, read from an offset on."""

    def __init__(
        self,
        stream: StreamConfig,
        next_offset: int,
        state: KeptState | None = None,
        arrival_ms: int = 0,
    ) -> None:
        """`next_offset`: that of a resume point (C4), or the first one. `state`: what was written,
        in memory unless given; it is gone on with if it is behind that offset, and not behind what
        an impression of this arrival needs. Raises RowsFailed."""
        self._stream, self._columns = stream, stream.counter_columns
        self._clicks = stream.sequence_columns
        self._bucket_ms = stream.counts_bucket_ms
        self._parts = CountParts(self._bucket_ms, stream.counts_slices)
        self.next_offset = next_offset
        self.state = state or kept_state(stream)
        self._base = -1  # the bucket that it is as of
        #: The number before the first record that it was made of; None = none was read.
        self._since: int | None = None
        self._later: deque[CountRecord] = deque()
        self._later_rows = 0
        self._places: list[_BucketPlace] = []  # of the last round of slices, and of what is later
        self._needs: dict[int, int] = {}
        self._go_on(self.state.written(), arrival_ms)

    def _go_on(self, said: dict[str, Any], arrival_ms: int) -> None:
        """With what was written, where all of the slices were counted in it."""
        number, since = said.get("number", 0), said.get("since", 0)
        whole = number > 0 and (since == 0 or number - since >= self._stream.counts_slices)
        if (
            not whole
            or said["offset"] < self.next_offset
            or said["bucket"] > self.bucket_of(arrival_ms)
        ):
            self.state.clear()
            return
        self.next_offset, self._since = said["offset"], since
        self._base = self._parts.bucket = said["bucket"]
        self._parts.number = number
        self._places = [_BucketPlace(*place) for place in said["places"]]

    @property
    def bucket(self) -> int:
        """The last one that is counted."""
        return self._parts.bucket

    @property
    def is_full(self) -> bool:
        """Whether it holds so much that no more should be read."""
        return self._later_rows > ROWS_MAX

    def bucket_of(self, arrival_ms: int) -> int:
        """The last bucket that an impression of this arrival is given."""
        return max((arrival_ms - self._stream.wait_ms) // self._bucket_ms, 0) - 1

    def bucket_at(self, arrival_ms: int) -> int:
        """The one that it lies in: those before it wait no more for who says so (J2)."""
        return arrival_ms // self._bucket_ms

    def covers(self, arrival_ms: int) -> bool:
        """Whether all that it is given is known, and still held."""
        return self._base <= self.bucket_of(arrival_ms) <= self.bucket

    def lacks(self, arrival_ms: int) -> bool:
        """Whether more must be read before it is."""
        return self.bucket_of(arrival_ms) > self.bucket

    def read(self, records: Iterable[Record]) -> list[tuple[Record, MalformedRecord]]:
        """The next records of `counts`; answers those that say nothing, and are passed over."""
        bad = []
        for record in records:
            if record.offset < self.next_offset:
                continue
            self.next_offset = record.offset + 1
            try:
                found = self._parts.add(decode_counts(record), record.offset)
            except MalformedRecord as error:
                bad.append((record, error))
                continue
            if found is not None and not found[0].quiet:
                self._take(*found)
        return bad

    def skip(self, offset: int) -> None:
        """What stood below this offset is gone."""
        self.next_offset, self._since = max(self.next_offset, offset), None

    def need(self, partition: int, arrival_ms: int) -> None:
        """A partition's next impressions arrive at this time or later; what nobody needs is
        forgotten."""
        self._needs[partition] = self.bucket_of(arrival_ms)
        self._settle()

    def done(self, partition: int) -> None:
        """A partition needs nothing for now: it stands still, or is another's."""
        self._needs.pop(partition, None)

    def point(self, arrival_ms: int) -> int:
        """Where to read on from, if later impressions arrive at this time or later (C4): a round of
        slices before. A function of the log."""
        bucket, last = self.bucket_of(arrival_ms), -1
        for i, place in enumerate(self._places):
            if place.bucket <= bucket:
                last = i
        if last < 0:
            return 0
        return self._places[max(0, last + 1 - self._stream.counts_slices)].offset

    def joined(self, rows: Impressions, begins: bool = False) -> Impressions:
        """The impressions with the columns of all that is kept behind their own. `begins`: nothing
        was labelled before, and nothing is known of anything."""
        buckets = np.maximum((rows.arrival_ms - self._stream.wait_ms) // self._bucket_ms, 0) - 1
        totals = self._totals_of(rows.table, buckets, begins)
        found: dict[str, Floats | pa.ListArray] = {**self._columns.columns(totals)}
        lists = self._clicks.columns(self._clicks_of(rows.table, buckets, begins), rows.ts_ms)
        for name, column in lists.items():
            found[name] = fitting(column, list_bytes_max(self._stream, name, len(rows)))
        table = rows.table
        for column in self._stream.joined:
            value = pa.array(found[column.name], column.type)
            field = pa.field(column.column, column.type, nullable=False)
            table = table.append_column(field, value)
        return type(rows)(
            rows.position,
            rows.arrival_ms,
            rows.ts_ms,
            rows.id,
            rows.source_hash,
            rows.vendor_hash,
            table,
        )

    def _totals_of(
        self, table: pa.Table, buckets: I64, begins: bool
    ) -> dict[CountedValues, tuple[F64, F64]]:
        found = {
            one: (np.zeros(len(buckets)), np.zeros(len(buckets))) for one in self._columns.counted
        }
        for one, keys in self._columns.keys(table).items():
            for bucket in np.unique(buckets).tolist() if not begins else ():
                mine = np.flatnonzero(buckets == bucket)
                faded_to = self._as_of(one, keys[mine], bucket)
                for out, values in zip(found[one], faded_to, strict=True):
                    out[mine] = values
        return found

    def _clicks_of(
        self, table: pa.Table, buckets: I64, begins: bool
    ) -> dict[KeptClicks, KeySequences]:
        found = {}
        for one, keys in self._clicks.keys(table).items():
            found[one] = no_sequences().find(keys)
            if begins:
                continue
            parts, rows = [no_sequences()], [np.zeros(0, np.int64)]
            for bucket in np.unique(buckets).tolist():
                rows.append(np.flatnonzero(buckets == bucket))
                parts.append(self._sequences_as_of(one, keys[rows[-1]], bucket))
            found[one] = together(parts).take(np.argsort(np.concatenate(rows)))
        return found

    def _sequences_as_of(self, one: KeptClicks, keys: U64, bucket: int) -> KeySequences:
        """What is given of each key's clicks, (n,)."""
        self._check_held(bucket)
        base = self.state.sequences[one.name]
        said = [record for record in self._later if record.bucket <= bucket]
        parts = [base.find(keys), *(_said_of(record, one).find(keys) for record in said)]
        newest = np.zeros(len(keys), np.int64)  # which of the parts says what a key has
        for i, record in enumerate(said, 1):
            rows = _said_of(record, one)
            told = np.isin(keys, rows.keys) | _is_turn(record, keys)
            newest[told | (one.name not in record.sequences)] = i
        rows = together(parts).take(newest * len(keys) + np.arange(len(keys)))
        return self._clicks.given(one, rows, bucket)

    def _check_held(self, bucket: int) -> None:
        if bucket < self._base:
            raise ValueError(f"totals stand at bucket {self._base}, {bucket} was passed (J4)")

    def _as_of(self, one: CountedValues, keys: U64, bucket: int) -> tuple[F64, F64]:
        """Faded (negatives, clicks) of each key, (n,)."""
        self._check_held(bucket)
        found = self.state.totals[one.name].find(keys)
        for record in self._later:
            if record.bucket > bucket:
                break
            found = _changed(found, record, one)
        return faded(found, bucket, self._columns.fading[one])

    def _take(self, record: CountRecord, offset: int) -> None:
        if self._since is None:
            self._since = record.number - 1
        self._places.append(_BucketPlace(record.bucket, offset))
        self._later.append(record)
        self._later_rows += _size(record)
        self._settle()

    def _settle(self) -> None:
        """What every partition is past becomes the state."""
        if not self._needs:
            return
        low = min(self._needs.values())
        while self._later and self._later[0].bucket <= low:
            record = self._later.popleft()
            apply_stored(self.state, record)
            self._base = record.bucket
            self._later_rows -= _size(record)
            self._write(record)
        spare = len(self._places) - len(self._later) - self._stream.counts_slices
        if spare > 0:
            del self._places[:spare]

    def _write(self, record: CountRecord) -> None:
        """The state is as of this record."""
        places = self._places[: len(self._places) - len(self._later)]
        at = {"number": record.number, "bucket": record.bucket, "since": self._since}
        at["offset"] = places[-1].offset
        self.state.commit({**at, "places": places[-self._stream.counts_slices :]})


def _size(record: CountRecord) -> int:
    clicks = sum(len(rows.keys) + len(rows.times) for rows in record.sequences.values())
    return clicks + sum(len(rows.keys) for rows in record.rows.values())


def _said_of(record: CountRecord, one: KeptClicks) -> KeySequences:
    return record.sequences.get(one.name, no_sequences())


def _is_turn(record: CountRecord, keys: U64) -> Bools:
    """Which keys, (n,), a record says all of (J3)."""
    turn: Bools = slice_of(keys, record.slices) == record.number % record.slices
    return turn


def _changed(found: KeyTotals, record: CountRecord, one: CountedValues) -> KeyTotals:
    """Totals of some keys after one bucket more."""
    rows = record.rows.get(one.name)
    if rows is None:
        return found._replace(negatives=np.zeros(len(found.keys)), clicks=np.zeros(len(found.keys)))
    at = np.minimum(np.searchsorted(rows.keys, found.keys), max(len(rows.keys) - 1, 0))
    said = np.zeros(len(found.keys), np.bool_)
    if len(rows.keys):
        said = rows.keys[at] == found.keys
    gone = ~said & _is_turn(record, found.keys)
    columns = []
    for column, new in zip(found[1:], rows[1:], strict=True):
        kept = np.where(gone, 0, column)
        kept[said] = new[at[said]]
        columns.append(kept)
    return found._replace(negatives=columns[0], clicks=columns[1], bucket=columns[2])
