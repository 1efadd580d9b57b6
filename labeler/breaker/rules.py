"""When a scope has left its band, and when it is back. Pure functions of bands;
`docs/breaker.md` tells the stories."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labeler.breaker.bands import (
    EVERYTHING,
    Bands,
    HealthyCounts,
    Scope,
    Shares,
    Usual,
    lower_tail,
    upper_tail,
)
from labeler.breaker_config import BreakerConfig

CLICK_OUTAGE = "click_outage"  # clicks stopped coming
JOIN_EMPTY = "join_finds_nothing"  # clicks come, and name no impression that is known
CLICK_SHARE = "click_share"  # a slice's clicks stopped, others go on
CLICK_SURGE = "click_surge"
IMPRESSION_OUTAGE = "impression_outage"
ORPHAN_CLICKS = "clicks_without_impressions"
SLICE_VANISHED = "slice_vanished"
COMPONENT_MISSING = "component_missing"  # another team's service says nothing of too many
UNREADABLE_CLICKS = "unreadable_clicks"
UNREADABLE_IMPRESSIONS = "unreadable_impressions"
#: No rule: an operator said that the scope is healthy as it is.
RELEASED = "released"
_LOW = (CLICK_OUTAGE, JOIN_EMPTY, CLICK_SHARE)
_VOLUME = (IMPRESSION_OUTAGE, SLICE_VANISHED)
#: A volume counts as back at so many times `volume_floor` of its mean.
VOLUME_BACK = 5.0
#: Unreadable records are back to usual below this part of `unreadable_max`.
READABLE_AGAIN = 0.5
#: A component is back where the share without it is below this part of what is allowed.
MISSING_AGAIN = 0.5


@dataclass(frozen=True)
class Trip:
    """A scope that is withheld: since which cell, by which rule, and what it must come back to."""

    scope: Scope
    rule: str
    since: int
    base: float
    reason: str = ""
    evidence: dict[str, float] = field(default_factory=dict, compare=False)


def find(config: BreakerConfig, bands: Bands, trips: Mapping[Scope, Trip]) -> list[Trip]:
    """The scopes that leave their band with the last cell. While everything is withheld nothing
    else is judged."""
    if EVERYTHING in trips:
        return []
    shares, usual = bands.shares(), bands.totals()
    found: dict[Scope, Trip] = {}
    for cells in _lengths(config, bands):
        seen = bands.healthy_counts(cells)
        for trip in (
            *_click_shares(config, bands, shares, usual, seen),
            *_volumes(config, bands, shares, seen),
            *_missing(config, bands, seen),
        ):
            if trip.rule not in _VOLUME or trip.scope[0] not in config.missing:
                found.setdefault(trip.scope, trip)
        for whole in _totals(config, bands, shares, usual, seen):
            found.setdefault(EVERYTHING, whole)
        if EVERYTHING in found and not _explained(config, bands, shares, seen, found, trips):
            return [found[EVERYTHING]]
        found.pop(EVERYTHING, None)
    return [found[scope] for scope in sorted(found) if scope not in trips]


def recovered(config: BreakerConfig, bands: Bands, trip: Trip) -> int | None:
    """The first cell that is healthy again, or None. The first third of the stretch that says so
    stays withheld: it may hold the last bad cells."""
    at = bands.index.get(trip.scope, 0)
    for cells in range(config.recovered_cells, config.cells_max + config.recovered_cells):
        impressions, clicks, totals = bands.sums(cells)
        counts = (int(impressions[0]), int(impressions[at]), int(clicks[at]))
        back = _back(config, trip, cells, counts, totals)
        if back is not None:
            return bands.last - cells + 1 + -(-cells // 3) if back else None
    return None


def _back(
    config: BreakerConfig,
    trip: Trip,
    cells: int,
    counts: tuple[int, int, int],
    totals: npt.NDArray[np.int64],
) -> bool | None:
    """Whether a stretch is healthy; None = it holds too little to say. `counts`: impressions of all
    scopes, those of the trip's and its clicks."""
    every, impressions, clicks = counts
    if trip.rule == COMPONENT_MISSING:
        there = every >= config.expected_min
        return impressions <= MISSING_AGAIN * trip.base * every if there else None
    raw, bad_clicks, bad_impressions = (int(total) for total in totals)
    if trip.rule in _VOLUME:
        return impressions >= VOLUME_BACK * config.volume_floor * trip.base * cells
    if trip.rule in (UNREADABLE_CLICKS, UNREADABLE_IMPRESSIONS):
        bad, good = (
            (bad_clicks, raw) if trip.rule == UNREADABLE_CLICKS else (bad_impressions, impressions)
        )
        limit = trip.base + READABLE_AGAIN * config.unreadable_max
        return bad <= limit * (good + bad) if good + bad >= config.expected_min else None
    expected = trip.base * impressions
    if expected < config.expected_min:
        return None
    if trip.rule == ORPHAN_CLICKS:
        return raw <= 2.0 * expected
    return (
        clicks >= config.recovered_share * expected
        if trip.rule in _LOW
        else clicks <= 2.0 * expected
    )


