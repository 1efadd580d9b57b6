"""What is remembered of sources: days add up, fade, survive a crash anywhere, and have a limit."""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from fraud_site import (
    CLICKS,
    MINUTE,
    T0,
    VIEWS,
    Log,
    Site,
    covered,
    run_over_crashes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.fraud.filter import FraudFilter, run_step
from labeler.fraud.pair_index import Pairs, pair_keys
from labeler.fraud.scores import Scores
from labeler.fraud.tables import Tables, dict_tables
from labeler.fraud_config import FraudConfig

HOUR = 60 * MINUTE
CONFIG = FraudConfig(rate_prior=0.1, rate_prior_views=100)
HOURS = 10


def make(tables: Tables | None = None, config: FraudConfig = CONFIG) -> FraudFilter:
    return FraudFilter(config, [VIEWS], [CLICKS], tables or dict_tables())


def dripping(hours: int = HOURS, sources: int = 1) -> Site:
    """Each source clicks on all it sees of one vendor, four times an hour; somebody else looks
    around."""
    site = Site()
    for hour in range(hours):
        for quarter in range(4):
            at = T0 + hour * HOUR + quarter * 15 * MINUTE
            drips = [(f"drip{n}", "v1", 1) for n in range(sources)]
            site.bucket(VIEWS, at, [*drips, ("visitor", "v1", 5), ("visitor", "v2", 5)])
            site.bucket(CLICKS, at, [*drips, ("visitor", "v2", 1)])
    site.quiet(T0 + (hours + 2) * HOUR)
    return site


def judged(site: Site, config: FraudConfig = CONFIG) -> tuple[FraudFilter, Log]:
    one, log = make(config=config), Log()
    for record in site.log:
        run_step(one, [record], log)
    log.check()
    return one, log


def test_clicks_too_slow_for_any_window_add_up():
    one, log = judged(dripping())
    assert {(verdict.rule, verdict.source) for verdict in log.verdicts} == {
        ("slow_clicks", "drip0")
    }
    assert not covered(log.verdicts, "drip0", "v1", T0)
    assert all(
        covered(log.verdicts, "drip0", "v1", T0 + hour * HOUR) for hour in range(HOURS - 4, HOURS)
    )
    assert max(verdict.evidence["clicks"] for verdict in log.verdicts) == pytest.approx(
        4 * HOURS, abs=3
    )
    assert one.rows["scores"] <= 2  # and the visitor, perhaps
    assert judged(dripping(), FraudConfig(rules=("repeated_clicks", "botnet")))[1].verdicts == []


def test_what_is_long_ago_counts_for_nothing():
    config = FraudConfig(rate_prior=0.1, rate_prior_views=100, score_half_life_days=0.05)
    one, log = judged(dripping(), config)
    assert log.verdicts == []
    site = dripping(1)
    site.quiet(T0 + 1_000 * HOUR)
    site.bucket(VIEWS, T0 + 1_001 * HOUR, [("other", "v2", 1)])
    for hour in range(1_002, 1_006):
        site.bucket(VIEWS, T0 + hour * HOUR, [("other", "v2", 1)])
        site.quiet(T0 + hour * HOUR)
    one, log = judged(site)
    assert one.rows["scores"] == 0


def test_what_is_sent_again_each_hour_convicts_nobody():
    site = Site()
    site.ids = 1 << 40 | 1 << 3  # two impressions and their clicks, again and again
    for hour in range(HOURS):
        for quarter in range(4):
            at = T0 + hour * HOUR + quarter * 15 * MINUTE
            site.bucket(VIEWS, at, [("person", "v1", 1)])
            site.bucket(CLICKS, at, [("person", "v1", 1)])
    site.quiet(T0 + (HOURS + 2) * HOUR)
    one, log = judged(site)
    assert one.rows["scores"] == 1
    assert log.verdicts == []


def test_a_full_memory_forgets_those_with_the_fewest_clicks_and_says_so():
    one, log = judged(
        dripping(sources=9),
        FraudConfig(rate_prior=0.1, rate_prior_views=100, scores_max=4, rules=("slow_clicks",)),
    )
    assert one.rows["scores"] <= 4
    assert one.counts.scores_dropped > 0
    assert len({verdict.source for verdict in log.verdicts}) <= 4


@cache
def undisturbed() -> tuple[Site, Log]:
    site = dripping()
    return site, judged(site)[1]


@settings(max_examples=settings.default.max_examples // 10)
@given(
    crashes=st.lists(st.integers(1, 400), max_size=6),
    size=st.integers(1, 30),
    commit_every=st.integers(1, 9),
)
def test_crashes_anywhere_change_no_score(crashes: list[int], size: int, commit_every: int):
    site, plain = undisturbed()
    log = run_over_crashes(make, site, crashes, size, commit_every)
    scores = {verdict.id: verdict.evidence["score"] for verdict in plain.verdicts}
    assert {verdict.id: verdict.evidence["score"] for verdict in log.verdicts} == pytest.approx(
        scores
    )


def test_a_snapshot_is_that_of_its_commit():
    table: dict[str, object] = {}
    scores, pairs = Scores(CONFIG, table, 0, 99), Pairs()
    which = pairs.of(*columns("s", ["a", "b"]))
    scores.remember(pairs, which)
    scores.write()
    committed = scores.generation
    scores.remember(pairs, pairs.of(*columns("s", ["c"])))
    scores.write()  # and the process dies before its commit
    again = Scores(CONFIG, table, committed, 99)
    assert len(again) == 2
    assert again.places(pairs, which).tolist() == [0, 1]
    again.remember(pairs, pairs.of(*columns("s", ["d"])))
    again.write()
    assert len(Scores(CONFIG, table, again.generation, 99)) == 3
    assert {key.split("/")[0] for key in table} == {str(committed), str(again.generation)}


def columns(source: str, vendors: list[str]) -> tuple[pa.Array, pa.Array]:
    return pa.array([source] * len(vendors)), pa.array(vendors)


def test_keys_of_pairs_do_not_depend_on_their_numbers():
    pairs = Pairs()
    pairs.of(*columns("s", ["x", "y", "z"]))
    which = pairs.of(*columns("t", ["y", "x"]))
    assert np.array_equal(pairs.keys(which), pair_keys(*columns("t", ["y", "x"]), 0))
