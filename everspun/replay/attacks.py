"""Attacks planted into a history: one of each direction, with ground truth kept apart from what
the pipeline sees."""

from dataclasses import replace

import numpy as np

from everspun.replay.history import History
from stream.columns import NO_POSITION

HOUR_MS = 3_600_000

SELF_CLICKS = 200
FLOOD_VIEWS = 2_000
FLOOD_SOURCES = 5


def plant(history: History, seed: int) -> History:
    """Add 200 views with clicks by one source on one vendor within an hour (a vendor promoting
    itself), and 2,000 views of one vendor's items by 5 sources within an hour without a click (a
    rival burying it). Times, vendors and items are drawn from the history with `seed`. In a history
    of less than four hours an attack lasts a fifth of it."""
    rng = np.random.default_rng(seed)
    begin, end = int(history.ts_ms[0]), int(history.ts_ms[-1])
    lasts_ms = HOUR_MS if end - begin > 4 * HOUR_MS else max(1, (end - begin) // 5)
    first, last = begin + lasts_ms, end - 3 * lasts_ms
    span = (first, last) if first < last else (begin, begin + 1)
    popular = _vendors_by_size(history)
    loved, buried = popular[len(popular) // 3], popular[min(1, len(popular) - 1)]
    attack = [*_self_clicks(history, loved, int(rng.integers(*span)), lasts_ms, rng)]
    attack += _view_flood(history, buried, int(rng.integers(*span)), lasts_ms, rng)
    return merge(history, attack)


#: (ts_ms, id, session, source, vendor, item, click ts or -1)
Planted = tuple[int, str, str, str, str, str, int]


def _self_clicks(
    history: History, vendor: str, start: int, lasts_ms: int, rng: np.random.Generator
) -> list[Planted]:
    items = sorted({i for i, v in zip(history.items, history.vendors, strict=True) if v == vendor})
    times = np.sort(rng.integers(0, lasts_ms - min(120_000, lasts_ms // 2), SELF_CLICKS)) + start
    return [
        (
            int(t),
            f"attack-click-{n}",
            "s-attack-0",
            "attacker-0",
            vendor,
            items[n % len(items)],
            int(t) + 3_000,
        )
        for n, t in enumerate(times)
    ]


def _view_flood(
    history: History, vendor: str, start: int, lasts_ms: int, rng: np.random.Generator
) -> list[Planted]:
    items = sorted({i for i, v in zip(history.items, history.vendors, strict=True) if v == vendor})
    times = np.sort(rng.integers(0, lasts_ms, FLOOD_VIEWS)) + start
    planted = []
    for n, t in enumerate(times):
        who = 1 + n % FLOOD_SOURCES
        item = items[int(rng.integers(len(items)))]
        planted.append(
            (int(t), f"attack-view-{n}", f"s-attack-{who}", f"attacker-{who}", vendor, item, -1)
        )
    return planted


def _vendors_by_size(history: History) -> list[str]:
    names, counts = np.unique(np.array(history.vendors), return_counts=True)
    return [str(names[i]) for i in np.argsort(-counts, kind="stable")]


def merge(history: History, attack: list[Planted]) -> History:
    """The history with the attack's impressions and clicks in their places of time."""
    ts = np.concatenate([history.ts_ms, np.array([a[0] for a in attack], dtype=np.int64)])
    order = np.argsort(ts, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))

    def mixed(mine: list[str], theirs: list[str]) -> list[str]:
        both = mine + theirs
        return [both[i] for i in order]

    base = len(history)
    new_clicks = [(base + n, a[6]) for n, a in enumerate(attack) if a[6] >= 0]
    click_at = np.concatenate(
        [history.click_impression, np.array([c[0] for c in new_clicks], dtype=np.int64)]
    )
    click_ts = np.concatenate(
        [history.click_ts_ms, np.array([c[1] for c in new_clicks], dtype=np.int64)]
    )
    click_order = np.argsort(click_ts, kind="stable")
    of_item = dict(zip(history.items, history.features, strict=False))
    features = [*history.features, *(of_item.get(a[5], {}) for a in attack)]
    features = features if history.features else []
    shown_at = [*history.shown_at, *(NO_POSITION for _ in attack)]
    return replace(
        history,
        ts_ms=ts[order],
        ids=mixed(history.ids, [a[1] for a in attack]),
        sessions=mixed(history.sessions, [a[2] for a in attack]),
        sources=mixed(history.sources, [a[3] for a in attack]),
        vendors=mixed(history.vendors, [a[4] for a in attack]),
        items=mixed(history.items, [a[5] for a in attack]),
        shown_at=[shown_at[i] for i in order],
        features=[features[i] for i in order] if features else [],
        click_impression=place[click_at][click_order],
        click_ts_ms=click_ts[click_order],
        planted=np.concatenate([history.planted, np.ones(len(attack), dtype=np.bool_)])[order],
    )
