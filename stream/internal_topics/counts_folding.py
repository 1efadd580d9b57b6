"""The records of `counts`, folded into totals, as every reader folds them (J3)."""

import numpy as np

from stream.columns.counters import CounterTotals, KeyTotals
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
        return (part.parts, part.record.number, part.record.bucket, [*part.record.rows]) == (
            first.parts,
            first.record.number,
            first.record.bucket,
            [*first.record.rows],
        )


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
    return CountRecord(
        first.number, first.bucket, first.bucket_ms, first.slices, rows, first.points
    )


def apply(totals: dict[str, CounterTotals], record: CountRecord) -> None:
    """What a bucket changes. What it does not count is not counted any more."""
    if record.quiet:
        return
    for name in [*totals]:
        if name not in record.rows:
            del totals[name]
    for name, rows in record.rows.items():
        kept = totals.setdefault(name, CounterTotals())
        kept.replace_slice(record.number % record.slices, record.slices, rows)
