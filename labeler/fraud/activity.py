"""What every source did to every vendor within the last windows of event time, in columns.

A *cell* of event time holds lists of counted rows, appended as they come and added up when the cell
is first asked for after that. Windows are sums over the cells that make them up: nothing runs along
that could drift.
"""

from collections.abc import Callable
from math import log
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labeler.fraud.pair_index import NO_LIMIT, Pairs, joined
from stream.hashing import NO_KEY, HashKey
from stream.kernels import I64, kernel

#: Pairs that no cell names any more are forgotten once they are more than so many, and more than
#: the others.
IDLE_PAIRS_MIN = 4_096

#: Rows are counted so much of `pairs_max` at a time; of a full table so many of these parts stay.
STEP_PART, ROOM_PART = 8, 6
#: A click weighs as much as so many views: rules ask for few of them. And a pair that is remembered
#: beyond its window.
CLICK_WEIGHT, REMEMBERED_WEIGHT = 4, 1_000
#: Rows by session are added up when so many signals have brought some of a cell.
SESSION_PARTS_MAX = 256

_ID_BITS = 64
#: Fewer events than this are not looked at for repeats: nobody is judged on so few.
_COUNTED_AS_IT_IS = 4

#: Counted rows as they are kept between restarts: one a (source, vendor, cell) and signal, in the
#: order of counting.
ROW_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("cell", pa.int64(), nullable=False),
        pa.field("views", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field("gaps_fast", pa.int64(), nullable=False),
        pa.field(
            "ids", pa.int64(), nullable=False
        ),  # of 64 bits those that ids of these events fall on
        pa.field("click_ts_ms", pa.int64(), nullable=False),  # of the last click; 0 = none
        pa.field("session", pa.int64(), nullable=False),  # -1 = not known
        pa.field(
            "rejected", pa.bool_(), nullable=False
        ),  # a verdict covers the pair in this cell; counts nothing
    ]
)


class Counted(NamedTuple):
    """Counts of pairs, each int64 (n,): the pair, its views, its clicks, its clicks right after
    another one, and the bits (of 64) that the ids of its views and of its clicks fall on."""

    pair: I64
    views: I64
    clicks: I64
    gaps_fast: I64
    view_ids: I64
    click_ids: I64

    def distinct(self) -> "Counted":
        """Without what was sent again: it is one event to who labels, so it must be one to who
        judges."""
        views, clicks = (np.empty_like(column) for column in self[1:3])
        _distinct(self.views, self.view_ids, views)
        _distinct(self.clicks, self.click_ids, clicks)
        return self._replace(
            views=views, clicks=clicks, gaps_fast=np.where(clicks < self.clicks, 0, self.gaps_fast)
        )