def _lengths(config: BreakerConfig, bands: Bands) -> list[int]:
    """Every length up to 8 cells, then each a quarter longer than the one before, up to the
    longest."""
    known = 0 if bands.first is None else bands.last - bands.first + 1
    lengths, k = [], 1
    while k < config.cells_max:
        lengths.append(k)
        k = max(k + 1, k * 5 // 4)
    return [k for k in (*lengths, config.cells_max) if k <= known]


def _click_shares(
    config: BreakerConfig, bands: Bands, shares: Shares, usual: Usual, seen: HealthyCounts
) -> list[Trip]:
    """Slices and everything whose impressions find fewer clicks than their band, or more."""
    armed = (shares.clicks >= config.history_clicks_min) & (
        shares.cells >= config.history_cells_min
    )
    armed &= seen.people >= config.people_min
    expected = seen.impressions * shares.low
    share_now = seen.clicks[0] / expected[0] if armed[0] and expected[0] > 0 else 1.0
    # A slice is held against what happens to all: a sale day that makes everyone click less is no
    # slice's outage.
    scale = np.full(len(expected), min(1.0, max(config.share_floor, share_now)))
    scale[0] = 1.0
    expected = expected * scale
    most = seen.impressions * shares.high
    low = armed & (expected >= config.expected_min) & (seen.clicks <= config.share_floor * expected)
    high = armed & (most >= config.expected_min) & (seen.clicks >= config.share_ceiling * most)
    out = []
    for at in np.flatnonzero(low | high).tolist():
        mean = float(expected[at] if low[at] else most[at])
        tail = lower_tail if low[at] else upper_tail
        chance = tail(int(seen.clicks[at]), mean, _spread(config.spread, shares, seen, at))
        if chance <= config.surprise:
            found = _Deviation(at, mean, chance, bool(low[at]))
            out.append(_share_trip(config, bands, shares, usual, seen, found))
    return out


class _Deviation(NamedTuple):
    """Clicks of one scope that do not fit its band."""

    at: int  # which of the scopes
    mean: float  # clicks that were expected at that end of the band
    chance: float  # of as few, or as many, by themselves
    low: bool  # fewer than expected; else more


def _spread(spread: float, shares: Shares, seen: HealthyCounts, at: int) -> float:
    """The relative deviation of a stretch's clicks: how much hours differ, and how much so many
    people do."""
    people = max(1.0, float(seen.people[at]))
    return sqrt(spread**2 + float(shares.tau[at]) ** 2 / people)


def _share_trip(
    config: BreakerConfig,
    bands: Bands,
    shares: Shares,
    usual: Usual,
    seen: HealthyCounts,
    found: _Deviation,
) -> Trip:
    at, mean, chance, low = found
    scope, clicks, impressions = bands.scopes[at], int(seen.clicks[at]), int(seen.impressions[at])
    raw = int(seen.totals[0])
    usual_raw = usual.raw * int(seen.impressions[0])
    if not low:
        rule, what = CLICK_SURGE, "far more clicks than usual"
    elif at:
        rule, what = CLICK_SHARE, "its impressions find no clicks any more, while others' do"
    elif raw < config.recovered_share * usual_raw:
        rule, what = CLICK_OUTAGE, "clicks have stopped coming"
    else:
        rule, what = (
            JOIN_EMPTY,
            "clicks come as usual, but name no impression: has an id's format changed?",
        )
    band = (float(shares.low[at]), float(shares.high[at]))
    reason = (
        f"{what}: {clicks:,} of {impressions:,} impressions were clicked within {seen.cells} "
        f"cells where {mean:,.0f}"
        f" were expected; band {band[0]:.4f} to {band[1]:.4f}"
    )
    evidence = {
        "clicks": float(clicks),
        "impressions": float(impressions),
        "expected": mean,
        "chance": chance,
    }
    evidence |= {"band_low": band[0], "band_high": band[1], "cells": float(seen.cells)}
    evidence |= {"raw_clicks": float(raw), "raw_clicks_expected": usual_raw}
    evidence |= {"people": round(float(seen.people[at]), 1)}
    first = bands.last - seen.cells + 1 - config.back_cells
    return Trip(
        scope, rule, max(first, bands.first or 0), band[0] if low else band[1], reason, evidence
    )


def _volumes(
    config: BreakerConfig, bands: Bands, shares: Shares, seen: HealthyCounts
) -> list[Trip]:
    """Scopes whose impressions are hardly there, held against the same hours of the days before."""
    if seen.cells not in (
        config.recovered_cells,
        max(config.recovered_cells, config.cells_max // 3),
        config.cells_max,
    ):
        return []
    lowest = bands.volumes(seen.cells) * seen.healthy / seen.cells
    share_now = seen.impressions[0] / lowest[0] if lowest[0] > 0 else 1.0
    expected = lowest * min(1.0, share_now)
    expected[0] = lowest[0]
    people = expected / np.maximum(
        shares.each, 1.0
    )  # who come one by one, each with impressions of their own
    gone = (expected >= config.expected_min) & (seen.impressions <= config.volume_floor * expected)
    gone &= people >= config.people_min
    out = []
    for at in np.flatnonzero(gone).tolist():
        count, mean = int(seen.impressions[at]), float(expected[at])
        chance = lower_tail(count, mean, sqrt(config.volume_spread**2 + 1.0 / float(people[at])))
        if chance <= config.surprise:
            reason = (
                f"{count:,} impressions within {seen.cells} cells where the same hours "
                f"before had {mean:,.0f}"
            )
            evidence = {
                "impressions": float(count),
                "expected": mean,
                "chance": chance,
                "cells": float(seen.cells),
            }
            evidence |= {"band_low": config.volume_floor * mean}
            rule = SLICE_VANISHED if at else IMPRESSION_OUTAGE
            first = bands.last - seen.cells + 1
            out.append(Trip(bands.scopes[at], rule, first, bands.mean_volume(at), reason, evidence))
    return out


def _missing(config: BreakerConfig, bands: Bands, seen: HealthyCounts) -> list[Trip]:
    """Components that too many impressions lack: those are withheld, whose rows would teach what
    holds for nobody once the service is back."""
    out = []
    every, first = int(seen.impressions[0]), bands.last - seen.cells + 1
    if every < config.expected_min or seen.people[0] < config.people_min:
        return []
    for name, most in config.missing.items():
        at = bands.index.get((name, ""))
        count = 0 if at is None else int(seen.impressions[at])
        if count > most * every:
            reason = (
                f"{count:,} of {every:,} impressions within {seen.cells} cells have no {name} "
                f"({count / every:.0%}; allowed {most:.0%}): ask who answers for it"
            )
            evidence = {"missing": float(count), "impressions": float(every), "allowed": most}
            out.append(Trip((name, ""), COMPONENT_MISSING, first, most, reason, evidence))
    return out


def _totals(
    config: BreakerConfig, bands: Bands, shares: Shares, usual: Usual, seen: HealthyCounts
) -> list[Trip]:
    """What only the whole shows: clicks without impressions, and records that cannot be read."""
    if shares.clicks[0] < config.history_clicks_min or shares.cells[0] < config.history_cells_min:
        return []
    raw, bad_clicks, bad_impressions = (int(total) for total in seen.totals)
    impressions = int(seen.impressions[0])
    out = []
    first = max(bands.first or 0, bands.last - seen.cells + 1 - config.back_cells)
    mean = _clicks_explained(config, bands, usual, seen.cells)
    enough = mean >= config.expected_min and seen.people[0] >= config.people_min
    if enough and raw >= config.share_ceiling * mean:
        chance = upper_tail(raw, mean, _spread(config.spread, shares, seen, 0))
        if chance <= config.surprise:
            reason = (
                f"{raw:,} clicks came where the impressions up to then give {mean:,.0f}: "
                f"impressions are missing"
            )
            evidence = {"raw_clicks": float(raw), "expected": mean, "chance": chance}
            since = max(bands.first or 0, bands.last - seen.cells + 1 - config.early_cells)
            out.append(Trip(EVERYTHING, ORPHAN_CLICKS, since, usual.raw, reason, evidence))
    kinds = (
        (UNREADABLE_CLICKS, "clicks", bad_clicks, raw, usual.bad_clicks),
        (
            UNREADABLE_IMPRESSIONS,
            "impressions",
            bad_impressions,
            impressions,
            usual.bad_impressions,
        ),
    )
    for rule, what, bad, good, share in kinds:
        if bad >= config.expected_min and bad > (share + config.unreadable_max) * (good + bad):
            reason = (
                f"{bad:,} of {good + bad:,} {what} cannot be read, {share:.1%} is usual: see "
                f"quarantine"
            )
            evidence = {"unreadable": float(bad), "readable": float(good), "usual": share}
            out.append(Trip(EVERYTHING, rule, first, share, reason, evidence))
    return out


def _clicks_explained(config: BreakerConfig, bands: Bands, usual: Usual, cells: int) -> float:
    """How many clicks the impressions explain that those of the last `cells` cells may belong to.
    Clicks outlive their impressions: of a site that stops they still come, early ones for the early
    join's window, late ones for as long as any click counts; so each kind is held against the most
    impressions of a stretch within its reach."""
    early = (1.0 - usual.late) * bands.most_before(cells, config.early_cells)
    late = usual.late * bands.most_before(cells, config.early_cells + config.late_cells)
    return usual.raw * (early + late)


def _explained(
    config: BreakerConfig,
    bands: Bands,
    shares: Shares,
    seen: HealthyCounts,
    found: Mapping[Scope, Trip],
    trips: Mapping[Scope, Trip],
) -> bool:
    """Whether everything is within its band again without the largest slice that left its own: then
    the slice alone is withheld."""
    if found[EVERYTHING].rule not in _LOW:
        return False
    slices = [
        bands.index[scope]
        for scope in (*found, *trips)
        if scope != EVERYTHING and scope in bands.index
    ]
    if not slices:
        return False
    expected = seen.impressions * shares.low
    largest = max(slices, key=lambda at: float(expected[at]))
    # Of the slice all counts, healthy or not: they are in those of everything.
    impressions, clicks, _ = bands.sums(seen.cells)
    rest = float(expected[0]) - float(impressions[largest] * shares.low[largest])
    return rest > 0 and int(seen.clicks[0]) - int(clicks[largest]) > config.share_floor * rest
