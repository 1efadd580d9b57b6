"""Histories, planted attacks, and the plan of a replay."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from everspun.config import ReplayConfig
from everspun.replay import attacks
from everspun.replay.history import SESSION_GAP_MS, History, sessions_of
from everspun.replay.plan import PlannedAnswers, ReplayPlan
from everspun.replay.traffic import TrafficConfig, simulate
from stream import StreamConfig
from stream.columns import NO_POSITION
from stream.hashing import Pseudonymiser

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture(scope="module")
def history() -> History:
    return simulate(
        TrafficConfig(impressions=3_000, users=50, items=100, vendors=10, days=20, attacks=False)
    ).history


@pytest.fixture
def plan(history: History) -> ReplayPlan:
    stream = StreamConfig(
        replayed=True,
        heartbeat_ms=6 * HOUR_MS,
        jump_max_ms=12 * HOUR_MS,
        signal_ms=HOUR_MS,
        flush_ms=HOUR_MS,
    )
    return ReplayPlan(
        history,
        stream,
        ReplayConfig(barrier_ms=7 * DAY_MS),
        Pseudonymiser(1, b"sixteen bytes or more"),
    )


def test_sessions_are_cut_at_gaps():
    ts = np.array([0, 10, 20, 20 + SESSION_GAP_MS + 1, 30 + SESSION_GAP_MS + 1], dtype=np.int64)
    assert sessions_of(["a", "b", "a", "a", "b"], ts) == ["a-0", "b-0", "a-0", "a-1", "b-1"]


def test_attacks_are_planted_apart(history: History):
    planted = attacks.plant(history, seed=3)
    assert planted.planted.sum() == attacks.SELF_CLICKS + attacks.FLOOD_VIEWS
    assert (np.diff(planted.ts_ms) >= 0).all()
    assert (np.diff(planted.click_ts_ms) >= 0).all()
    honest = np.flatnonzero(~planted.planted)
    assert [planted.ids[i] for i in honest] == history.ids
    clicked = {planted.ids[i] for i in planted.click_impression.tolist()}
    assert {history.ids[i] for i in history.click_impression.tolist()} == {
        c for c in clicked if "attack" not in c
    }
    mine = np.flatnonzero(planted.planted)
    clicks = [i for i in mine if planted.ids[i].startswith("attack-click")]
    assert len(clicks) == attacks.SELF_CLICKS
    assert len({planted.sources[i] for i in clicks}) == 1
    assert len({planted.vendors[i] for i in clicks}) == 1
    assert planted.ts_ms[clicks[-1]] - planted.ts_ms[clicks[0]] <= HOUR_MS
    views = [i for i in mine if planted.ids[i].startswith("attack-view")]
    assert len({planted.sources[i] for i in views}) == attacks.FLOOD_SOURCES
    assert not {planted.ids[i] for i in views} & clicked


def test_periods_tile_the_history(plan: ReplayPlan, history: History):
    periods = list(plan.periods())
    assert periods[0].first == 0
    assert periods[-1].last == len(history)
    assert [p.number for p in periods] == list(range(1, len(periods) + 1))
    for one, following in pairwise(periods):
        assert (one.end_ms, one.last, one.last_click) == (
            following.start_ms,
            following.first,
            following.first_click,
        )
    assert all(p.end_ms % (7 * DAY_MS) == 0 for p in periods)
    assert periods[-1].last_click == len(history.click_ts_ms)
    assert periods[-1].end_ms >= plan.quiet_ms


def test_lines_stand_in_order_of_arrival_and_lose_nothing(plan: ReplayPlan, history: History):
    ids: list[str] = []
    clicks = 0
    for period in plan.periods():
        answers = PlannedAnswers([0.25] * (period.last - period.first), "v1")
        lines = list(plan.lines(period, answers))
        stamps = [line.arrival_ms for line in lines]
        assert stamps == sorted(stamps)
        assert all(period.start_ms <= s < period.end_ms for s in stamps)
        for line in lines:
            if line.kind == "impression":
                body = json.loads(line.value or b"")
                assert line.key == body["session"].encode()
                assert line.rows == len(body["impressions"])
                assert {i["prediction"] for i in body["impressions"]} == {0.25}
                ids += [i["id"] for i in body["impressions"]]
            clicks += line.kind == "click"
    assert ids == history.ids
    assert clicks == len(history.click_ts_ms)


def test_no_identifier_of_a_person_is_written(plan: ReplayPlan):
    period = next(plan.periods())
    for line in plan.lines(period, None):
        assert b"user-" not in (line.value or b"")
        assert b"user-" not in (line.key or b"")


def test_a_limit_keeps_the_clicks_of_what_it_keeps(history: History):
    plan = ReplayPlan(
        history,
        StreamConfig(),
        ReplayConfig(barrier_ms=0, predict=False, limit=500),
        Pseudonymiser(1, b"sixteen bytes or more"),
    )
    (period,) = plan.periods()
    assert (period.first, period.last) == (0, 500)
    assert period.last_click == int((history.click_impression < 500).sum())


def test_a_barrier_must_be_a_multiple_of_the_buckets(history: History):
    with pytest.raises(ValueError, match="barrier_ms"):
        ReplayPlan(
            history,
            StreamConfig(signal_ms=HOUR_MS + 1),
            ReplayConfig(),
            Pseudonymiser(1, b"sixteen bytes or more"),
        )


def test_simulated_traffic_is_a_function_of_its_config():
    config = TrafficConfig(
        impressions=2_000, users=20, items=50, vendors=5, attacks=False, click_rate=0.1
    )
    one, other = simulate(config), simulate(config)
    assert one.history.ids == other.history.ids
    assert (one.history.click_ts_ms == other.history.click_ts_ms).all()
    assert abs(one.click_probability.mean() - 0.1) < 1e-6
    assert (simulate(replace(config, seed=2)).history.ts_ms != one.history.ts_ms).any()


def test_a_position_that_the_history_does_not_say_is_missing_and_not_the_first(
    plan: ReplayPlan, history: History
):
    """So training reads what serving reads of a request without one."""
    assert set(history.shown_at) == {NO_POSITION}
    said = {id: n for n, id in enumerate(history.ids) if n % 3}
    plan.history = replace(
        history,
        shown_at=[said.get(id, NO_POSITION) for id in history.ids],
        features=[{} for _ in history.ids],
    )
    rows = [
        row
        for period in plan.periods()
        for line in plan.lines(period, None)
        if line.kind == "impression"
        for row in json.loads(line.value or b"")["impressions"]
    ]
    assert {row["id"]: row["position"] for row in rows if "position" in row} == said