class Activity:
    """Cells by number (event time // cell_ms), with the pairs that verdicts cover in each."""

    def __init__(
        self, gap_fast_ms: int, pairs_max: int = NO_LIMIT, hash_key: HashKey = NO_KEY
    ) -> None:
        self.pairs = Pairs(hash_key)
        self.pairs_max = pairs_max
        self.crowded_out = 0  # pairs that made room for others
        self.thinned: set[int] = (
            set()
        )  # cells that lack what such pairs did: they show nothing of what is usual
        self._gap_fast_ms = gap_fast_ms
        self._cells: dict[int, list[Counted]] = {}
        self._rejected: dict[int, list[I64]] = {}
        self._sessions: dict[
            int, list[Counted]
        ] = {}  # what is in cells, with `pair << 16 | session` as pair

    @property
    def numbers(self) -> list[int]:
        """The cells in which anything was counted, rising."""
        return sorted(self._cells)

    def add(
        self, pair: I64, cell: I64, views: I64, clicks: I64, gaps_fast: I64, ids: I64, session: I64
    ) -> None:
        """Count rows, each of views or of clicks; all int64 (n,)."""
        rows = Counted(
            pair,
            views,
            clicks,
            gaps_fast,
            np.where(views > 0, ids, 0),
            np.where(clicks > 0, ids, 0),
        )
        known = session >= 0
        of_session = rows._replace(pair=pair << 16 | np.where(known, session, 0))
        for number, at in by_cell(cell):
            self._cells.setdefault(number, []).append(Counted(*(column[at] for column in rows)))
            at = at[known[at]]
            if len(at):
                parts = self._sessions.setdefault(number, [])
                parts.append(Counted(*(column[at] for column in of_session)))
                if len(parts) >= SESSION_PARTS_MAX:
                    parts[:] = [_added_up(parts)]

    def by_session(self, pairs: I64, first: int, last: int) -> Counted:
        """What these pairs did in the cells from `first` to `last` by session, without what was
        sent again: `pair` is the pair's number << 16 | session."""
        found = []
        for number in range(first, last + 1):
            for part in self._sessions.get(number, []):
                mine = np.isin(part.pair >> 16, pairs)
                found.append(Counted(*(column[mine] for column in part)))
        return _added_up(found).distinct() if found else _nothing(0)

    def close_gaps(self, pair: I64, clicks: I64, first_ts_ms: I64, last_ts_ms: I64) -> I64:
        """Rows in the order of counting: 1 where its first click follows the pair's last one within
        `gap_fast_ms`, and remembers the last ones. int64 (n,)."""
        near = np.zeros(len(pair), np.int64)
        _close_gaps(
            self.pairs.click_ts_ms, pair, clicks, first_ts_ms, last_ts_ms, self._gap_fast_ms, near
        )
        return near

    def reject(self, pairs: I64, first: int, last: int) -> None:
        """A verdict covers these pairs in all cells from `first` to `last`."""
        for number in range(first, last + 1):
            self._rejected.setdefault(number, []).append(pairs)

    @property
    def step_rows(self) -> int:
        """Rows for which there is room once `make_room` was asked, whatever they name."""
        return max(1, self.pairs_max // STEP_PART)

    def load(self, rows: pa.RecordBatch) -> None:
        """Rows of ROW_SCHEMA, as an earlier filter counted them."""
        for at in range(0, rows.num_rows, self.step_rows):
            part = rows.slice(at, self.step_rows)
            self.make_room(part.num_rows)
            self._load(part)

    def _load(self, rows: pa.RecordBatch) -> None:
        pair = self.pairs.of(rows.column("source"), rows.column("vendor"))
        cell, views, clicks, fast, ids, ts, session = (
            rows.column(i).to_numpy() for i in range(2, 9)
        )
        rejected = rows.column("rejected").to_numpy(zero_copy_only=False)
        np.maximum.at(self.pairs.click_ts_ms, pair, ts)
        counted = ~rejected
        self.add(*(column[counted] for column in (pair, cell, views, clicks, fast, ids, session)))
        for number, at in by_cell(cell[rejected]):
            self._rejected.setdefault(number, []).append(pair[rejected][at])

    def touched(self, number: int) -> I64:
        """The pairs counted in a cell, rising."""
        return self._cell(number).pair

    def counted(self, number: int) -> Counted:
        """What was counted in a cell, without what was sent again."""
        return self._cell(number).distinct()

    def window(self, last: int, span: int) -> Counted:
        """Of every pair, over the `span` cells that end with `last`, without what was sent
        again."""
        sums = _nothing(len(self.pairs))
        for number in range(last - span + 1, last + 1):
            if number in self._cells:
                _add_up(*sums[1:], *self._cell(number))
        return sums.distinct()

    def honest(self, number: int) -> Counted:
        """What was counted in a cell by source, without what was sent again and pairs that a
        verdict covers there."""
        cell = self._cell(number).distinct()
        kept = self.pairs.source_of(cell.pair) != self.pairs.nobody
        rejected = self._rejected.get(number)
        if rejected:
            kept &= ~np.isin(cell.pair, joined(rejected))
        return Counted(*(column[kept] for column in cell))

    def uncovered(self, pairs: I64, first: int, last: int) -> I64:
        """The pairs of which something was counted, in the cells from `first` to `last`, that no
        verdict covers."""
        found = np.zeros(len(self.pairs), np.bool_)
        for number in range(first, last + 1):
            found[self.honest(number).pair] = True
        return pairs[found[pairs]]

    def forget(self, before: int) -> None:
        """Drop the cells below `before`."""
        for number in [n for n in self._cells if n < before]:
            del self._cells[number]
            self._sessions.pop(number, None)
            self.thinned.discard(number)
        for number in [n for n in self._rejected if n < before]:
            del self._rejected[number]

    def renumber(self) -> I64 | None:
        """Forget pairs that stand in no cell, if they are many: the new number of each old pair,
        or None."""
        if len(self.pairs) < min(IDLE_PAIRS_MIN, self.pairs_max):
            return None
        alive = np.zeros(len(self.pairs), np.bool_)
        for number in self._cells:
            alive[self._cell(number).pair] = True
        for rejected in self._rejected.values():
            alive[joined(rejected)] = True
        if 2 * int(alive.sum()) > len(alive) and (len(alive) < self.pairs_max or alive.all()):
            return None
        new = self.pairs.keep(np.flatnonzero(alive))
        self._renumbered(new)
        return new

    def make_room(self, pairs: int, remembered: Callable[[], I64] | None = None) -> I64 | None:
        """Before so many pairs come that may be new: if there is no room for them, the lightest
        make it, those that are `remembered` for other reasons last. What they did is nobody's from
        then on, ("", ""). The new number of each old pair, or None where all stay.

        As the summaries of Misra and Gries 1982 do, in bulk (Anderson et al. 2017): of n events no
        pair loses more than about n / (pairs_max / 2), so whoever does more than most of a flood's
        sources is never lost to it."""
        known = len(self.pairs)
        if known + pairs <= self.pairs_max:
            return None
        weight = np.zeros(known, np.int64)
        for number in self._cells:
            cell = self._cell(number).distinct()  # what is sent again costs its sender nothing
            weight[cell.pair] += cell.views + CLICK_WEIGHT * cell.clicks
        if remembered is not None:
            weight[remembered()] += REMEMBERED_WEIGHT
        nobody = self.pairs.number("", "")
        weight[nobody : nobody + 1] = np.iinfo(np.int64).max
        leave = known - max(1, min(self.pairs_max - pairs, self.pairs_max * ROOM_PART // STEP_PART))
        gone = np.argsort(weight, kind="stable")[:leave]  # of equals those that came first
        self.crowded_out += len(gone)
        self.thinned |= self._cells.keys()
        stay = np.ones(len(self.pairs), np.bool_)
        stay[gone] = False
        new = self.pairs.keep(np.flatnonzero(stay))
        new[gone] = new[nobody]
        self._renumbered(new)
        return new

    def _renumbered(self, new: I64) -> None:
        self._cells = {
            n: [Counted(new[c.pair], *c[1:]) for c in (self._cell(n),)] for n in self._cells
        }
        self._rejected = {n: [new[joined(pairs)]] for n, pairs in self._rejected.items()}
        for parts in self._sessions.values():
            parts[:] = [
                part._replace(pair=new[part.pair >> 16] << 16 | part.pair & 0xFFFF)
                for part in parts
            ]

    def _cell(self, number: int) -> Counted:
        """One cell, added up: each pair once, rising."""
        parts = self._cells.get(number)
        if not parts:
            return _nothing(0)
        if len(parts) > 1 or not _rises(parts[0].pair):
            parts[:] = [_added_up(parts)]
        return parts[0]


def _added_up(parts: list[Counted]) -> Counted:
    """Each pair once, rising."""
    pair, inverse = np.unique(joined([part.pair for part in parts]), return_inverse=True)
    sums = _nothing(len(pair))
    _add_up(*sums[1:], inverse, *(joined([part[i] for part in parts]) for i in range(1, 6)))
    return sums._replace(pair=pair)


def by_cell(cell: I64) -> list[tuple[int, I64]]:
    """(cell, the rows that lie in it, in order), cells rising."""
    if not len(cell):
        return []
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    return [(int(cell[at[0]]), at) for at in np.split(order, cuts)]


def _rises(numbers: I64) -> bool:
    return bool((np.diff(numbers) > 0).all())


def _nothing(pairs: int) -> Counted:
    """Of the pairs 0, 1, 2, ..."""
    return Counted(np.arange(pairs), *(np.zeros(pairs, np.int64) for _ in Counted._fields[1:]))


@kernel
def _add_up(
    to_views: I64, to_clicks: I64, to_fast: I64, to_view_ids: I64, to_click_ids: I64,
    place: I64, views: I64, clicks: I64, fast: I64, view_ids: I64, click_ids: I64,
) -> None:  # fmt: skip
    for i in range(len(place)):
        at = place[i]
        to_views[at] += views[i]
        to_clicks[at] += clicks[i]
        to_fast[at] += fast[i]
        to_view_ids[at] |= view_ids[i]
        to_click_ids[at] |= click_ids[i]


@kernel
def _distinct(counts: I64, ids: I64, out: I64) -> None:
    """Linear counting (Whang et al. 1990): with b of m bits set there were about m ln(m / (m - b))
    ids. Counts up to twice that are believed, for the estimate errs by a tenth; so is any count
    once all bits are set."""
    for i in range(len(counts)):
        out[i] = counts[i]
        if counts[i] < _COUNTED_AS_IT_IS:
            continue
        rest, bits = np.uint64(ids[i]), 0
        while rest:
            rest &= rest - np.uint64(1)
            bits += 1
        if bits < _ID_BITS:
            about = int(_ID_BITS * log(_ID_BITS / (_ID_BITS - bits)) + 0.5)
            if counts[i] > 2 * about:
                out[i] = about


@kernel
def _close_gaps(
    click_ts_ms: I64,
    pair: I64,
    clicks: I64,
    first_ts_ms: I64,
    last_ts_ms: I64,
    gap_ms: int,
    near: I64,
) -> None:
    for i in range(len(pair)):
        if clicks[i] == 0:
            continue
        at = pair[i]
        if 0 <= first_ts_ms[i] - click_ts_ms[at] < gap_ms:
            near[i] = 1
        click_ts_ms[at] = max(click_ts_ms[at], last_ts_ms[i])
