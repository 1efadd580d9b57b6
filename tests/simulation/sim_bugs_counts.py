"""Planted bugs of counters and sequences (J). Seeds of remainders 5 and 10 by 12 have some."""

from typing import Any

import numpy as np
from sim_bug import Patch, bug, replaced

from labeler.counts import Adder, JoinedCounts, PartitionCounts, adder
from labeler.counts.examples_count import counts_of
from stream import RETRACT, kind_of
from stream.columns.counters import CounterColumns, KeptClicks, SequenceColumns
from stream.log.rows import StoredRows

SEEDS = {"first": 10, "step": 12}


@bug("counted as of what was read", "an impression is given the newest totals (J4)", **SEEDS)
def newest_totals() -> list[Patch]:
    right = JoinedCounts._as_of

    def bad(self: JoinedCounts, one: Any, keys: Any, bucket: int) -> Any:
        return right(self, one, keys, max(bucket, self.bucket))

    return [replaced(JoinedCounts._as_of, bad)]


@bug("labels do not wait for counters", "what was not read yet is not given (J4)", **SEEDS)
def not_waited_for() -> list[Patch]:
    def bad(self: PartitionCounts, arrival_ms: int) -> bool:
        return False

    return [replaced(PartitionCounts.waits, bad)]


@bug("labels wait for themselves", "a silence is not said (J4b)", first=1006, step=12)
def waits_for_itself() -> list[Patch]:
    def bad(self: PartitionCounts, first_ms: int, arrival_ms: int) -> bool:
        return False

    return [replaced(PartitionCounts.silence, bad)]


@bug("bucket closed by the first partition", "the others come too late (J2)", **SEEDS)
def closed_early() -> list[Patch]:
    low = property(
        lambda self: max(at.arrival_ms for at in self._partitions.values()) // self._bucket_ms
    )
    return [replaced(Adder._low, low)]


@bug("open buckets forgotten on restart", "an adder reads on where it stood (J3)", **SEEDS)
def open_forgotten() -> list[Patch]:
    def bad(self: Adder) -> Any:
        return {p: at.here for p, at in self._partitions.items()}

    return [replaced(Adder._points, bad)]


@bug("taken back at its full weight", "whatever has faded of it (J1)", **SEEDS)
def full_weight() -> list[Patch]:
    def bad(
        columns: CounterColumns, header: Any, batch: Any, start: int, bucket: int, bucket_ms: int
    ) -> Any:
        if kind_of(header.chain) != RETRACT:
            return counts_of(columns, header, batch, start, bucket, bucket_ms)
        at = batch.schema.get_field_index("arrival_ms")
        late = np.full(batch.num_rows, bucket * bucket_ms, np.int64)
        batch = batch.set_column(at, batch.schema.field(at), late)
        return counts_of(columns, header, batch, start, bucket, bucket_ms)

    return [replaced(counts_of, bad, of=adder)]


@bug("totals before the first slices", "a resume point names the last bucket alone (J4)", **SEEDS)
def round_forgotten() -> list[Patch]:
    def bad(self: JoinedCounts, arrival_ms: int) -> int:
        bucket = self.bucket_of(arrival_ms)
        return max((at.offset for at in self._places if at.bucket <= bucket), default=0)

    return [replaced(JoinedCounts.point, bad)]


@bug("bucket written before its rows", "a crash loses rows of it (J4a)", **SEEDS)
def rows_lost() -> list[Patch]:
    right = StoredRows.commit

    def bad(self: StoredRows, position: bytes = b"") -> None:
        self._pending = {}
        right(self, position)

    return [replaced(StoredRows.commit, bad)]


@bug("clicks as of what was read", "an impression is given the newest clicks (J6)", **SEEDS)
def newest_clicks() -> list[Patch]:
    right = JoinedCounts._sequences_as_of

    def bad(self: JoinedCounts, one: Any, keys: Any, bucket: int) -> Any:
        return right(self, one, keys, max(bucket, self.bucket))

    return [replaced(JoinedCounts._sequences_as_of, bad)]


@bug("clicks taken back stay", "a retraction moves counters alone (J6)", **SEEDS)
def clicks_stay() -> list[Patch]:
    right = SequenceColumns.clicks

    def bad(self: SequenceColumns, rows: Any, sign: int) -> Any:
        return right(self, rows, sign) if sign > 0 else {}

    return [replaced(SequenceColumns.clicks, bad)]


@bug("no more clicks held than given", "nothing stands below what is taken back (J6)", **SEEDS)
def none_below() -> list[Patch]:
    return [replaced(KeptClicks.held, property(lambda self: self.given))]


@bug("idle clicks given", "they are given until their slice comes round (J6)", **SEEDS)
def idle_given() -> list[Patch]:
    def bad(self: SequenceColumns, one: Any, rows: Any, bucket: int) -> Any:
        return rows.newest(one.given, rows.lengths > 0)

    return [replaced(SequenceColumns.given, bad)]
