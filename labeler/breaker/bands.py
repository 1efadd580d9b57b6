"""Trailing bands: what a scope's counts were, and how surprising those of a stretch of cells are
(L8).

Counts of a healthy scope are Poisson around a mean that itself differs from hour to hour:
gamma-Poisson, so negative binomial (Greenwood and Yule 1920). With a relative deviation `spread` of
the mean, the shape is 1 / spread^2: few counts are judged by their own noise, many by how much
hours differ. So a night is not surprising: it is small.

One person's impressions are no independent ones. People differ by a relative deviation `tau`,
estimated from each scope's own history, and a stretch holds as many people as its impressions are
worth, (sum n)^2 / sum n^2 (Kish 1965): together they add tau^2 / people to the relative variance.
The same sums say how many people are few.

The band of a click share runs from the lower to the higher of two means, that of all of history and
that of the same hours of the days before; that of a volume begins at the lowest of the same hours
before, an hour around included.
"""

from math import exp, lgamma, log, log1p
from typing import NamedTuple

import numpy as np

from labeler.breaker_config import BreakerConfig
from stream.kernels import F64, I64

#: Into how many groups sources fall by their hash: how much groups differ tells how much people do
#: (`labeler.breaker.early_join`).
GROUPS = 32
#: A slice: (feature, value).
Scope = tuple[str, str]
EVERYTHING: Scope = ("", "")
#: Beside the same hour of another day, so many ms before and after it.
AROUND_MS = 3_600_000


def lower_tail(count: int, mean: float, spread: float) -> float:
    """The chance of at most `count` where `mean` is expected."""
    return _tail(count, -1, mean, spread)


def upper_tail(count: int, mean: float, spread: float) -> float:
    """The chance of at least `count` where `mean` is expected."""
    return _tail(count, 1, mean, spread)


def _tail(count: int, step: int, mean: float, spread: float) -> float:
    """Summed from `count` outwards until the terms vanish; 1 where `count` lies on the mean's
    other side."""
    if (count - mean) * step <= 0:
        return 1.0
    shape = 1.0 / spread**2
    of_zero = -shape * log1p(mean / shape)
    odds = log(mean) - log(mean + shape) if mean > 0 else -np.inf
    total, k = 0.0, count
    while k >= 0:
        term = exp(
            lgamma(k + shape) - lgamma(shape) - lgamma(k + 1) + of_zero + (k * odds if k else 0.0)
        )
        total += term
        if term <= 1e-9 * total or term < 1e-300:
            break
        k += step
    return min(1.0, total)


def squares_of(groups: I64) -> F64:
    """(scopes,): the sum over people of their impressions squared, from impressions by group,
    (scopes, GROUPS). The products of people of one group are taken out as if they had been drawn
    into it at random."""
    n = groups.sum(1)
    squares = ((groups**2).sum(1) - n**2 / GROUPS) * GROUPS / (GROUPS - 1)
    clipped: F64 = np.clip(squares, n, n.astype(np.float64) ** 2)
    return clipped


class Cell(NamedTuple):
    """What a settled cell holds, (scopes,) each; `raw`, `bad_clicks`, `bad_impressions` are of
    everything."""

    impressions: I64
    clicks: I64
    squares: F64  # the sum over sources of their impressions squared
    deviation: F64  # the sum over sources of (clicks - share x impressions) squared
    groups: I64  # (scopes, GROUPS): impressions by group of sources
    raw: int = 0  # clicks that arrived, found or not
    bad_clicks: int = 0  # records that could not be read
    bad_impressions: int = 0


class Shares(NamedTuple):
    """By scope, (scopes,): the ends of the band of its click share; the clicks and the cells that
    it rests on; the relative deviation of people's click shares; and the impressions that one
    person accounts for (of whose impressions one is picked)."""

    low: F64
    high: F64
    clicks: I64
    cells: I64
    tau: F64
    each: F64


class HealthyCounts(NamedTuple):
    """Healthy counts of the last `cells` cells: (scopes,) impressions, clicks, how many people they
    are worth, and how many of the cells are healthy; (3,) raw clicks, bad clicks, bad impressions.
    """

    cells: int
    impressions: I64
    clicks: I64
    people: F64
    healthy: I64
    totals: I64


class Usual(NamedTuple):
    """Clicks that arrive an impression, the share of them that come later than the early join
    waits, and the shares of records that cannot be read."""

    raw: float
    late: float
    bad_clicks: float
    bad_impressions: float


