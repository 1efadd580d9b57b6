"""From the records of `examples` to totals and sequences by bucket of arrival (J1 to J3, J6).

A bucket counts, of each partition, what stands in `examples[p]` between the first label that
arrived in it or later, and the first one that arrived behind it. Once every partition has passed
it, it is closed, and published with its number: so it is a function of `examples`, however far its
partitions were read when.

Pure: it is told what was read, and answers what to write.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from labeler.counts.closing import ClosedBucket, closed_sequences, closed_totals
from labeler.counts.examples_count import RowCounts, clicks_of, counts_of
from labeler.counts.stored_counts import apply_stored, kept_state
from stream import LABEL, LATE, RETRACT, Chain, Fold, Record, StreamConfig, kind_of
from stream.columns.counters import (
    CountedValues,
    KeptClicks,
    KeptState,
    KeyClicks,
    KeySequences,
    KeyTotals,
)
from stream.internal_topics import (
    BatchHeader,
    CountRecord,
    ReadPoint,
    decode_examples,
)

Kept: TypeAlias = CountedValues | KeptClicks
#: Of one record of `examples`, to one of them.
Contribution: TypeAlias = RowCounts | KeyClicks
#: A partition is read no further ahead of the slowest one, buckets.
AHEAD_MAX = 256
#: Buckets that are published at once: their rows are in memory until they are acknowledged.
STEP_MAX = 1
#: Packs of restored buckets that are not written yet.
PENDING_MAX = 1_000


class _CountedPartition:
    def __init__(self, point: ReadPoint) -> None:
        ends = {LABEL: point.label, LATE: point.late, RETRACT: point.retract}
        self.chains = {kind: Chain(None if end < 0 else end) for kind, end in ends.items()}
        self.next_offset, self.arrival_ms = point.offset, point.arrival_ms
        self.open: dict[int, dict[Kept, list[Contribution]]] = {}
        #: (bucket, where its first record stands), of those that are not closed
        self.begins: deque[tuple[int, ReadPoint]] = deque()

    @property
    def here(self) -> ReadPoint:
        ends = (-1 if chain.end is None else chain.end for chain in self.chains.values())
        return ReadPoint(self.next_offset, self.arrival_ms, *ends)


class Adder:
    """Adds up all partitions, restored from what lies on disk and what `counts` holds."""

    def __init__(
        self,
        stream: StreamConfig,
        memory: Iterable[CountRecord] = (),
        state: KeptState | None = None,
    ) -> None:
        """`memory`: see `restore`. `state`: what it has written; in memory unless given. Raises
        RowsFailed."""
        self._columns, self._clicks = stream.counter_columns, stream.sequence_columns
        self._stream = stream
        self._bucket_ms, self._slices = stream.counts_bucket_ms, stream.counts_slices
        self.state = state or kept_state(stream)
        self.written = int(self.state.written().get("number", 0))  # bucket that it is as of
        self.dangling = 0  # records above their chain's end: an alarm (C5)
        self.begin()
        for record in memory:
            self.restore(record)

    def begin(self) -> None:
        """Nothing is restored yet, beside what was written."""
        self.number, self.bucket = 0, -1  # the last one closed; 0 = none yet
        self._read_from({})

    def restore(self, record: CountRecord) -> None:
        """The next one that stands in `counts`: of the buckets behind the one that was written, or
        of the last round of slices at least, and what was quiet since. Raises RowsFailed."""
        if not record.quiet and record.number > self.written:
            apply_stored(self.state, record)
            if self.state.stored.pending > PENDING_MAX:
                self.state.flush()
        self.number, self.bucket = record.number, record.bucket
        self._read_from(record.points)

    def commit(self) -> None:
        """What was published stands in `counts`. Raises RowsFailed."""
        if self.number > self.written:
            self.state.commit({"number": self.number})
            self.written = self.number

    def _read_from(self, points: Mapping[int, ReadPoint]) -> None:
        self._partitions = {
            p: _CountedPartition(points.get(p, ReadPoint(0)))
            for p in range(self._stream.partitions)
        }

    def next_offset(self, partition: int) -> int:
        """Of `examples[partition]`: where to read on from."""
        return self._partitions[partition].next_offset

    def skip(self, partition: int, offset: int) -> None:
        """What stood below this offset is gone: its chains begin anew where the log does."""
        at = self._partitions[partition]
        at.next_offset = offset
        at.chains = {kind: Chain() for kind in at.chains}

    def is_ahead(self, partition: int) -> bool:
        """Whether it should not be read on before slower ones are."""
        at = self._partitions[partition]
        return at.arrival_ms // self._bucket_ms - self._low > AHEAD_MAX and len(at.open) > 1

    @property
    def _low(self) -> int:
        """The first bucket that some partition has not passed."""
        return min(at.arrival_ms for at in self._partitions.values()) // self._bucket_ms

    def take(self, partition: int, record: Record) -> None:
        """The next record of `examples[partition]`. Raises MalformedRecord for one that says
        nothing: it is passed over, and extends no chain."""
        at = self._partitions[partition]
        if record.offset < at.next_offset:
            return
        before = at.here._replace(offset=record.offset)
        at.next_offset = record.offset + 1
        header = BatchHeader.from_headers(record.headers)
        kind = kind_of(header.chain)
        if kind not in at.chains:
            return
        batch = decode_examples(record.value) if record.value else None
        found, start = at.chains[kind].fold(header.start, header.end, header.barrier or None)
        self.dangling += found is Fold.DANGLES
        if kind == LABEL and header.start == header.end == start:  # of a silence (J4b)
            at.arrival_ms = max(at.arrival_ms, header.arrival_max_ms)
        if found is not Fold.EXTENDS:
            return
        if kind == LABEL:
            at.arrival_ms = max(at.arrival_ms, header.arrival_max_ms)
        bucket = at.arrival_ms // self._bucket_ms
        if not at.arrival_ms or bucket <= self.bucket:
            return
        if not at.begins or at.begins[-1][0] < bucket:
            at.begins.append((bucket, before))
        if batch is not None:
            parts = at.open.setdefault(bucket, {})
            counts = counts_of(self._columns, header, batch, start, bucket, self._bucket_ms)
            for one, count in counts.items():
                parts.setdefault(one, []).append(count)
            for kept, clicks in clicks_of(self._clicks, header, batch, start).items():
                parts.setdefault(kept, []).append(clicks)

    def step(self) -> list[CountRecord]:
        """What to publish next, in this order, of the buckets that all partitions have passed;
        nothing once all is published."""
        low, out = self._low, []
        open_ = sorted({b for at in self._partitions.values() for b in at.open if b < low})
        for bucket in open_[:STEP_MAX]:
            parts = [at.open.pop(bucket, {}) for at in self._partitions.values()]
            self.number, self.bucket = self.number + 1, bucket
            out.append(self._closed(parts))
        if len(open_) <= STEP_MAX and self.bucket < low - 1:
            self.bucket = low - 1
            out.append(self._record({}, {}, quiet=True))
        return out

    def _closed(self, parts: list[dict[Kept, list[Contribution]]]) -> CountRecord:
        stream, at = self._stream, ClosedBucket(self.number, self.bucket, self._slices)
        rows, sequences = {}, {}
        for one in self._columns.counted:
            counts: list[RowCounts] = [count for part in parts for count in part.get(one, ())]  # type: ignore[misc]
            totals = self.state.totals[one.name]
            limits = (self._columns.fading[one], at, stream.counts_values_max)
            rows[one.name] = closed_totals(totals, counts, *limits)
        for kept in self._clicks.kept:
            clicks: list[KeyClicks] = [c for part in parts for c in part.get(kept, ())]  # type: ignore[misc]
            state = self.state.sequences[kept.name]
            whose = (self._clicks, kept, at, stream.sequences_bytes_max)
            sequences[kept.name] = closed_sequences(state, clicks, *whose)
        return self._record(rows, sequences)

    def _record(
        self, rows: dict[str, KeyTotals], sequences: dict[str, KeySequences], quiet: bool = False
    ) -> CountRecord:
        at = (self.number, self.bucket, self._bucket_ms, self._slices)
        return CountRecord(*at, rows, self._points(), quiet, sequences)

    def _points(self) -> dict[int, ReadPoint]:
        """Where to read on from so that every bucket that is not closed is counted whole."""
        for at in self._partitions.values():
            while at.begins and at.begins[0][0] <= self.bucket:
                at.begins.popleft()
        return {p: at.begins[0][1] if at.begins else at.here for p, at in self._partitions.items()}
