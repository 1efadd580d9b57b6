"""Simulated traffic of a shop with a known truth: users, items, vendors, click probabilities and
click delays.

The truth (each impression's click probability, who attacks) is returned beside the history and
never written into the topics, so that a benchmark can hold the pipeline's answers against it.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from everspun.replay import attacks
from everspun.replay.history import History, sessions_of
from everspun.replay.movielens import click_delays_ms
from stream.columns import NO_POSITION, TS_MS_MAX, TS_MS_MIN

DAY_MS = 86_400_000
DAYS_MAX, ZIPF_MAX, SESSION_VIEWS_MAX = 36_500, 20, 200


@dataclass(frozen=True)
class TrafficConfig:
    """A shop. Popularity of items and activity of users are heavy-tailed (Zipf)."""

    impressions: int = field(default=100_000, metadata={"help": "impressions to simulate"})
    users: int = field(default=5_000, metadata={"help": "people"})
    items: int = field(default=2_000, metadata={"help": "items"})
    vendors: int = field(default=100, metadata={"help": "vendors; an item belongs to one"})
    click_rate: float = field(default=0.05, metadata={"help": "mean click probability"})
    days: float = field(
        default=2.0, metadata={"help": "simulated time span, days; more people come in the evening"}
    )
    start_ms: int = field(
        default=1_700_000_000_000, metadata={"help": "time of the first impression, ms"}
    )
    views_max: int = field(default=8, metadata={"help": "most impressions of one page view"})
    zipf: float = field(default=1.05, metadata={"help": "exponent of popularity and activity"})
    session_views: float = field(
        default=1.0,
        metadata={"help": "mean page views of a visit, heavy-tailed; 1 = each page view by itself"},
    )
    focus: float = field(
        default=0.0, metadata={"help": "share of visits that look at one vendor only"}
    )
    shared: float = field(
        default=0.0, metadata={"help": "share of people behind addresses of 2 to 50 people"}
    )
    sale_day: int = field(default=-1, metadata={"help": "day with 5 times the traffic; -1 = none"})
    attacks: bool = field(default=True, metadata={"help": "plant one attack of each direction"})
    seed: int = field(default=1, metadata={"help": "everything is a function of it"})

    def __post_init__(self) -> None:
        for name in ("impressions", "users", "items", "vendors", "views_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: at least 1")
        if not 0 < self.click_rate < 1:
            raise ValueError(f"click_rate = {self.click_rate}: above 0, below 1")
        for name in ("focus", "shared"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: a share, 0 to 1")
        if not 0 < self.days <= DAYS_MAX:
            raise ValueError(f"days = {self.days}: above 0, at most {DAYS_MAX}")
        if not 0 <= self.zipf <= ZIPF_MAX:
            raise ValueError(f"zipf = {self.zipf}: 0 to {ZIPF_MAX}")
        if not 1 <= self.session_views <= SESSION_VIEWS_MAX:
            raise ValueError(f"session_views = {self.session_views}: 1 to {SESSION_VIEWS_MAX}")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: 0 or more")
        if not TS_MS_MIN <= self.start_ms < TS_MS_MAX - (DAYS_MAX + 1_000) * DAY_MS:
            raise ValueError(
                f"start_ms = {self.start_ms}: milliseconds since 1970, between 1973 and 5000"
            )


@dataclass(frozen=True)
class Traffic:
    """A simulated history and what only the simulator knows."""

    history: History
    click_probability: npt.NDArray[
        np.float64
    ]  # per honest impression, in their order before attacks are merged


def simulate(config: TrafficConfig) -> Traffic:
    """The shop's history, a function of the configuration alone."""
    rng = np.random.default_rng(config.seed)
    count = config.impressions
    views = rng.integers(1, config.views_max + 1, count)
    view_of = np.repeat(np.arange(count), views)[:count]
    view_count = int(view_of[-1]) + 1
    if config.session_views > 1:
        visits = _visits(rng, config, view_count)
    else:
        visits = PageViews(
            _times(rng, view_count, config), _zipf(rng, config.users, config.zipf, view_count), None
        )
    ts, users = visits.ts_ms[view_of], visits.user[view_of]
    items = _zipf(rng, config.items, config.zipf, count)
    vendor_of = rng.integers(config.vendors, size=config.items)
    if visits.number is not None:
        items = _focused(rng, config, items, visits.number[view_of], vendor_of)
    probability = _click_probability(rng, config, users, items)
    clicked = np.flatnonzero(rng.random(count) < probability)
    click_ts = ts[clicked] + click_delays_ms(count, config.seed)[clicked]
    order = np.argsort(click_ts, kind="stable")
    names = _names(config, users)
    history = History(
        name=f"simulated shop, seed {config.seed}",
        note=f"simulated: {count:,} impressions, {config.users:,} people, {config.items:,} items, "
        f"seed {config.seed}",
        ts_ms=ts,
        ids=[f"e{i}" for i in range(count)],
        sessions=sessions_of([f"user-{u}" for u in users.tolist()], ts),
        sources=names,
        vendors=[f"vendor-{v}" for v in vendor_of[items].tolist()],
        items=[f"item-{i}" for i in items.tolist()],
        shown_at=[NO_POSITION] * count,
        features=[],
        click_impression=clicked[order].astype(np.int64),
        click_ts_ms=click_ts[order],
        planted=np.zeros(count, dtype=np.bool_),
    )
    return Traffic(attacks.plant(history, config.seed) if config.attacks else history, probability)


