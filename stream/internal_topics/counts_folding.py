"""The records of `counts`, folded into totals and sequences, as every reader folds them (J3)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from stream.columns.counters import CounterTotals, KeyTotals, Sequences, together
from stream.internal_topics.counts import CountPart, CountRecord


class CountParts:
    """Puts buckets together from the records of the log. Of each number the first whole one counts:
    whoever else writes it writes the same."""

    def __init__(self, bucket_ms: int, slices: int) -> None:
        """`bucket_ms`, `slices`: those configured; what was counted by others is passed over."""
        self._sizes = (bucket_ms, slices)
        self._parts: list[CountPart] = []
        self._first_offset = 0
        self.number = 0  # the last one
        self.bucket = -1  # up to which all is counted
        self.foreign = 0  # records of other sizes

    def add(self, part: CountPart, offset: int) -> tuple[CountRecord, int] | None:
        """The next record of the log, which stands at `offset`; a bucket, with the offset of its
        first part, once it is whole."""
        record = part.record
        if (record.bucket_ms, record.slices) != self._sizes:
            self.foreign += 1
            return None
        if record.quiet:
            if record.bucket <= self.bucket or record.number < self.number:
                return None
            self.bucket = record.bucket
            return record, offset
        if record.number <= self.number:
            return None
        if part.part == 0:
            self._parts, self._first_offset = [], offset
        if not self._fits(part):
            return None
        self._parts.append(part)
        if len(self._parts) < part.parts:
            return None
        self.number, self.bucket = record.number, record.bucket
        whole, self._parts = _joined(self._parts), []
        return whole, self._first_offset

    def _fits(self, part: CountPart) -> bool:
        if part.part != len(self._parts):
            return False
        first = self._parts[0] if self._parts else part
        return _of_one(part) == _of_one(first)


def _of_one(part: CountPart) -> tuple[object, ...]:
    """What all parts of a bucket say alike."""
    said = part.record
    return part.parts, said.number, said.bucket, [*said.rows], [*said.sequences]


def _joined(parts: list[CountPart]) -> CountRecord:
    first = parts[0].record
    if len(parts) == 1:
        return first
    rows = {
        name: KeyTotals(
            *map(np.concatenate, zip(*(p.record.rows[name] for p in parts), strict=True))
        )
        for name in first.rows
    }
    sequences = {
        name: together([p.record.sequences[name] for p in parts]) for name in first.sequences
    }
    return replace(first, rows=rows, sequences=sequences)


def apply(totals: dict[str, CounterTotals], record: CountRecord) -> None:
    """What a bucket changes of counters. What it does not count is not counted any more."""
    _apply(totals, record, record.rows, CounterTotals)


def apply_sequences(kept: dict[str, Sequences], record: CountRecord) -> None:
    """And what of sequences."""
    _apply(kept, record, record.sequences, Sequences)


_Kept = TypeVar("_Kept", CounterTotals, Sequences)


def _apply(
    states: dict[str, _Kept],
    record: CountRecord,
    said: Mapping[str, Any],
    empty: Callable[[], _Kept],
) -> None:
    if record.quiet:
        return
    for name in [*states]:
        if name not in said:
            del states[name]
    for name, rows in said.items():
        kept = states.setdefault(name, empty())
        kept.replace_slice(record.number % record.slices, record.slices, rows)
