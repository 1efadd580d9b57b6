"""Tallies of all partitions, folded and added up in cells of event time until every partition has passed them (L8)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from labeler.bands import EVERYTHING, Scope
from stream.chain import Chain, Fold
from stream.examples import BatchHeader


@dataclass
class OpenCell:
    """Counts so far."""

    scopes: dict[Scope, list[int]] = field(default_factory=dict)  # -> [impressions, impressions with a click]
    raw: int = 0
    bad_clicks: int = 0
    bad_impressions: int = 0


class Point(NamedTuple):
    """Where to read a partition of `tallies` on from, and its chain's end there (-1 = none yet)."""

    offset: int
    end: int


class _Partition:
    def __init__(self, point: Point) -> None:
        self.chain = Chain(None if point.end < 0 else point.end)
        self.next_offset = point.offset
        self.arrival_ms = 0  # of the impressions tallied
        self.first_arrival_ms = 0
        self.from_: dict[int, Point] = {}  # open cell -> the first record that counts in it, and the end before


class OpenCells:
    """Begins where the last settled cell ended: records from `points` on come again, and only open cells take them."""

    def __init__(self, cell_ms: int, partitions: int, points: Mapping[int, Point], next_cell: int | None):
        self._cell_ms = cell_ms
        self._partitions = {p: _Partition(points.get(p, Point(0, -1))) for p in range(partitions)}
        self._open: dict[int, OpenCell] = {}
        self.next_cell = next_cell  # the first one not settled; None = not known before every partition was heard
        self.stale = 0  # impressions of cells that are settled
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

    def take(self, partition: int, offset: int, header: BatchHeader, rows: pa.RecordBatch | None) -> None:
        """The next record of `tallies[partition]`."""
        at = self._partitions[partition]
        if offset < at.next_offset:
            return
        at.next_offset = offset + 1
        before = Point(offset, -1 if at.chain.end is None else at.chain.end)
        kind, _ = at.chain.fold(header.start, header.end, header.barrier or None)
        if kind is Fold.DANGLES:
            self.dangling += 1
        if kind is not Fold.EXTENDS:
            return
        at.first_arrival_ms = at.first_arrival_ms or header.arrival_max_ms
        at.arrival_ms = max(at.arrival_ms, header.arrival_max_ms)
        unread = header.clicks_quarantined
        cell = self._cell(at, header.arrival_max_ms // self._cell_ms, before)
        if cell is not None:
            cell.raw += header.clicks_read - unread - header.clicks_duplicate
            cell.bad_clicks += unread
            cell.bad_impressions += header.quarantined
        columns = [column.to_pylist() for column in rows.columns] if rows is not None else []
        for feature, value, cell_ms, impressions, clicks in zip(*columns, strict=True):
            cell = self._cell(at, cell_ms // self._cell_ms, before)
            if cell is not None:
                counts = cell.scopes.setdefault((feature, value), [0, 0])
                counts[0] += impressions
                counts[1] += clicks
            elif (feature, value) == EVERYTHING:
                self.stale += impressions

    def settle(self, settle_ms: int) -> list[tuple[int, OpenCell]]:
        """The cells that all partitions have passed by `settle_ms`, in order, and no longer open. Those without
        anything are left out, but for a day after the last one with something."""
        if self.next_cell is None:
            firsts = [p.first_arrival_ms for p in self._partitions.values()]
            if not all(firsts):
                return []
            self.next_cell = min(firsts) // self._cell_ms
            self._forget([number for number in self._open if number < min(firsts) // self._cell_ms])
        until = (self.low_ms - settle_ms) // self._cell_ms
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

    def points(self) -> dict[int, tuple[int, int]]:
        """Where to read on from so that every open cell is counted whole."""
        found = {}
        for p, at in self._partitions.items():
            here = Point(at.next_offset, -1 if at.chain.end is None else at.chain.end)
            found[p] = tuple(min([here, *at.from_.values()]))
        return found  # type: ignore[return-value]

    def _cell(self, at: _Partition, number: int, before: Point) -> OpenCell | None:
        if self.next_cell is not None and number < self.next_cell:
            return None
        at.from_.setdefault(number, before)
        return self._open.setdefault(number, OpenCell())

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            self._open.pop(number, None)
            for at in self._partitions.values():
                at.from_.pop(number, None)
