"""Planted bugs of catalogues (A1 to A3). Seeds of remainders 18 and 21 by 24 have one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sim_bug import Patch, bug, replaced

from labeler.catalogues import (
    CatalogueBegin,
    CatalogueFeed,
    JoinedCatalogues,
    PartitionCatalogues,
    RowVersions,
)
from labeler.counting.heartbeats import Heartbeats
from stream import Partition
from stream.log.rows import StoredRows

SEEDS = {"first": 18, "step": 24}


@bug("row as of what was read", "an impression is given the newest row (A3)", **SEEDS)
def newest_row() -> list[Patch]:
    right = RowVersions.find

    def bad(self: RowVersions, keys: Any, arrival_ms: Any) -> Any:
        return right(self, keys, np.full(len(arrival_ms), 1 << 62))

    return [replaced(RowVersions.find, bad)]


@bug("labels do not wait for a catalogue", "what was not read yet is not given (A3)", **SEEDS)
def not_waited_for() -> list[Patch]:
    def bad(self: PartitionCatalogues, arrival_ms: int) -> bool:
        return False

    return [replaced(PartitionCatalogues.waits, bad)]


@bug("deleted row kept", "a record without a value says nothing (A1)", **SEEDS)
def deleted_kept() -> list[Patch]:
    right = StoredRows.put

    def bad(self: StoredRows, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        kept = [(key, value) for key, value in zip(keys, values, strict=True) if value]
        right(self, [key for key, _ in kept], [value for _, value in kept])

    return [replaced(StoredRows.put, bad)]


@bug("rows on from where they stood", "a reading that begins anew goes on behind (A3)", **SEEDS)
def read_on() -> list[Patch]:
    right = CatalogueFeed.start

    def bad(self: CatalogueFeed, begins: Mapping[Partition, CatalogueBegin]) -> None:
        stood = {at: CatalogueBegin(offset) for at, offset in self.offsets.items()}
        right(self, {**begins, **stood})

    return [replaced(CatalogueFeed.start, bad)]


@bug("place written before its rows", "a crash loses rows below it (A3a)", **SEEDS)
def rows_lost() -> list[Patch]:
    right = StoredRows.commit

    def bad(self: StoredRows, position: bytes = b"") -> None:
        self._pending = {}
        right(self, position)

    return [replaced(StoredRows.commit, bad)]


@bug("rows forgotten for the slowest", "rows are as of what the fastest partition needs", **SEEDS)
def fastest_decides() -> list[Patch]:
    def bad(self: JoinedCatalogues) -> None:
        for one in self.of.values():
            low_ms, one.low_ms = one.low_ms, 0
            one.settle(max(self._needs.values(), default=0))
            one.low_ms = low_ms

    return [replaced(JoinedCatalogues.settle, bad)]


@bug("silent catalogue", "it gets no heartbeats (A2)", **SEEDS)
def silent() -> list[Patch]:
    right = Heartbeats.due

    def bad(self: Heartbeats, partitions: Iterable[int], now_ms: int) -> list[Partition]:
        return [at for at in right(self, partitions, now_ms) if at.topic != "items"]

    return [replaced(Heartbeats.due, bad)]
