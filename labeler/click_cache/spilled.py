"""Clicks that lie in pages of the copy and not in memory, and which of them an impression may have
(L5).

In memory stays an index: per click, 24 bits of its id's hash and the number of its page, in an
open-addressing table that is at most four fifths full: 5 bytes a click. An impression whose hash is
there is looked up in the page itself, so that what matches is exact. Pages come and leave in log
order; the index is a row of segments of up to 255 pages, and a segment leaves with its last page.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labeler.click_cache.page import ClickPage
from labeler.join import ClickJoin, ClickLimits, Matches, home
from stream.kernels import I64, U64, kernel

U32 = npt.NDArray[np.uint32]

_GOLDEN = np.uint64(
    0xC2B2AE3D27D4EB4F
)  # another multiplier than `home`'s, whose upper bits choose the place
_PAGE_BITS = np.uint64(8)
_MARK_SHIFT = np.uint64(40)
_PAGES_MAX = 255
FULL = 0.8
PLACES_MIN, PLACES_MAX = 1 << 14, 1 << 20
#: Pages looked up and kept for the next batch.
PAGES_KEPT = 8


@dataclass
class _Segment:
    table: U32  # mark << 8 | page + 1; 0 = free
    first: int  # number of its first page
    pages: int = 0
    entries: int = 0

    def has_room(self, clicks: int) -> bool:
        return self.pages < _PAGES_MAX and self.entries + clicks <= FULL * len(self.table)


class SpilledClicks:
    """Pages in log order, between what is in memory before them and behind them."""

    def __init__(self, read: Callable[[int], ClickPage]) -> None:
        """`read` gets a page by its first offset."""
        self._read = read
        self._firsts: deque[int] = deque()  # first offset of each page
        self._counts: deque[int] = deque()  # clicks of each page
        self._number = 0  # of the first page held
        self._segments: deque[_Segment] = deque()
        self._kept: OrderedDict[int, ClickJoin] = OrderedDict()
        self._clicks = 0
        self.lookups = 0  # pages looked up

    def __len__(self) -> int:
        """Clicks."""
        return self._clicks

    @property
    def pages(self) -> int:
        return len(self._firsts)

    @property
    def bytes(self) -> int:
        """Memory held: the index, and the pages kept."""
        return sum(segment.table.nbytes for segment in self._segments) + sum(
            j.bytes for j in self._kept.values()
        )

    def push(self, page: ClickPage) -> None:
        """The next page; it is in the copy."""
        if not self._segments or not self._segments[-1].has_room(len(page.id)):
            self._open_segment(len(page.id))
        segment = self._segments[-1]
        segment.pages += 1
        segment.entries += int(_insert(segment.table, page.id, segment.pages))
        self._firsts.append(page.first)
        self._counts.append(len(page.id))
        self._clicks += len(page.id)

    def _open_segment(self, clicks: int) -> None:
        last = len(self._segments[-1].table) if self._segments else PLACES_MIN // 2
        places = max(min(2 * last, PLACES_MAX), int(clicks / FULL) + 1)
        self._segments.append(
            _Segment(np.zeros(places, np.uint32), self._number + len(self._firsts))
        )

    def pop(self) -> ClickPage:
        """The first page, which is held here no longer."""
        page = self._read(self._firsts[0])
        self._firsts.popleft()
        self._clicks -= self._counts.popleft()
        self._kept.pop(self._number, None)
        self._number += 1
        while self._segments and self._segments[0].first + self._segments[0].pages <= self._number:
            self._segments.popleft()
        return page

    def match(self, ids: U64, ts_ms: I64, arrival_ms: I64, limits: ClickLimits) -> list[Matches]:
        """Per page that may hold a click of these impressions, in log order, the clicks that
        count (L1)."""
        rows, pages = self._candidates(ids)
        found = []
        for number in np.unique(pages).tolist():
            at = rows[pages == number]
            few = self._join(number).match(ids[at], ts_ms[at], arrival_ms[at], limits)
            found.append(few.spread(at, len(ids)))
        return found

    def _candidates(self, ids: U64) -> tuple[I64, I64]:
        """(row, number of a page that may hold its id), each once."""
        out: list[tuple[I64, I64]] = []
        for segment in self._segments:
            room = len(ids) + 64
            while True:
                rows, pages = np.empty(room, np.int64), np.empty(room, np.int64)
                count = int(_probe(segment.table, ids, rows, pages))
                if count <= room:
                    break
                room = count
            rows, pages = rows[:count], pages[:count] + segment.first
            held = pages >= self._number
            out.append((rows[held], pages[held]))
        if not out:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate([rows for rows, _ in out]), np.concatenate(
            [pages for _, pages in out]
        )

    def _join(self, number: int) -> ClickJoin:
        join = self._kept.pop(number, None)
        if join is None:
            page = self._read(self._firsts[number - self._number])
            join = ClickJoin()
            join.insert(page.id, page.ts_ms, page.arrival_ms)
            self.lookups += 1
        self._kept[number] = join
        if len(self._kept) > PAGES_KEPT:
            self._kept.popitem(last=False)
        return join


@kernel(inline="always")
def _mark(id: np.uint64) -> np.uint64:
    return (id * _GOLDEN) >> _MARK_SHIFT << _PAGE_BITS


@kernel
def _insert(table: U32, ids: U64, page: int) -> int:
    """How many places were filled: an id that stands twice in a page takes one."""
    places, filled = len(table), 0
    for k in range(len(ids)):
        entry = np.uint32(_mark(ids[k]) | np.uint64(page))
        at: int = home(ids[k], places)
        while table[at] != 0 and table[at] != entry:
            at += 1
            if at == places:
                at = 0
        if table[at] == 0:
            table[at] = entry
            filled += 1
    return filled


@kernel
def _probe(table: U32, ids: U64, rows: I64, pages: I64) -> int:
    """(row, page of the segment) of all that may match; how many there are, also beyond the
    room."""
    places, found = len(table), 0
    for k in range(len(ids)):
        mark = np.uint32(_mark(ids[k]) >> _PAGE_BITS)
        at: int = home(ids[k], places)
        while table[at] != 0:
            if table[at] >> np.uint32(8) == mark:
                if found < len(rows):
                    rows[found], pages[found] = k, np.int64(table[at] & np.uint32(255)) - 1
                found += 1
            at += 1
            if at == places:
                at = 0
    return found
