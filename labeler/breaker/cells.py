"""Tallies of all partitions, folded and added up in cells of event time until every partition has
passed them (L9).

A partition *passes* a cell with the first record behind which everything is tallied that arrived up
to the cell's end and `settle_ms` more. Of each partition a cell counts what stands up to that
record, and nothing that comes later: so a settled cell is a function of the logs, however far they
were read when it was settled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labeler.breaker.bands import EVERYTHING, GROUPS, Scope, squares_of
from stream import Chain, Fold
from stream.internal_topics import BatchHeader
from stream.kernels import F64, I64

#: Parts of an open cell are added up when there are so many.
PARTS_MAX = 64
_BY = ["feature", "value", "group"]


class ScopeCounts(NamedTuple):
    """What a cell holds, (scopes,) each, in order of the scopes' names."""

    scopes: list[Scope]
    impressions: I64
    clicks: I64
    squares: F64  # the sum over sources of their impressions squared, about
    deviation: F64  # the sum over sources of (clicks - share x impressions) squared, about
    groups: I64  # (scopes, GROUPS): impressions by group of sources


@dataclass
class OpenCell:
    """Counts so far."""

    parts: list[pa.Table] = field(default_factory=list)
    raw: int = 0
    bad_clicks: int = 0
    bad_impressions: int = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows of this cell."""
        self.parts.append(pa.Table.from_batches([rows.select([*_BY, "impressions", "clicks"])]))
        if len(self.parts) >= PARTS_MAX:
            self.parts = [self._sums()]

    def counts(self) -> ScopeCounts:
        if not self.parts:
            nothing = np.zeros((0, GROUPS), np.int64)
            return ScopeCounts([], *people(nothing, nothing), nothing)
        sums = self._sums()
        names = pc.binary_join_element_wise(
            sums.column("feature"), sums.column("value"), "\0"
        ).combine_chunks()
        ordered = pc.unique(names).sort()
        cell = pc.index_in(names, ordered).to_numpy() * GROUPS + sums.column("group").to_numpy()
        by_group = np.zeros((2, len(ordered) * GROUPS), np.int64)
        for k, column in enumerate(("impressions", "clicks")):
            by_group[k, cell] = sums.column(column).to_numpy()
        scopes = [tuple(name.split("\0", 1)) for name in ordered.to_pylist()]
        impressions, clicks = by_group.reshape(2, len(ordered), GROUPS)
        return ScopeCounts(scopes, *people(impressions, clicks), impressions)  # type: ignore[arg-type]

    def _sums(self) -> pa.Table:
        grouped = pa.concat_tables(self.parts).group_by(_BY, use_threads=False)
        sums = grouped.aggregate([("impressions", "sum"), ("clicks", "sum")])
        return sums.rename_columns([name.removesuffix("_sum") for name in sums.column_names])


def people(impressions: I64, clicks: I64) -> tuple[I64, I64, F64, F64]:
    """Counts by scope and group, (scopes, GROUPS), to the first four of `ScopeCounts`. A group
    holds many people whose squares add up with their products; of people drawn into groups at
    random the products cancel in `deviation`."""
    n, k = impressions.sum(1), clicks.sum(1)
    expected = impressions * (k / np.maximum(n, 1))[:, None]
    deviation = ((clicks - expected) ** 2).sum(1) * GROUPS / (GROUPS - 1)
    return n, k, squares_of(impressions), deviation


class Point(NamedTuple):
    """Where to read a partition of `tallies` on from, and what stood there: its chain's end (-1 =
    none yet), and the arrival below which all was tallied."""

    offset: int
    end: int
    arrival_ms: int = 0


class _Partition:
    def __init__(self, point: Point) -> None:
        self.chain = Chain(None if point.end < 0 else point.end)
        self.next_offset = point.offset
        self.arrival_ms = point.arrival_ms  # impressions that arrived below this are tallied
        self.first_arrival_ms = 0
        self.from_: dict[
            int, Point
        ] = {}  # open cell -> the first record that counts in it, and what stood before

    @property
    def here(self) -> Point:
        return Point(
            self.next_offset, -1 if self.chain.end is None else self.chain.end, self.arrival_ms
        )


class OpenCells:
    """Begins where the last settled cell ended: records from `points` on come again, and only
    open cells take them."""

    def __init__(
        self,
        cell_ms: int,
        settle_ms: int,
        wait_ms: int,
        partitions: int,
        points: Mapping[int, Point],
        next_cell: int | None,
    ):
        """`wait_ms`: how long after its arrival an impression is tallied."""
        self._cell_ms, self._settle_ms, self._wait_ms = cell_ms, settle_ms, wait_ms
        self._partitions = {p: _Partition(points.get(p, Point(0, -1))) for p in range(partitions)}
        self._open: dict[int, OpenCell] = {}
        # the first one not settled; None = not known before every partition was heard
        self.next_cell = next_cell
        self.stale = 0  # impressions that came after their partition had passed their cell
        self.dangling = 0  # records above their chain's end: an alarm (C5)

    def next_offset(self, partition: int) -> int:
        return self._partitions[partition].next_offset

    def end(self, partition: int) -> int | None:
        """The chain's end E: the position of `impressions[p]` up to which it is tallied."""
        return self._partitions[partition].chain.end

    def arrival_ms(self, partition: int) -> int:
        """Impressions that arrived below this are tallied."""
        return self._partitions[partition].arrival_ms

    @property
    def low_ms(self) -> int:
        """The same of all partitions."""
        return min(p.arrival_ms for p in self._partitions.values())

    def skip(self, partition: int, offset: int) -> None:
        """What stood below this offset is gone: the next record begins the chain anew."""
        at = self._partitions[partition]
        at.next_offset, at.chain = offset, Chain()

    def take(
        self, partition: int, offset: int, header: BatchHeader, rows: pa.RecordBatch | None
    ) -> None:
        """The next record of `tallies[partition]`."""
        at = self._partitions[partition]
        if offset < at.next_offset:
            return
        before = at.here._replace(offset=offset)
        at.next_offset = offset + 1
        kind, _ = at.chain.fold(header.start, header.end, header.barrier or None)
        if kind is Fold.DANGLES:
            self.dangling += 1
        if kind is Fold.BARRIER:
            at.arrival_ms = max(at.arrival_ms, header.ts_ms_max - self._wait_ms)
        if kind is not Fold.EXTENDS:
            return
        at.first_arrival_ms = at.first_arrival_ms or header.arrival_max_ms
        at.arrival_ms = max(at.arrival_ms, header.arrival_max_ms)
        cell = self._cell(at, header.arrival_max_ms // self._cell_ms, before)
        if cell is not None:
            cell.bad_impressions += header.quarantined
        # A range counts the clicks that arrived up to its impressions' deadline, not beside them
        # (L5).
        cell = self._cell(at, (header.arrival_max_ms + self._wait_ms) // self._cell_ms, before)
        if cell is not None:
            unread = header.clicks_quarantined
            cell.raw += header.clicks_read - unread - header.clicks_duplicate
            cell.bad_clicks += unread
        if rows is not None and rows.num_rows:
            self._count(at, before, rows)

    def settle(self) -> list[tuple[int, OpenCell]]:
        """The cells that all partitions have passed, in order, and no longer open. Those without
        anything are left out, but for a day after the last one with something."""
        if self.next_cell is None:
            firsts = [p.first_arrival_ms for p in self._partitions.values()]
            if not all(firsts):
                return []
            self.next_cell = min(firsts) // self._cell_ms
            self._forget([number for number in self._open if number < min(firsts) // self._cell_ms])
        until = self._passed(self.low_ms)
        out: list[tuple[int, OpenCell]] = []
        quiet = 86_400_000 // self._cell_ms
        while self.next_cell < until:
            number = self.next_cell
            if number not in self._open and quiet <= 0:
                self.next_cell = min([n for n in self._open if n < until], default=until)
                continue
            quiet = 86_400_000 // self._cell_ms if number in self._open else quiet - 1
            out.append((number, self._open.get(number, OpenCell())))
            self._forget([number])
            self.next_cell = number + 1
        return out

    def points(self) -> dict[int, Point]:
        """Where to read on from so that every open cell is counted whole."""
        return {p: min([at.here, *at.from_.values()]) for p, at in self._partitions.items()}

    def _count(self, at: _Partition, before: Point, rows: pa.RecordBatch) -> None:
        """Rows by their cells."""
        number = rows.column("cell_ms").to_numpy() // self._cell_ms
        stale = number < self._first_open(before.arrival_ms)
        if stale.any():
            whole = pc.equal(rows.column("feature"), EVERYTHING[0]).to_numpy(zero_copy_only=False)
            self.stale += int(rows.column("impressions").to_numpy()[stale & whole].sum())
        for one in np.unique(number[~stale]).tolist():
            cell = self._cell(at, one, before)
            if cell is not None:
                cell.add(rows if (number == one).all() else rows.filter(pa.array(number == one)))

    def _passed(self, arrival_ms: int) -> int:
        """The first cell that is not passed where everything that arrived below this is tallied."""
        return (arrival_ms - self._settle_ms) // self._cell_ms

    def _first_open(self, arrival_ms: int) -> int:
        """The first cell that still takes what comes behind this arrival."""
        return max(
            self._passed(arrival_ms), self._passed(0) if self.next_cell is None else self.next_cell
        )

    def _cell(self, at: _Partition, number: int, before: Point) -> OpenCell | None:
        if number < self._first_open(before.arrival_ms):
            return None
        at.from_.setdefault(number, before)
        return self._open.setdefault(number, OpenCell())

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            self._open.pop(number, None)
            for at in self._partitions.values():
                at.from_.pop(number, None)