class Bands:
    """Counts by cell and scope over the trailing `history_ms`. Cells that were withheld are no
    part of any band."""

    def __init__(self, config: BreakerConfig):
        self.config = config
        self.scopes: list[Scope] = [EVERYTHING]
        self.index: dict[Scope, int] = {EVERYTHING: 0}
        self.first: int | None = None  # number of the first cell ever
        self.last = -1
        self._size = config.history_cells
        self._impressions = np.zeros((self._size, 1), np.int64)
        self._clicks = np.zeros((self._size, 1), np.int64)
        self._squares = np.zeros((self._size, 1), np.float64)
        self._deviation = np.zeros((self._size, 1), np.float64)
        self._good = np.zeros((self._size, 1), np.bool_)
        self._groups = np.zeros((config.cells_max, 1, GROUPS), np.int64)
        self._totals = np.zeros((self._size, 3), np.int64)  # raw, bad clicks, bad impressions

    def scope(self, scope: Scope) -> int | None:
        """The column of a scope, made if there is room."""
        at = self.index.get(scope)
        if at is None and len(self.scopes) < self.config.scopes_max:
            at = self.index[scope] = len(self.scopes)
            self.scopes.append(scope)
            if at >= self._impressions.shape[1]:
                more = max(16, at)
                for name in ("_impressions", "_clicks", "_squares", "_deviation", "_good"):
                    setattr(self, name, np.pad(getattr(self, name), ((0, 0), (0, more))))
                self._groups = np.pad(self._groups, ((0, 0), (0, more), (0, 0)))
        return at

    def add(self, number: int, cell: Cell) -> None:
        """The next cell. Those between it and the last one were empty."""
        if self.first is None:
            self.first, self.last = number, number - 1
        empty = range(max(self.last + 1, number - self._size + 1), number)
        for at in (*empty, number):
            row = at % self._size
            self._impressions[row], self._clicks[row], self._totals[row] = 0, 0, 0
            self._squares[row], self._deviation[row], self._groups[at % len(self._groups)] = (
                0.0,
                0.0,
                0,
            )
            self._good[row] = at == number
        row = number % self._size
        self._impressions[row, : len(cell.impressions)] = cell.impressions
        self._clicks[row, : len(cell.clicks)] = cell.clicks
        self._squares[row, : len(cell.squares)] = cell.squares
        self._deviation[row, : len(cell.deviation)] = cell.deviation
        self._groups[number % len(self._groups), : len(cell.groups)] = cell.groups
        self._totals[row] = (cell.raw, cell.bad_clicks, cell.bad_impressions)
        self.last = number

    def mark(self, scope: int | None, first: int, good: bool) -> None:
        """Cells from `first` on count as healthy, or not, for a scope; None = all scopes."""
        rows = np.arange(max(first, self.last - self._size + 1), self.last + 1) % self._size
        if scope is None:
            self._good[rows] = good
        else:
            self._good[rows, scope] = good

    def sums(self, cells: int) -> tuple[I64, I64, I64]:
        """(impressions (scopes,), clicks (scopes,), totals (3,)) of the last so many cells."""
        rows, n = self._rows(self.last - cells + 1, self.last), len(self.scopes)
        return (
            self._impressions[rows, :n].sum(0),
            self._clicks[rows, :n].sum(0),
            self._totals[rows].sum(0),
        )

    def healthy_counts(self, cells: int) -> HealthyCounts:
        """Healthy counts of the last so many cells, `cells_max` at most; `totals` are of the cells
        in which everything was healthy."""
        rows, n = self._rows(self.last - cells + 1, self.last), len(self.scopes)
        good = self._good[rows, :n]
        impressions, clicks = self._healthy(rows)
        latest = np.arange(self.last - len(rows) + 1, self.last + 1) % len(self._groups)
        groups = (self._groups[latest, :n] * good[:, :, None]).sum(0)
        people = impressions**2 / np.maximum(squares_of(groups), 1)
        return HealthyCounts(
            cells,
            impressions,
            clicks,
            people,
            good.sum(0),
            (self._totals[rows] * good[:, :1]).sum(0),
        )

    def shares(self) -> Shares:
        """The bands of click shares, without the last `cells_max` cells, which are being judged."""
        before = self.last - self.config.cells_max
        rows = self._rows(before - self._size + 1, before)
        impressions, clicks = self._healthy(rows)
        mean = clicks / np.maximum(impressions, 1)
        around = AROUND_MS // self.config.cell_ms
        hours = [
            self._rows(first - around, last + around)
            for first, last in self._same_hours(self.config.cells_max)
        ]
        low, high = mean.copy(), mean.copy()
        if hours:
            then, clicked = self._healthy(np.concatenate(hours))
            known = clicked >= self.config.history_clicks_min
            same = clicked / np.maximum(then, 1)
            low, high = (
                np.where(known, np.minimum(low, same), low),
                np.where(known, np.maximum(high, same), high),
            )
        squares, tau = self._people(rows, mean)
        cells = (self._good[rows, : len(mean)] & (self._impressions[rows, : len(mean)] > 0)).sum(0)
        return Shares(low, high, clicks, cells, tau, squares / np.maximum(impressions, 1))

    def totals(self) -> Usual:
        """Of everything, over healthy history."""
        before = self.last - self.config.cells_max
        rows = self._rows(before - self._size + 1, before)
        rows = rows[self._good[rows, 0]]
        raw, bad_clicks, bad_impressions = (int(total) for total in self._totals[rows].sum(0))
        seen, joined = int(self._impressions[rows, 0].sum()), int(self._clicks[rows, 0].sum())
        return Usual(
            raw / max(1, seen),
            max(0.0, 1.0 - joined / max(1, raw)),
            bad_clicks / max(1, raw + bad_clicks),
            bad_impressions / max(1, seen + bad_impressions),
        )

    def most_before(self, cells: int, lag: int) -> int:
        """The most impressions of everything in a stretch of `cells` cells that ends with the last
        one or up to `lag` cells before it: those that clicks of the last stretch may have come
        from."""
        rows = self._rows(self.last - cells - lag + 1, self.last)
        summed = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._impressions[rows, 0])])
        return (
            int((summed[cells:] - summed[:-cells]).max()) if len(rows) >= cells else int(summed[-1])
        )

    def volumes(self, cells: int) -> F64:
        """By scope: the fewest impressions of the same hours of the days before, or an hour earlier
        or later then; 0 where there is no such day, or one was not healthy."""
        n = len(self.scopes)
        lowest = np.full(n, np.inf)
        around = AROUND_MS // self.config.cell_ms
        for first, last in self._same_hours(cells):
            for shift in (-around, 0, around):
                rows = self._rows(first + shift, last + shift)
                if len(rows) == cells:
                    healthy = self._good[rows, :n].all(0)
                    lowest = np.minimum(
                        lowest, np.where(healthy, self._impressions[rows, :n].sum(0), np.inf)
                    )
        return np.where(np.isinf(lowest), 0.0, lowest)

    def mean_volume(self, scope: int) -> float:
        """Impressions a cell over the healthy day before what is being judged."""
        before = self.last - self.config.cells_max
        rows = self._rows(before - self.config.day_cells + 1, before)
        rows = rows[self._good[rows, scope]]
        return float(self._impressions[rows, scope].mean()) if len(rows) else 0.0

    def _people(self, rows: I64, mean: F64) -> tuple[F64, F64]:
        """(sums of squares, tau), (scopes,) each, of healthy cells. Within a cell the clicks of a
        person with n impressions vary by n p (1 - p) + (n p tau)^2. A scope's own history may hold
        too little to show it: tau is that of everything at least, and at most that of people who
        click on all or nothing."""
        n = len(mean)
        good = self._good[rows, :n]
        squares = (self._squares[rows, :n] * good).sum(0)
        chance = ((self._clicks[rows, :n] * good) * (1.0 - mean)).sum(0)
        beyond = (self._deviation[rows, :n] * good).sum(0) - chance
        tau2 = np.maximum(beyond, 0.0) / np.maximum(mean**2 * squares, 1e-12)
        tau2 = np.minimum(np.maximum(tau2, tau2[0]), (1.0 - mean) / np.maximum(mean, 1e-12))
        return squares, np.sqrt(np.maximum(tau2, 0.0))

    def _same_hours(self, cells: int) -> list[tuple[int, int]]:
        """(first, last) of the same stretch on each day before, as far as history reaches."""
        day, ends = self.config.day_cells, range(1, self._size // self.config.day_cells + 1)
        return [(self.last - d * day - cells + 1, self.last - d * day) for d in ends]

    def _healthy(self, rows: I64) -> tuple[I64, I64]:
        n = len(self.scopes)
        good = self._good[rows, :n]
        return (self._impressions[rows, :n] * good).sum(0), (self._clicks[rows, :n] * good).sum(0)

    def _rows(self, first: int, last: int) -> I64:
        """Rows of the cells `[first, last]` that are in the ring."""
        low = max(
            first, self.last - self._size + 1, self.last + 1 if self.first is None else self.first
        )
        return np.arange(low, max(low, last + 1), dtype=np.int64) % self._size
