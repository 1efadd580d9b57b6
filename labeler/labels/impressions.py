"""Impressions that were read and not yet labelled, and the ids of those before them (L2, L5)."""

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labeler.join import DuplicateIds, Read, RecordQueue, ResumePoint
from labeler.labels.batching import BatchRange, Boundaries
from stream import StreamConfig, position
from stream.columns import Impressions
from stream.decoding import BadRecord
from stream.internal_topics import FIXED_BYTES, row_bytes
from stream.kernels import I64


class RangeContents(NamedTuple):
    """What stands in one range."""

    impressions: Impressions
    duplicate: npt.NDArray[np.bool_]
    bad: list[BadRecord]


class ImpressionBuffer:
    """The delayed reader's side: from `ids_offset` on it learns ids, from `start` on it queues
    for labelling."""

    def __init__(self, config: StreamConfig, point: ResumePoint):
        self._ids = DuplicateIds(config.dedup_ms)
        self._dedup_ms = config.dedup_ms
        self._seen = RecordQueue(point.ids_arrival_max_ms)  # records from ids_offset on
        self._nothing = Impressions.empty(config.features)
        # of a row, which it is given later (J4, J6, A3)
        self._joined_bytes = config.joined_bytes + config.catalogue_bytes
        self._queue: deque[tuple[Impressions, npt.NDArray[np.bool_]]] = deque()
        self._bad: deque[BadRecord] = deque()
        self.boundaries = Boundaries(
            point.start, config.flush_ms, config.batch_rows_max, config.record_bytes_max
        )
        self.rows_read = 0  # at or above `start`, of any class
        self.rows = 0  # queued
        self.bytes = 0  # of queued rows, about

    @property
    def table_bytes(self) -> int:
        """Memory of the id table and of the record queues."""
        return self._ids.bytes + self._seen.bytes + self.boundaries.ahead.bytes

    def add(self, read: Read[Impressions]) -> None:
        """The next records of the log."""
        events = read.events
        duplicate = self._ids.add(events.id, events.arrival_ms)
        self._seen.append(read.offset, read.arrival_ms, read.rows)
        start = self.boundaries.start
        self.boundaries.add(
            read.offset, read.arrival_ms, read.rows, _row_bytes(read, self._joined_bytes)
        )
        first = int(np.searchsorted(events.position, start))
        if first:
            events, duplicate = events.slice(first, len(events)), duplicate[first:]
        bad = [one for one in read.bad if position(one.record.offset) >= start]
        self.rows_read += len(events) + len(bad)
        self._bad.extend(bad)
        if len(events):
            self._queue.append((events, duplicate))
            self.rows += len(events)
            self.bytes += _bytes(events)

    def take(self, batch_range: BatchRange) -> RangeContents:
        """Remove the range from the queue."""
        parts: list[Impressions] = []
        flags: list[npt.NDArray[np.bool_]] = []
        while self._queue and int(self._queue[0][0].position[0]) < batch_range.end:
            events, duplicate = self._queue.popleft()
            n = int(np.searchsorted(events.position, batch_range.end))
            if n < len(events):
                self._queue.appendleft((events.slice(n, len(events)), duplicate[n:]))
                size = _bytes(events)
                events, duplicate = events.slice(0, n), duplicate[:n]
                self.bytes -= size - _bytes(self._queue[0][0])
            else:
                self.bytes -= _bytes(events)
            parts.append(events)
            flags.append(duplicate)
            self.rows -= n
        bad: list[BadRecord] = []
        while self._bad and position(self._bad[0].record.offset) < batch_range.end:
            bad.append(self._bad.popleft())
        self.boundaries.advance(batch_range.end)
        if not parts:
            return RangeContents(self._nothing, np.zeros(0, np.bool_), bad)
        return RangeContents(
            Impressions.concat(parts), flags[0] if len(flags) == 1 else np.concatenate(flags), bad
        )

    def ids_from(self, batch_range: BatchRange) -> tuple[int, int]:
        """(offset, arrival maximum just before it) to re-read ids from, to go on behind this
        range (C4)."""
        self._seen.drop(self._seen.first_at(batch_range.arrival_max_ms - self._dedup_ms))
        return int(self._seen.records["offset"][0]), self._seen.arrival_max_ms


def _row_bytes(read: Read[Impressions], joined: int) -> I64:
    """What each row of `read.rows` takes as an example, (rows,), `joined` of it joined to it; a bad
    record is one row, which takes nothing."""
    events = read.events
    names = [name for name in events.table.column_names if name != "id"]
    sizes = (
        FIXED_BYTES + joined + row_bytes([events.table.column(name) for name in names], len(events))
    )
    if not read.bad:
        return sizes
    is_bad = np.isin(read.offset, [one.record.offset for one in read.bad])
    out = np.zeros(int(read.rows.sum()), np.int64)
    out[~np.repeat(is_bad, read.rows)] = sizes
    return out


def _bytes(events: Impressions) -> int:
    return 48 * len(events) + int(events.table.nbytes)
