"""The joining reader's side of `clicks[p]`: clicks that may still count, barriers, where to re-read
from (L5, C4).

With a copy, what is read is written down page by page, and above `bytes_max` waits there instead of
in memory:

    oldest click ... [ in memory ] [ spilled pages ] [ the open page, in memory ] ... newest click

The oldest ones are in memory because most impressions are clicked soon: what the head of the line
needs is there.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labeler.click_cache import ClickCopy, ClickPage, SpilledClicks
from labeler.join import (
    NO_WINDOW_MS,
    ClickJoin,
    ClickLimits,
    LabelStrategy,
    Matches,
    Read,
    RecordQueue,
    ResumePoint,
)
from stream import StreamConfig
from stream.columns import Clicks, Impressions
from stream.decoding import BadRecord
from stream.kernels import I32, I64

#: About what a click and a record take in memory: so it is decided what spills, whatever tables
#: have grown to.
CLICK_BYTES, RECORD_BYTES = 36, 22
#: Arrival of a record that was not read yet.
TO_COME_MS = 1 << 62
#: A page ends after so many records, however few clicks stand in them.
PAGE_RECORDS_PER_CLICK = 4


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
    lost_offsets: int = 0  # passed, and gone unread (C7)


@dataclass
class Gap:
    """Offsets `[first, end)` of `clicks[p]` that are gone (C7): clicks that arrived from
    `from_ms` to `to_ms`."""

    first: int
    end: int
    from_ms: int  # the arrival maximum before it
    to_ms: int = TO_COME_MS  # of the first record behind it that arrived later, at offset `next`
    next: int = -1  # not read yet


class ClickBuffer:
    """Holds exactly the clicks that arrived from `arrival(head) - early` on, as far as they were
    read."""

    def __init__(
        self,
        config: StreamConfig,
        point: ResumePoint,
        copy: ClickCopy | None = None,
        bytes_max: int = 1 << 62,
        page_rows: int = 4096,
    ):
        """`copy` holds pages of `page_rows` clicks or so; without one all stays in memory,
        whatever `bytes_max`."""
        self._early_ms, self._early_click_ms = config.early_ms, config.early_click_ms
        self._copy, self._bytes_max, self._page_rows = copy, bytes_max, page_rows
        self._join = ClickJoin()  # the oldest ones; all of them while nothing is spilled
        self._seen = RecordQueue(
            point.clicks_arrival_max_ms
        )  # their records, from the resume point on
        self._bad: deque[BadRecord] = deque()
        self._gaps: deque[Gap] = deque()
        self._last_barrier = point.barrier
        self.barriers: deque[Barrier] = deque()
        self.offset = point.clicks_offset  # where to read on
        self.arrival_max_ms = point.clicks_arrival_max_ms  # of the last record read
        self.restored = 0  # clicks taken from the copy at the start
        self._spills = False  # whether there are clicks behind those of `_join`
        self._begin_page()
        if copy is not None:
            self._spilled = SpilledClicks(copy.read)
            for page in copy.restore(point):
                self._restore(page)

    def __len__(self) -> int:
        return len(self._join) + self.spilled + len(self._open_join)

    @property
    def spilled(self) -> int:
        """Clicks that are on disk and not in memory."""
        return len(self._spilled) if self._copy is not None else 0

    @property
    def is_over(self) -> bool:
        """Whether they take more memory than they should, and there is no copy to wait in."""
        return self._copy is None and self.bytes > self._bytes_max

    @property
    def bytes(self) -> int:
        """Memory held by waiting clicks, their records, and the index of those spilled."""
        held = self._join.bytes + self._seen.bytes + self._open_join.bytes
        return held + (self._spilled.bytes if self._copy is not None else 0)

    def add(self, read: Read[Clicks]) -> None:
        """The next records of the log."""
        if not len(read.offset):
            return
        clicks = read.events
        self._end_gap(read)
        if self._spills:
            self._open_join.insert(clicks.id, clicks.ts_ms, clicks.arrival_ms)
        else:
            self._hold(read.offset, read.arrival_ms, read.rows, clicks, read.bad)
        self.offset, self.arrival_max_ms = int(read.offset[-1]) + 1, int(read.arrival_ms[-1])
        for period, at_ms in read.barriers:
            self._on_barrier(period, at_ms)
        if self._copy is not None:
            self._to_page(self._copy, read)

    def skip(self, first: int, end: int) -> None:
        """C7: offsets `[first, end)`, in which or at whose end it is to be read on, are gone. Pages
        do not reach across."""
        if not first <= self.offset <= end:
            return
        if self._open and self._copy is not None:
            self._end_page(self._copy)
        if (
            self._gaps and self._gaps[-1].next < 0
        ):  # nothing that moved time was read since the last one
            self._gaps[-1].end = end
        else:
            self._gaps.append(Gap(first, end, self.arrival_max_ms))
        self.offset = end
        self._begin_page()

    def _end_gap(self, read: Read[Clicks]) -> None:
        """What is gone had arrived by the first record behind it, or, as that one may have been
        refused its stamp (T3), by the first that moved time."""
        if self._gaps and (gap := self._gaps[-1]).next < 0:
            later = np.flatnonzero(read.arrival_ms > gap.from_ms)
            if len(later):
                gap.next, gap.to_ms = int(read.offset[later[0]]), int(read.arrival_ms[later[0]])

    def _hold(
        self,
        offset: I64,
        arrival_ms: I64,
        rows: I32,
        clicks: Clicks | ClickPage,
        bad: Sequence[BadRecord],
    ) -> None:
        """Into memory, behind what is there."""
        self._join.insert(clicks.id, clicks.ts_ms, clicks.arrival_ms)
        self._seen.append(offset, arrival_ms, rows)
        self._bad.extend(bad)

    def _hold_page(self, page: ClickPage) -> None:
        self._hold(page.offset, page.record_arrival_ms, page.rows, page, page.bad)

    def _on_barrier(self, period: int, at_ms: int) -> None:
        """A barrier heartbeat. One that was answered, or is written again, says nothing new."""
        if period > self._last_barrier:
            self._last_barrier = period
            self.barriers.append(Barrier(period, at_ms))

    # --- pages
    # ----------------------------------------------------------------------------------------------

    def _begin_page(self) -> None:
        """An empty page, from where it is read on."""
        self._open: list[Read[Clicks]] = []
        self._open_first, self._open_before_ms = self.offset, self.arrival_max_ms
        self._open_clicks = self._open_records = 0
        self._open_join = ClickJoin()  # of the open page, while there are spilled ones before it

    def _to_page(self, copy: ClickCopy, read: Read[Clicks]) -> None:
        """What was read, into the open page; into the copy once it is full. Spilling begins and
        ends with a page."""
        self._open.append(read)
        self._open_clicks += len(read.events)
        self._open_records += len(read.offset)
        if (
            self._open_clicks < self._page_rows
            and self._open_records < PAGE_RECORDS_PER_CLICK * self._page_rows
        ):
            return
        self._end_page(copy)
        self._begin_page()

    def _end_page(self, copy: ClickCopy) -> None:
        page = ClickPage.of(self._open, self._open_first, self._open_before_ms)
        copy.write(page)
        if self._spills:
            self._spilled.push(page)
        self._spills = self._spills or self._held_bytes() > self._bytes_max

    def _restore(self, page: ClickPage) -> None:
        """At the start, from the copy."""
        if self._spills:
            self._spilled.push(page)
        else:
            self._hold_page(page)
        self._spills = self._spills or self._held_bytes() > self._bytes_max
        self.restored += len(page.id)
        self.offset, self.arrival_max_ms = page.end, page.last_arrival_ms
        for period, at_ms in page.barriers:
            self._on_barrier(period, at_ms)
        self._begin_page()

    def _held_bytes(self) -> int:
        return CLICK_BYTES * len(self._join) + RECORD_BYTES * len(self._seen)

    def _load(self) -> None:
        """The oldest of what is not in `_join`, into it."""
        if self._spilled.pages:
            self._hold_page(self._spilled.pop())
            return
        for read in self._open:
            self._hold(read.offset, read.arrival_ms, read.rows, read.events, read.bad)
        self._open_join, self._spills = ClickJoin(), False

    def forget(self, offset: int) -> None:
        """A resume point with this offset of `clicks[p]` stands in the log: the copy needs
        nothing below it."""
        if self._copy is not None:
            self._copy.forget(offset)

    # --- labels
    # ----------------------------------------------------------------------------------------------

    def covers(self, deadline_ms: int, arrival_max_ms: int) -> bool:
        """Whether clicks were read past the deadline (L4), and as far as the resume point behind a
        range that ends at arrival `arrival_max_ms` is known (C4)."""
        at = self.arrival_max_ms
        return at > deadline_ms and at >= arrival_max_ms - self._early_ms

    def match(self, impressions: Impressions, strategy: LabelStrategy) -> Matches:
        """The clicks that count for each impression in this reading (L1)."""
        wanted = (impressions.id, impressions.ts_ms, impressions.arrival_ms)
        limits = ClickLimits(
            strategy.window_ms, strategy.click_wait_ms, self._early_ms, self._early_click_ms
        )
        matches = self._join.match(*wanted, limits)
        if self._spills:
            for later in self._spilled.match(*wanted, limits):
                matches = matches.with_later(later)
            matches = matches.with_later(self._open_join.match(*wanted, limits))
        return matches

    def lost(self, arrival_ms: I64, strategy: LabelStrategy) -> npt.NDArray[np.bool_]:
        """Which impressions of these arrivals (n,) a click that is gone might have counted for
        (C7, L1)."""
        lost = np.zeros(len(arrival_ms), np.bool_)
        if strategy.window_ms == NO_WINDOW_MS:
            return lost
        for gap in self._gaps:
            early, late = arrival_ms - self._early_ms, arrival_ms + strategy.click_wait_ms
            lost |= (early <= gap.to_ms) & (late >= gap.from_ms)
        return lost

    def passed(self, arrival_max_ms: int) -> Passed:
        """Let go what cannot count behind a range that ends at this arrival."""
        cut_ms = arrival_max_ms - self._early_ms
        read = self._drop(cut_ms)
        while self._spills and (not len(self._seen) or self._held_bytes() * 2 <= self._bytes_max):
            self._load()
            read += self._drop(cut_ms)
        offset = int(self._seen.records["offset"][0])
        bad: list[BadRecord] = []
        while self._bad and self._bad[0].record.offset < offset:
            bad.append(self._bad.popleft())
        lost = 0
        while self._gaps and 0 <= self._gaps[0].next < offset:
            gap = self._gaps.popleft()
            lost += gap.end - gap.first
        if self._gaps and offset >= self._gaps[0].end:
            offset = self._gaps[
                0
            ].first  # what is gone may still have counted for what comes: it is met again
        return Passed(read, bad, offset, self._seen.arrival_max_ms, lost)

    def _drop(self, cut_ms: int) -> int:
        """Clicks of any class that were held in memory and arrived before."""
        count = self._seen.first_at(cut_ms)
        read = int(self._seen.records["rows"][:count].sum())
        self._seen.drop(count)
        self._join.evict(cut_ms)
        return read
