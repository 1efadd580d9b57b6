"""What a verdict that comes after training takes back of `examples`, and the record that says so
(L3, C1).

A row of `examples` is *taken* by the first late rejection that covers it: one that stands at or
after V of the row, with no allowance before it. What neither the run nor an earlier rejection has
taken is *clean*. Both are functions of the logs, of nothing that was taken back before: so a row is
taken once, whoever writes the record and however often.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns import FEATURE_PREFIX, EntryColumns, GrowingColumns, slice_values
from stream.internal_topics import ALLOW, FORGET, NAMED, REJECT, Again, Verdict, row_bytes
from stream.kernels import I64, Bools


class Held(NamedTuple):
    """A verdict where it stands: m is the lowest watermark of all inputs just before it. Rows that
    arrived before `arrived_from_ms` it does not decide on (C1d)."""

    verdict: Verdict
    offset: int
    low_ms: int
    arrived_from_ms: int = 0
    watermarks: Mapping[str, int] = {}  # just before it

    @property
    def rejects(self) -> bool:
        return self.verdict.decision == REJECT


def held_columns(held: Sequence[Held]) -> EntryColumns:
    """For `GrowingColumns` of verdicts in the order of the log."""
    return {
        "offset": np.array([one.offset for one in held], np.int64),
        "from_ms": np.array([one.verdict.from_ms for one in held], np.int64),
        "to_ms": np.array([one.verdict.to_ms for one in held], np.int64),
        "rejects": np.array([one.rejects for one in held], np.bool_),
        "decides": np.array([one.verdict.decision in (REJECT, ALLOW) for one in held], np.bool_),
    }


def covered(rows: pa.RecordBatch, said: Verdict) -> Bools:
    """Which rows of a batch of `examples` lie in a verdict's scope and interval, (n,). A slice of a
    feature that the rows do not have covers nothing."""
    ts_ms = rows.column("ts_ms").to_numpy()
    inside: Bools = (ts_ms >= said.from_ms) & (ts_ms < said.to_ms)
    named = [("source", said.source), ("vendor", said.vendor)]
    if said.feature is not None:
        named.append((FEATURE_PREFIX + said.feature, said.value))
    for column, value in named:
        if value is None:
            continue
        if column not in rows.schema.names:
            return np.zeros(rows.num_rows, np.bool_)
        same = pc.equal(slice_values(_plain(rows.column(column))), pa.scalar(value, pa.string()))
        inside &= same.fill_null(False).to_numpy(zero_copy_only=False)
    return inside


def _plain(column: pa.Array) -> pa.Array:
    is_packed = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_packed else column


class Late:
    """The rejections of a run and those before it, with the allowances among them, in the order
    of the log. To be asked before the next verdict comes."""

    def __init__(
        self, held: GrowingColumns[Held], first: int, end: int, over_ms: int = -(1 << 62)
    ) -> None:
        """The run are the verdicts at offsets `[first, end)`. One that ends at or before `over_ms`
        decides no more: whether it took a row of before is not known, which is not looked for
        either (C1d)."""
        self._held, self._first, self._over_ms = held, first, over_ms
        decides = held.column("decides") & (held.column("to_ms") > over_ms)
        self._which = np.flatnonzero(decides & (held.column("offset") < end))

    @property
    def deciding(self) -> list[Held]:
        """The run's verdicts and those before it that may still decide, in the order of the log."""
        return [self._held.entries[at] for at in self._which.tolist()]

    def judge(self, rows: pa.RecordBatch, wait_ms: int) -> tuple[Bools, Bools]:
        """Which rows (n,) of a chain read at `arrival + wait_ms` the run takes, and which are
        clean after it."""
        before, now = self._taken_of(rows, wait_ms, self._all_sources)
        known = rows.column("ts_ms").to_numpy() >= self._over_ms
        return now & known, ~(before | now) & known

    def taken(self, rows: pa.RecordBatch, wait_ms: int) -> Bools:
        """The first of both: what others than the run's rejections mean is not looked at."""
        now = self._taken_of(rows, wait_ms, self._own_sources)[1]
        now &= rows.column("ts_ms").to_numpy() >= self._over_ms
        return now

    @cached_property
    def _all_sources(self) -> pa.Array | None:
        return self._sources(self._which)

    @cached_property
    def _own_sources(self) -> pa.Array | None:
        return self._sources(self._which[self._held.column("offset")[self._which] >= self._first])

    def _sources(self, which: I64) -> pa.Array | None:
        """Who is named by these rejections; None = everybody."""
        rejects = which[self._held.column("rejects")[which]]
        found = {self._held.entries[at].verdict.source for at in rejects.tolist()}
        return None if None in found else pa.array(found, pa.string())

    def _taken_of(
        self, rows: pa.RecordBatch, wait_ms: int, sources: pa.Array | None
    ) -> tuple[Bools, Bools]:
        """(taken by an earlier one, taken by the run), of rows of these sources alone."""
        if sources is None:
            return self._taken(rows, wait_ms)
        gone, now = np.zeros(rows.num_rows, np.bool_), np.zeros(rows.num_rows, np.bool_)
        at = np.flatnonzero(pc.is_in(rows.column("source"), sources).to_numpy(zero_copy_only=False))
        if len(at):
            gone[at], now[at] = self._taken(rows.take(pa.array(at)), wait_ms)
        return gone, now

    def _taken(self, rows: pa.RecordBatch, wait_ms: int) -> tuple[Bools, Bools]:
        """(taken by an earlier one, taken by the run)."""
        arrival_ms = rows.column("arrival_ms").to_numpy()
        deadline_ms, ts_ms = arrival_ms + wait_ms, rows.column("ts_ms").to_numpy()
        allowed, gone, now = (np.zeros(rows.num_rows, np.bool_) for _ in range(3))
        if not rows.num_rows:
            return gone, now
        here = set(rows.column("source").to_pylist())
        for at in self._overlapping(int(ts_ms.min()), int(ts_ms.max())).tolist():
            one = self._held.entries[at]
            said = one.verdict
            if said.source is not None and said.source not in here:
                continue
            inside = covered(rows, said) & (arrival_ms >= one.arrived_from_ms)
            if said.decision == ALLOW:
                allowed |= inside
            else:
                spared = allowed if said.rule != FORGET else np.zeros_like(allowed)
                taken = inside & (deadline_ms < one.low_ms) & ~spared & ~gone & ~now
                if one.offset < self._first:
                    gone |= taken
                else:
                    now |= taken
        return gone, now

    def _overlapping(self, first_ms: int, last_ms: int) -> I64:
        """Those whose interval holds one of these event times, in the order of the log."""
        from_ms = self._held.column("from_ms")[self._which]
        to_ms = self._held.column("to_ms")[self._which]
        return self._which[(from_ms <= last_ms) & (to_ms > first_ms)]


