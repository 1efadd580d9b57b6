"""Shops made of people, as tallies of the breaker's early join: what `bench.breaker` judges.

People come at random, twenty times as many in the evening as at night; each looks at a few things
or at many (a log-normal with a mean of 8), likes to click more or less than others (log-normal),
and a third of them are still there in the next cell. Click shares differ from hour to hour by a
tenth, and between day and night. This is simulated, not measured: on a real site, `everspun breaker
list` tells.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from everspun.replay import History
from labeler import BreakerConfig
from labeler.breaker import GROUPS, TALLY_SCHEMA, Scope
from stream.kernels import F64, I64

SLICES = ("language", "partner", "discounted")
LANGUAGES, SHARES = ("en", "de", "fi"), (0.6, 0.3, 0.1)
VIEWS_SIGMA, LIKES_SIGMA, HOURS_SIGMA, STAY = 1.0, 0.6, 0.1, 1 / 3
#: Columns of the kinds of impressions: (partner, discounted) in this order.
KINDS = (("own", "no"), ("own", "yes"), ("acme", "no"), ("acme", "yes"))
KIND_SHARES = (0.56, 0.24, 0.14, 0.06)


@dataclass(frozen=True)
class Story:
    """What breaks, in cells `[first, last)`: clicks of these kinds are `lost` with the probability,
    silently or as records that cannot be read."""

    name: str
    scope: Scope  # what should be withheld
    first: int
    last: int
    lost: float = 1.0
    unreadable: bool = False
    only: Scope | None = None  # whose clicks are lost, if not the scope's


@dataclass
class CellCounts:
    """One cell, for the judge and for the score."""

    number: int
    rows: pa.RecordBatch | None
    raw: int
    unreadable: int = 0
    impressions: dict[Scope, int] = field(default_factory=dict)


@dataclass
class Shop:
    visitors: float  # new ones a cell, on average over a day
    seed: int
    config: BreakerConfig
    rate: float = 0.03
    sale_day: int = -1
    stories: tuple[Story, ...] = ()

    def cells(self, first: int, days: int) -> Iterator[CellCounts]:
        """`first` is the number of a cell at midnight."""
        rng, day = np.random.default_rng(self.seed), self.config.day_cells
        hour = day // 24
        people = _People.none()
        mood = 1.0
        for n in range(days * day):
            phase, sale = np.cos(2 * np.pi * (n % day) / day), n // day == self.sale_day
            if n % hour == 0:
                mood = float(np.exp(rng.normal(0, HOURS_SIGMA)))
            load, share = (
                (1 - 0.9 * phase) * (5 if sale else 1),
                mood * (1 - 0.15 * phase) * (0.65 if sale else 1),
            )
            people = people.some(rng).with_others(
                _People.drawn(rng, rng.poisson(self.visitors * load))
            )
            yield self._cell(first + n, n, people, rng, self.rate * share)

    def _cell(
        self, number: int, n: int, people: "_People", rng: np.random.Generator, rate: float
    ) -> CellCounts:
        views = rng.multinomial(people.views(rng), KIND_SHARES)  # (people, kinds)
        clicks = rng.binomial(views, np.minimum(0.9, rate * people.likes)[:, None])
        unreadable, raw = 0, 0
        for story in self.stories:
            if story.first <= n < story.last:
                feature, value = story.only or story.scope
                hit = np.ones(clicks.shape, np.bool_)
                if feature == "language":
                    hit &= (people.language == LANGUAGES.index(value))[:, None]
                elif feature:
                    column = ("partner", "discounted").index(feature)
                    hit &= np.array([kind[column] == value for kind in KINDS])[None, :]
                gone = np.where(hit, rng.binomial(clicks, story.lost), 0)
                clicks = clicks - gone
                unreadable += int(gone.sum()) if story.unreadable else 0
        raw = int(clicks.sum())
        found = list(_scopes(people.language, people.group, views, clicks))
        cell_ms = number * self.config.cell_ms
        impressions = {scope: int(seen.sum()) for scope, seen, _ in found}
        return CellCounts(number, tally_rows(found, cell_ms), raw, unreadable, impressions)


@dataclass(frozen=True)
class _People:
    language: I64
    group: I64
    likes: F64
    eager: F64  # views a cell, on average

    @staticmethod
    def none() -> "_People":
        return _People(*(np.zeros(0, np.int64) for _ in range(2)), *(np.zeros(0) for _ in range(2)))  # type: ignore[arg-type]

    @staticmethod
    def drawn(rng: np.random.Generator, count: int) -> "_People":
        likes = np.exp(rng.normal(-(LIKES_SIGMA**2) / 2, LIKES_SIGMA, count))
        eager = 8 * np.exp(rng.normal(-(VIEWS_SIGMA**2) / 2, VIEWS_SIGMA, count))
        return _People(rng.choice(3, count, p=SHARES), rng.integers(0, GROUPS, count), likes, eager)

    def some(self, rng: np.random.Generator) -> "_People":
        stay = rng.random(len(self.group)) < STAY
        return _People(self.language[stay], self.group[stay], self.likes[stay], self.eager[stay])

    def with_others(self, others: "_People") -> "_People":
        names = ("language", "group", "likes", "eager")
        return _People(*(np.concatenate([getattr(self, n), getattr(others, n)]) for n in names))

    def views(self, rng: np.random.Generator) -> I64:
        return 1 + rng.poisson(self.eager)


Counted = tuple[Scope, I64, I64]  # scope, impressions and clicks by group


def _scopes(language: I64, group: I64, views: I64, clicks: I64) -> Iterator[Counted]:
    def summed(people: npt.NDArray[np.bool_], kinds: list[int]) -> tuple[I64, I64]:
        seen = np.bincount(group[people], views[people][:, kinds].sum(1), GROUPS)
        found = np.bincount(group[people], clicks[people][:, kinds].sum(1), GROUPS)
        return seen.astype(np.int64), found.astype(np.int64)

    all_, kinds = np.ones(len(group), np.bool_), list(range(len(KINDS)))
    yield ("", ""), *summed(all_, kinds)
    for k, name in enumerate(LANGUAGES):
        yield ("language", name), *summed(language == k, kinds)
    for column, feature in enumerate(("partner", "discounted")):
        for value in sorted({kind[column] for kind in KINDS}):
            yield (feature, value), *summed(all_, [k for k in kinds if KINDS[k][column] == value])


def tally_rows(found: Iterable[Counted], cell_ms: int) -> pa.RecordBatch | None:
    """A `TALLY_SCHEMA` batch of one cell."""
    rows: list[tuple[str, str, int, int, int, int]] = []
    for (feature, value), seen, clicked in sorted(found, key=lambda one: one[0]):
        rows += [
            (feature, value, cell_ms, g, int(seen[g]), int(clicked[g]))
            for g in np.flatnonzero(seen).tolist()
        ]
    if not rows:
        return None
    columns = [
        pa.array(c, t.type) for c, t in zip(zip(*rows, strict=True), TALLY_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=TALLY_SCHEMA)


def history_cells(
    history: History, config: BreakerConfig, group_of: Callable[[History], I64]
) -> Iterator[CellCounts]:
    """A history's cells, with vendors as slices; `group_of` says the group of each impression's
    source."""
    cell = history.ts_ms // config.cell_ms
    early = history.click_ts_ms - history.ts_ms[history.click_impression] <= config.join_window_ms
    clicked = np.zeros(len(history), np.int64)
    clicked[history.click_impression[early]] = 1
    raw = np.bincount(history.click_ts_ms // config.cell_ms - cell[0], minlength=1)
    group, (vendors, vendor) = (
        group_of(history),
        np.unique(np.array(history.vendors), return_inverse=True),
    )
    edges = np.searchsorted(cell, np.arange(cell[0], cell[-1] + 2))
    for n in range(len(edges) - 1):
        at = slice(edges[n], edges[n + 1])
        found: list[Counted] = []
        for name, these in [(("", ""), np.ones(at.stop - at.start, np.bool_))] + [
            (("vendor", str(vendors[v])), vendor[at] == v) for v in np.unique(vendor[at]).tolist()
        ]:
            seen = np.bincount(group[at][these], minlength=GROUPS)
            found.append(
                (
                    name,
                    seen,
                    np.bincount(group[at][these], clicked[at][these], GROUPS).astype(np.int64),
                )
            )
        number = int(cell[0]) + n
        counts = {scope: int(seen.sum()) for scope, seen, _ in found}
        rows = tally_rows(found, number * config.cell_ms) if at.stop > at.start else None
        yield CellCounts(number, rows, int(raw[n]) if n < len(raw) else 0, 0, counts)