class PageViews(NamedTuple):
    """Page views in order of time, each (n,): when, by whom, and in which visit (None: each by
    itself)."""

    ts_ms: npt.NDArray[np.int64]
    user: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64] | None


def _visits(rng: np.random.Generator, config: TrafficConfig, count: int) -> PageViews:
    """Visits whose lengths are Pareto (a few last for hours), with page views half a minute
    apart (log-normal)."""
    lengths = np.ceil(
        (config.session_views - 1) * rng.pareto(2.0, count) + rng.random(count)
    ).astype(np.int64)
    visit_of = np.repeat(np.arange(count), np.clip(lengths, 1, 200))[:count]
    begins = _times(rng, count, config)
    rng.shuffle(begins)
    gaps = (30_000 * np.exp(rng.normal(0, 1, count))).astype(np.int64)
    first = np.append(True, np.diff(visit_of) > 0)
    since = np.cumsum(gaps)
    ts_ms = (
        begins[visit_of]
        + since
        - since[np.maximum.accumulate(np.where(first, np.arange(count), 0))]
    )
    users = _zipf(rng, config.users, config.zipf, count)[visit_of]
    order = np.argsort(ts_ms, kind="stable")
    return PageViews(ts_ms[order], users[order], visit_of[order])


def _focused(
    rng: np.random.Generator,
    config: TrafficConfig,
    items: npt.NDArray[np.int64],
    visit: npt.NDArray[np.int64],
    vendor_of: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The items looked at; in some visits all are of the vendor of one item drawn by popularity."""
    visits = int(visit.max()) + 1
    target = vendor_of[_zipf(rng, config.items, config.zipf, visits)]
    focused = (rng.random(visits) < config.focus)[visit]
    order = np.argsort(vendor_of, kind="stable")
    begins = np.searchsorted(vendor_of[order], np.arange(config.vendors + 1))
    wanted = target[visit]
    place = begins[wanted] + (
        rng.random(len(items)) * (begins[wanted + 1] - begins[wanted])
    ).astype(np.int64)
    return np.where(focused, order[place], items).astype(np.int64)


def _names(config: TrafficConfig, users: npt.NDArray[np.int64]) -> list[str]:
    """What the site sees of each person: a user, or the address that up to 50 people share."""
    if not config.shared:
        return [f"user-{u}" for u in users.tolist()]
    rng = np.random.default_rng([config.seed, 50])
    behind = np.flatnonzero(rng.random(config.users) < config.shared)
    sizes = np.exp(rng.uniform(np.log(2), np.log(51), len(behind))).astype(np.int64)
    address = np.full(config.users, -1, np.int64)
    address[behind] = np.repeat(np.arange(len(behind)), sizes)[: len(behind)]
    return [
        f"user-{u}" if a < 0 else f"address-{a}"
        for u, a in zip(users.tolist(), address[users].tolist(), strict=True)
    ]


def _times(rng: np.random.Generator, count: int, config: TrafficConfig) -> npt.NDArray[np.int64]:
    """Rising times over the span, twice as dense at the day's peak as on average and rare at its
    low."""
    uniform = np.sort(rng.random(count)) * config.days
    if config.sale_day >= 0:
        edges = np.arange(int(np.ceil(config.days)) + 1.0)
        busy = np.where(edges[:-1] == config.sale_day, 5.0, 1.0)
        uniform = np.interp(
            uniform / config.days * busy.sum(), np.append(0, np.cumsum(busy)), edges
        )
    phase = uniform - np.sin(2 * np.pi * uniform) / (2 * np.pi) * 0.9
    return (config.start_ms + np.sort(phase) * DAY_MS).astype(np.int64)


def _zipf(
    rng: np.random.Generator, kinds: int, exponent: float, count: int
) -> npt.NDArray[np.int64]:
    weights = 1.0 / np.arange(1, kinds + 1) ** exponent
    return rng.choice(kinds, size=count, p=weights / weights.sum()).astype(np.int64)


def _click_probability(
    rng: np.random.Generator,
    config: TrafficConfig,
    users: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """A logistic truth: a bias by user, a bias by item, and their taste in 4 dimensions."""
    taste_u, taste_i = rng.normal(0, 0.5, (config.users, 4)), rng.normal(0, 0.5, (config.items, 4))
    logit = rng.normal(0, 0.7, config.users)[users] + rng.normal(0, 0.8, config.items)[items]
    logit += (taste_u[users] * taste_i[items]).sum(axis=1)
    offset = np.log(config.click_rate / (1 - config.click_rate))
    for _ in range(20):  # the offset at which the mean is the stated rate
        mean = float((1 / (1 + np.exp(-(logit + offset)))).mean())
        offset += np.log(config.click_rate / mean)
    return np.asarray(1 / (1 + np.exp(-(logit + offset))))
