"""Where a batch ends: a function of the log, so that two labelers write the same batches (C3)."""

from typing import NamedTuple

import numpy as np

from labeler.join import RecordQueue
from stream import offset_of, position, row_of
from stream.kernels import I32, I64


class BatchRange(NamedTuple):
    """A range `[start, end)` of positions, closed by the log."""

    start: int
    end: int
    rows: int  # impressions of any class
    deadline_arrival_ms: int  # of its last impression; of its last record if there is none
    arrival_max_ms: int  # the running maximum at `end`


class Boundaries:
    """Cuts `impressions[p]` from E on into ranges, one at a time.

    A range ends after `batch_rows_max` impressions of any class, before the impression with which
    they would take more than `batch_bytes_max` (unless it is the first), or before the first
    record, heartbeats included, whose arrival lies in a later `flush_ms` bucket than that of the
    range's first record.
    """

    def __init__(
        self, start: int, flush_ms: int, batch_rows_max: int, batch_bytes_max: int = 1 << 62
    ):
        self.start = start
        self._batch_bytes_max = batch_bytes_max
        self._through = np.zeros(
            0, np.int64
        )  # bytes through each row of `ahead`, from somewhere on
        self._bytes_passed = 0  # the same before the first of them
        self._flush_ms = flush_ms
        self._batch_rows_max = batch_rows_max
        self.ahead = RecordQueue()  # records at and after `start`
        self._next: BatchRange | None = (
            None  # once closed, a range stays as it is, whatever comes behind it
        )
        self._looked = True  # whether `_next` is what the records held say

    def first(self) -> BatchRange | None:
        """The range that starts at `start`, or None while the log has not closed it."""
        if not self._looked:
            self._next, self._looked = self._find(), True
        return self._next

    def _find(self) -> BatchRange | None:
        records = self.ahead.records
        if not len(records):
            return None
        bucket = int(records["arrival_ms"][0]) // self._flush_ms
        same = self.ahead.first_at((bucket + 1) * self._flush_ms)
        up_to = np.cumsum(records["rows"][:same], dtype=np.int64) - self._passed_rows()
        rows = self._rows_that_fit(self._passed_rows())
        if up_to[-1] > rows or up_to[-1] >= self._batch_rows_max:
            return self._full(up_to, min(rows, self._batch_rows_max))
        if same == len(records):
            return None
        rows = int(up_to[-1])
        last = int(records["arrival_ms"][same - 1])
        deadline = last
        if rows:  # heartbeats have no deadline of their own (T2), unless there is nothing else
            deadline = int(records["arrival_ms"][int(np.searchsorted(up_to, rows))])
        return BatchRange(self.start, position(int(records["offset"][same])), rows, deadline, last)

    @property
    def first_arrival_ms(self) -> int:
        """Of the first record at `start`; 0 while there is none."""
        return int(self.ahead.records["arrival_ms"][0]) if len(self.ahead) else 0

    def known_deadline_arrival_ms(self) -> int | None:
        """A lower bound of the next range's `deadline_arrival_ms` while it is open; None = nothing
        known.

        Heartbeats count only where no impression was seen: an impression's range may end by an
        earlier deadline.
        """
        records = self.ahead.records
        if not len(records):
            return None
        bucket = int(records["arrival_ms"][0]) // self._flush_ms
        same = self.ahead.first_at((bucket + 1) * self._flush_ms)
        with_rows = np.flatnonzero(records["rows"][:same])
        last = int(with_rows[-1]) if len(with_rows) else same - 1
        return int(records["arrival_ms"][last])

    def add(self, offset: I64, arrival_ms: I64, rows: I32, row_bytes: I64 | None = None) -> None:
        """The next records of the log, in order. Those below `start` are passed over. `row_bytes`,
        one for each of all their `rows`: what it takes; nothing unless given."""
        sizes = np.zeros(int(rows.sum()), np.int64) if row_bytes is None else row_bytes
        at, row = offset_of(self.start), row_of(self.start)
        first = int(np.searchsorted(offset, at))
        if row and first < len(offset) and int(offset[first]) == at and row >= int(rows[first]):
            first += 1  # the last range ended behind this record's last row
        self.ahead.append(offset[first:], arrival_ms[first:], rows[first:])
        before = int(self._through[-1]) if len(self._through) else self._bytes_passed
        more = before + np.cumsum(sizes[int(rows[:first].sum()) :])
        self._through = np.concatenate([self._through, more])
        self._looked = self._next is not None

    def advance(self, end: int) -> None:
        """The range up to `end` is emitted: `start` becomes `end`."""
        self.start = end
        held = self.ahead.records
        at = int(np.searchsorted(held["offset"], offset_of(end)))
        if row_of(end) and at < len(held) and row_of(end) >= int(held["rows"][at]):
            at += 1
        dropped = int(held["rows"][:at].sum())
        if dropped:
            self._bytes_passed, self._through = (
                int(self._through[dropped - 1]),
                self._through[dropped:],
            )
        self.ahead.drop(at)
        self._next, self._looked = None, False

    def _passed_rows(self) -> int:
        """Rows of the first record held that lie below `start`."""
        row = row_of(self.start)
        if not row or not len(self.ahead):
            return 0
        first = self.ahead.records[0]
        return min(row, int(first["rows"])) if int(first["offset"]) == offset_of(self.start) else 0

    def _rows_that_fit(self, passed: int) -> int:
        """How many rows from `start` on take at most `batch_bytes_max`, at least one; `passed`
        rows are below it."""
        before = int(self._through[passed - 1]) if passed else self._bytes_passed
        return max(
            1,
            int(np.searchsorted(self._through, before + self._batch_bytes_max, side="right"))
            - passed,
        )

    def _full(self, up_to: I64, count: int) -> BatchRange:
        records = self.ahead.records
        at = int(np.searchsorted(up_to, count))
        row = int(records["rows"][at]) - int(up_to[at] - count)
        arrival = int(records["arrival_ms"][at])
        end = (
            position(int(records["offset"][at])) + row
        )  # just behind the last row, also at the end of its record
        return BatchRange(self.start, end, count, arrival, arrival)
