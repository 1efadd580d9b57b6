"""The joining reader's side of `clicks[p]`: clicks that may still count, barriers, where to re-read from (L5, C4)."""

from collections import deque
from typing import NamedTuple

from labeler.intake import Read
from labeler.join import ClickJoin, Matches
from labeler.reading import Reading
from labeler.resume import ResumePoint
from labeler.track import Track
from stream.config import StreamConfig
from stream.decode import BadRecord
from stream.events import Clicks, Impressions


class Barrier(NamedTuple):
    """A heartbeat of `clicks[p]` that asks for a step at time `at_ms`, its arrival (E3)."""

    period: int
    at_ms: int


class Passed(NamedTuple):
    """What the joining reader let go behind a range, and where it would start again."""

    read: int  # clicks of any class
    bad: list[BadRecord]
    offset: int
    arrival_max_ms: int  # just before offset


class ClickLine:
    """Holds exactly the clicks that arrived from `arrival(head) - early` on, as far as they were read."""

    def __init__(self, config: StreamConfig, point: ResumePoint):
        self._early_ms = config.early_ms
        self._join = ClickJoin()
        self._seen = Track(point.clicks_arrival_max_ms)
        self._bad: deque[BadRecord] = deque()
        self._last_barrier = point.barrier
        self.barriers: deque[Barrier] = deque()

    def __len__(self) -> int:
        return len(self._join)

    @property
    def bytes(self) -> int:
        """Memory held by waiting clicks and their records."""
        return self._join.bytes + self._seen.bytes

    @property
    def arrival_max_ms(self) -> int:
        """The arrival of the last record read."""
        return self._seen.last_arrival_ms

    def add(self, read: Read[Clicks]) -> None:
        """The next records of the log."""
        clicks = read.events
        self._join.insert(clicks.id, clicks.ts_ms, clicks.arrival_ms)
        self._seen.append(read.offset, read.arrival_ms, read.rows)
        self._bad.extend(read.bad)
        for period, at_ms in read.barriers:
            self._on_barrier(period, at_ms)

    def _on_barrier(self, period: int, at_ms: int) -> None:
        """A barrier heartbeat. One that was answered, or is written again, says nothing new."""
        if period > self._last_barrier:
            self._last_barrier = period
            self.barriers.append(Barrier(period, at_ms))

    def covers(self, deadline_ms: int, arrival_max_ms: int) -> bool:
        """Whether clicks were read past the deadline (L4), and as far as the resume point behind a range that ends
        at arrival `arrival_max_ms` is known (C4)."""
        at = self.arrival_max_ms
        return at > deadline_ms and at >= arrival_max_ms - self._early_ms

    def match(self, impressions: Impressions, reading: Reading) -> Matches:
        """The clicks that count for each impression in this reading (L1)."""
        return self._join.match(
            impressions.id,
            impressions.ts_ms,
            impressions.arrival_ms,
            reading.window_ms,
            reading.click_wait_ms,
            self._early_ms,
        )

    def passed(self, arrival_max_ms: int) -> Passed:
        """Let go what cannot count behind a range that ends at this arrival."""
        cut_ms = arrival_max_ms - self._early_ms
        count = self._seen.first_at(cut_ms)
        gone = self._seen.records[:count]
        read = int(gone["rows"].sum())
        self._seen.drop(count)
        self._join.evict(cut_ms)
        offset = int(self._seen.records["offset"][0])
        bad: list[BadRecord] = []
        while self._bad and self._bad[0].record.offset < offset:
            bad.append(self._bad.popleft())
        return Passed(read, bad, offset, self._seen.arrival_max_ms)
