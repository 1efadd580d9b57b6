"""Which visits of a source did what: so that whoever makes events up in an honest source's name, in
sessions of its own, has those sessions rejected and not the person (F3).

A source is a name that a site gives; a session is known to its visitor alone. A session is known
here by the 16 bits that its keyed hash leaves in the ids of its events
(`stream.hashing.keys.session_of`).

A session of a rejected source is *spared* where what it did is more likely the doing of people than
of the attack, by the likelihood ratio of its views and clicks on the vendor and elsewhere. Or where
it is a small part of what is rejected: then all such sessions together stay below what any rule
looks at, so an attacker gains by them what nobody forbids.
"""

from math import log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labeler.fraud.activity import Activity, Counted
from labeler.fraud_config import FraudConfig
from stream.kernels import F64, I64

#: What an attack's session is taken to do: click on so much of what it sees of the vendor (or on so
#: little, where views are the attack), and look elsewhere for so large a part.
ATTACK_CLICKS, FLOOD_CLICKS, ATTACK_ELSEWHERE = 0.95, 0.01, 0.1
#: Log of the likelihood ratio below which a session is spared; lower for rules to which few events
#: are enough. A score convicts windows in which next to nothing is seen: of an attack's visits, one
#: view without a click (about -1.7) must not be spared; of a person's, one click among four views
#: (-1.8 and less) must be.
SPARED_BELOW = {"botnet": -4.0, "slow_clicks": -1.75}
SPARED_BELOW_ELSE = -1.0
#: The same of its clicks alone, wherever else it looked: who views one vendor only, and clicks as
#: people do, is one of its visitors. Two views without a click come to -6, an attack's four views
#: with one click to -5.5.
CLICKS_SPARED_BELOW = -5.0
#: A session is a small part of what is rejected with so many events at most, and this share of
#: them.
SMALL_EVENTS, SMALL_SHARE = 12, 0.2
#: A session of which a smaller share of clicks comes fast is not that of a program.
SLOW_SHARE = 0.3
#: A verdict spares so many sessions at most: those that speak loudest for people.
SPARED_MAX = 64


class Visits(NamedTuple):
    """Sessions of one source in a window, (n,) each: on the vendor, and elsewhere."""

    session: I64
    views: I64
    clicks: I64
    elsewhere: I64  # views and clicks
    gaps_fast: I64  # clicks on the vendor right after another one


def spared(
    config: FraudConfig, rule: str, visits: Visits, click_rate: float, share: float
) -> tuple[int, ...]:
    """The sessions that a rule's word does not mean, rising. All of them: then there is nothing
    left to say."""
    if rule == "burst":  # speaks of nothing but how fast clicks come
        slow = (visits.clicks <= 2) | (visits.gaps_fast < SLOW_SHARE * visits.clicks)
        return tuple(np.sort(visits.session[slow][:SPARED_MAX]).tolist())
    is_flood = rule == "view_flood"
    clicked = FLOOD_CLICKS if is_flood else ATTACK_CLICKS
    ratio = _ratio(visits, clicked, click_rate, max(share, config.share_floor))
    like_people = ratio < SPARED_BELOW.get(rule, SPARED_BELOW_ELSE)
    if rule == "slow_clicks":  # what is rejected stands on other visits than those of this window
        like_people |= _click_ratio(visits, clicked, click_rate) < CLICKS_SPARED_BELOW
    if rule not in SPARED_BELOW:  # where few events are enough, a small part is none
        like_people |= _small(config, visits)
    loudest = np.flatnonzero(like_people)
    loudest = loudest[np.argsort(ratio[loudest], kind="stable")[:SPARED_MAX]]
    return tuple(np.sort(visits.session[loudest]).tolist())


def _ratio(visits: Visits, clicked: float, rate: float, share: float) -> F64:
    """The log of how much likelier each session is an attack's than a person's."""
    views, ratio = np.maximum(visits.views, visits.clicks), _click_ratio(visits, clicked, rate)
    there = log((1 - ATTACK_ELSEWHERE) / min(share, 0.9))
    away = log(ATTACK_ELSEWHERE / (1 - min(share, 0.9)))
    ratio += views * there + visits.elsewhere * away
    return ratio


def _click_ratio(visits: Visits, clicked: float, rate: float) -> F64:
    """The part of it that clicks have, among the views of the vendor."""
    rate = min(max(rate, 0.005), 0.9)
    views = np.maximum(visits.views, visits.clicks)
    ratio: F64 = visits.clicks * log(clicked / rate) + (views - visits.clicks) * log(
        (1 - clicked) / (1 - rate)
    )
    return ratio


def _small(config: FraudConfig, visits: Visits) -> npt.NDArray[np.bool_]:
    """Small parts of the whole, the smallest first, as long as together they are below what a
    rule looks at."""
    events = visits.views + visits.clicks
    order = np.argsort(events, kind="stable")
    small = (events[order] <= SMALL_EVENTS) & (
        np.cumsum(events[order]) <= SMALL_SHARE * events.sum()
    )
    small &= np.cumsum(visits.clicks[order]) < min(config.clicks_min, config.burst_clicks_min)
    small &= np.cumsum(visits.views[order]) < config.views_min
    out = np.zeros(len(events), np.bool_)
    out[order[small]] = True
    return out


def visits_of(activity: Activity, pairs: I64, first: int, last: int) -> dict[int, Visits]:
    """Of each of these pairs, the sessions of its source in these cells that saw or clicked on its
    vendor; a pair whose sessions are not known is left out."""
    numbers = activity.pairs
    suspects = np.unique(numbers.source_of(pairs))
    counted = activity.by_session(np.flatnonzero(np.isin(numbers.source, suspects)), first, last)
    source, of = numbers.source_of(counted.pair >> 16), counted.pair >> 16
    order = np.argsort(source, kind="stable")
    ordered = source[order]
    out = {}
    for pair, who in zip(pairs.tolist(), numbers.source_of(pairs).tolist(), strict=True):
        mine = order[np.searchsorted(ordered, who) : np.searchsorted(ordered, who, side="right")]
        if len(mine):
            found = _visits(Counted(*(column[mine] for column in counted)), of[mine] == pair)
            if len(found.session):
                out[pair] = found
    return out


def _visits(counted: Counted, here: npt.NDArray[np.bool_]) -> Visits:
    names, at = np.unique(counted.pair & 0xFFFF, return_inverse=True)

    def summed(column: I64, which: npt.NDArray[np.bool_]) -> I64:
        return np.bincount(at[which], weights=column[which], minlength=len(names)).astype(np.int64)

    views, clicks = summed(counted.views, here), summed(counted.clicks, here)
    elsewhere = summed(counted.views + counted.clicks, ~here)
    there = views + clicks > 0
    fast = summed(counted.gaps_fast, here)
    return Visits(names[there], views[there], clicks[there], elsewhere[there], fast[there])