@dataclass
class Gathered:
    """The clean rows of what a record names, from the batches in which they were labelled; the
    newest `rows_max`, and of those at most `bytes_max`, in whole batches."""

    named: Mapping[str, Iterable[str]]
    rows_max: int
    bytes_max: int = 1 << 62
    batches: list[tuple[tuple[int, int, int], int, pa.RecordBatch]] = field(default_factory=list)
    clean: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in NAMED}
    )
    taken: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in NAMED}
    )
    _rows: int = 0
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._values = {
            name: pa.array(sorted(self.named.get(name, ())), pa.string()) for name in NAMED
        }

    def add(
        self, at: tuple[int, int, int], rows: pa.RecordBatch, taken: Bools, clean: Bools
    ) -> None:
        """One batch as it was labelled. `at` orders batches: arrival, partition, offset.
        `taken`: by any rejection."""
        meant = np.zeros(rows.num_rows, np.bool_)
        for name in NAMED:
            column = rows.column(name)
            inside = pc.is_in(column, self._values[name]).to_numpy(zero_copy_only=False)
            meant |= inside
            self._count(self.clean[name], column, inside & clean)
            self._count(self.taken[name], column, inside & taken)
        meant &= clean
        if meant.any():
            some = rows.filter(pa.array(meant))
            self.batches.append((at, rows.num_rows, some))
            self._rows, self._bytes = self._rows + some.num_rows, self._bytes + _bytes(some)
            if self._rows > 2 * self.rows_max or self._bytes > 2 * self.bytes_max:
                self.close()

    def worth(self, share_min: float) -> dict[str, list[str]]:
        """Of what is named, the values of whose rows at least this share is taken: below it, the
        honest rows decide what the model says, and to learn a large value again from its newest
        rows would cost more than it mends."""
        return {
            name: sorted(
                v for v, n in self.taken[name].items() if n >= share_min * (n + self.clean[name][v])
            )
            for name in NAMED
        }

    def _count(self, counter: Counter[str], column: pa.Array, chosen: Bools) -> None:
        if chosen.any():
            counts = pc.value_counts(column.filter(pa.array(chosen)))
            counter.update({one["values"].as_py(): one["counts"].as_py() for one in counts})

    def close(self) -> None:
        """Order the batches, and forget the oldest as long as enough rows are left."""
        self.batches.sort(key=lambda one: one[0])
        first, left, size = 0, self._rows, self._bytes
        while first < len(self.batches):
            rows = self.batches[first][2]
            if left - rows.num_rows < self.rows_max and size <= self.bytes_max:
                break
            left, size = left - rows.num_rows, size - _bytes(rows)
            first += 1
        del self.batches[:first]
        self._rows, self._bytes = left, size


def record_rows(
    back: pa.RecordBatch, gathered: Gathered, share_min: float
) -> tuple[pa.RecordBatch, Again]:
    """A record of `retract/p`: `back` with the opposite weight, then the clean rows of what is
    worth it."""
    weight = -back.column("weight").to_numpy()
    parts = [_with(back, "weight", weight.astype(np.float32))]
    gathered.close()
    named = gathered.worth(share_min)
    values = {name: pa.array(named[name], pa.string()) for name in NAMED}
    sizes: list[int] = []
    for _, size, rows in gathered.batches:
        meant = np.zeros(rows.num_rows, np.bool_)
        for name in NAMED:
            meant |= pc.is_in(rows.column(name), values[name]).to_numpy(zero_copy_only=False)
        if meant.any():
            sizes.append(size)
            some = aligned(rows.filter(pa.array(meant)), back.schema)
            parts.append(_with(some, "position", np.full(some.num_rows, -len(sizes), np.int64)))
    whole = pa.Table.from_batches(parts).combine_chunks().to_batches()[0]
    return whole, Again(named, sizes)


def _bytes(rows: pa.RecordBatch) -> int:
    return int(row_bytes(rows.columns, rows.num_rows).sum())


def values_of(rows: pa.RecordBatch) -> dict[str, list[str]]:
    """The sources, vendors and items of these rows."""
    return {name: sorted(pc.unique(rows.column(name)).to_pylist()) for name in NAMED}


def aligned(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows with the columns of another version of the schema: what they lack is missing, what
    they have more is left out."""
    if rows.schema.equals(schema):
        return rows
    arrays = [
        rows.column(f.name)
        if f.name in rows.schema.names and rows.schema.field(f.name).type == f.type
        else pa.array(
            [("" if pa.types.is_string(f.type) else float("nan"))] * rows.num_rows, f.type
        )
        for f in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def _with(rows: pa.RecordBatch, name: str, values: npt.NDArray[np.generic]) -> pa.RecordBatch:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), pa.array(values))
