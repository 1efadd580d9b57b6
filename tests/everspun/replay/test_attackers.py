"""Simulated honest people are heavy-tailed, and attackers of each kind do what their name says."""

from dataclasses import replace

import numpy as np
import pytest

from everspun.replay.attackers import ATTACKS, Staged, stage
from everspun.replay.history import History
from everspun.replay.traffic import DAY_MS, TrafficConfig, simulate

HOUR_MS = 3_600_000
SHOP = TrafficConfig(
    impressions=60_000,
    users=6_000,
    items=800,
    vendors=80,
    days=3,
    zipf=0.75,
    session_views=4,
    focus=0.15,
    shared=0.2,
    sale_day=1,
    attacks=False,
    seed=4,
)


@pytest.fixture(scope="module")
def shop() -> History:
    return simulate(SHOP).history


@pytest.fixture(scope="module")
def staged(shop: History) -> Staged:
    return stage(shop, 5)


def busiest_hours(history: History) -> dict[str, int]:
    """Source -> events (views and clicks) of its busiest hour."""
    sources, who = np.unique(np.array(history.sources), return_inverse=True)
    hour = np.concatenate([history.ts_ms, history.click_ts_ms]) // HOUR_MS
    key, events = np.unique(
        np.concatenate([who, who[history.click_impression]]) * 10_000_000 + hour, return_counts=True
    )
    most = np.zeros(len(sources), np.int64)
    np.maximum.at(most, key // 10_000_000, events)
    return dict(zip(sources.tolist(), most.tolist(), strict=True))


def test_some_honest_people_are_busy_and_some_share_an_address(shop: History):
    most = np.array(list(busiest_hours(shop).values()))
    assert (most > 20).mean() >= 0.02
    addresses = [source for source in shop.sources if source.startswith("address-")]
    assert 0.05 < len(addresses) / len(shop) < 0.5
    assert (np.diff(shop.ts_ms) >= 0).all()


def test_a_sale_day_has_five_times_the_traffic(shop: History):
    days = np.bincount((shop.ts_ms - SHOP.start_ms) // DAY_MS, minlength=3)
    assert 4 < days[1] / ((days[0] + days[2:].sum()) / 2) < 6


def test_focused_visits_see_one_vendor():
    every = simulate(replace(SHOP, focus=1.0, impressions=5_000, sale_day=-1)).history
    vendors: dict[str, set[str]] = {}
    for session, vendor in zip(every.sessions, every.vendors, strict=True):
        vendors.setdefault(session, set()).add(vendor)
    assert np.mean([len(seen) == 1 for seen in vendors.values()]) > 0.5


def test_attacks_are_a_function_of_the_seed_and_leave_the_honest_alone(
    shop: History, staged: Staged
):
    again, other = stage(shop, 5), stage(shop, 6)
    assert again.attacks == staged.attacks != other.attacks
    assert {
        one.kind: sum(a.kind == one.kind for a in staged.attacks) for one in staged.attacks
    } == ATTACKS
    honest = np.flatnonzero(staged.attack < 0)
    assert [staged.history.ids[i] for i in honest] == shop.ids
    assert ((staged.attack >= 0) == staged.history.planted).all()


def test_attackers_do_what_their_name_says(shop: History, staged: Staged):
    history = staged.history
    clicked = np.zeros(len(history), np.bool_)
    clicked[history.click_impression] = True
    for number, attack in enumerate(staged.attacks):
        mine = np.flatnonzero(staged.attack == number)
        sources = {history.sources[i] for i in mine}
        if attack.kind == "duplicate_flood":
            assert sources <= set(shop.sources)
            assert {history.ids[i] for i in mine} <= set(shop.ids)
            continue
        on_vendor = np.array([history.vendors[i] == attack.vendor for i in mine])
        assert len(sources) == attack.sources
        assert not sources & set(shop.sources)
        assert on_vendor.mean() > (0.1 if attack.kind == "burst" else 0.7)
        if attack.kind == "view_flood":
            assert not clicked[mine].any()
        else:
            assert clicked[mine][on_vendor].mean() > 0.7
        if attack.kind == "burst":
            at = np.sort(history.ts_ms[mine])
            assert np.median(np.diff(at)) < 700
        if attack.kind == "slow_drip":
            assert len(mine) / attack.hours < 20
