"""The strategies: what a first and a later reading say, against an oracle that knows every
click."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labeler_oracle import Plan, expected
from test_partition import (
    CONFIG,
    INPUTS,
    SEEDS,
    Run,
    check,
    click,
    described,
    events,
    heartbeat,
    impression,
    logs_of,
)

from labeler.join.strategy import Share, kept_negatives, label_strategies
from stream.hashing import hash_pair

#: Half lives beyond any log here, so that the oracle's sums of clicks need no decay.
LONG = replace(CONFIG, late_share_half_life_ms=10**15)
EAGER = replace(LONG, label_strategy="eager")
CORRECT = replace(LONG, label_strategy="window+correct", late_window_ms=45)
RELEASE = replace(LONG, release_ms=45)


def plans(config):
    if config.label_strategy == "eager":
        first, second = Plan(-1, 0), (config.window_ms, config.wait_ms)
    elif config.release_ms:
        first, second = (
            Plan(config.window_ms, config.wait_ms),
            (config.window_ms, config.release_ms + 5),
        )
        return first, Plan(*second, first, config.wait_ms)
    else:
        first, second = (
            Plan(config.window_ms, config.wait_ms),
            (config.late_window_ms, config.late_window_ms + 5),
        )
    return first, Plan(*second, first)


def is_kept(rate):
    """The rule of `kept_negatives` in Python's integers."""

    def kept(row):
        import pyarrow as pa

        id = int(hash_pair(pa.array(["s"]), pa.array([row.id]))[0])
        mixed = (id ^ id >> 31) * 0x9E3779B97F4A7C15 % 2**64
        return (mixed >> 11) / 2**53 < rate

    return kept


@settings(max_examples=settings.default.max_examples // 4)
@given(
    SEEDS,
    st.booleans(),
    st.sampled_from((EAGER, CORRECT, RELEASE)),
    st.sampled_from((1.0, 0.5)),
    st.integers(0, 1),
)
def test_each_reading_says_what_the_rules_say(seed, fraud, config, rate, which):
    config = replace(config, negative_rate=rate)
    logs = logs_of(seed, fraud)
    out = Run(
        *logs, random.Random(seed), config=config, strategy=label_strategies(config)[which]
    ).finish()
    check(out, expected(*logs, config, INPUTS, plans(config)[which], is_kept(rate)))


@settings(max_examples=settings.default.max_examples // 10)
@given(SEEDS, st.booleans(), st.sampled_from((0.1, 1.0)), st.sampled_from((1, 6, 100)))
def test_polls_and_restarts_change_no_byte_of_a_later_reading(seed, fraud, crash, poll_max):
    config = replace(CORRECT, negative_rate=0.5, late_share_half_life_ms=40)
    logs, late = logs_of(seed, fraud), label_strategies(config)[1]
    straight = Run(*logs, random.Random(1), poll_max=1000, config=config, strategy=late).finish()
    broken = Run(*logs, random.Random(seed), crash, poll_max, config=config, strategy=late).finish()
    assert broken == straight


@pytest.mark.long
@pytest.mark.parametrize("config", [EAGER, CORRECT, RELEASE])
def test_random_logs_hold_late_clicks_and_releases(config):
    late = on_time = negatives = 0
    for seed in range(60):
        out = Run(
            *logs_of(seed, True),
            random.Random(seed),
            config=config,
            strategy=label_strategies(config)[1],
        ).finish()
        if out:
            late += out[-1].header.late_micro
            on_time += out[-1].header.on_time_micro
        negatives += sum(e.header.labelled - e.header.positives for e in out)
    assert (late > 0) == (config is not RELEASE)
    assert (on_time > 0) == (config is not EAGER)
    assert negatives > 0, "released impressions are labelled whether clicked or not"


def test_the_two_readings_together_are_the_labels_of_a_long_window():
    """Without verdicts: every click that counts within the late window is one positive, first or
    late."""
    config = replace(CORRECT, batch_rows_max=100)
    t = 1_600_000_000_000
    shown = [events(0, t, [impression(str(i), t) for i in range(4)])]
    clicks = [
        events(0, t + 10, click("0", t + 10)),
        events(1, t + 40, [click("1", t + 40), click("0", t + 40)]),
    ]
    beats = [heartbeat(n, t + at, t + at) for n, at in enumerate((60, 66, 90), 2)]
    said = {}
    for strategy in label_strategies(config):
        logs = (
            [*shown, *[b._replace(offset=b.offset - 1) for b in beats]],
            [*clicks, *beats],
            None,
        )
        out = Run(*logs, random.Random(1), config=config, strategy=strategy).finish()
        said[strategy.kind] = [row for e in out for row in described(e)[1]]
    assert [(at & 3, label, delay) for at, label, delay in said["label"]] == [
        (0, 1, 10),
        (1, 0, -1),
        (2, 0, -1),
        (3, 0, -1),
    ]
    assert [(at & 3, label, delay) for at, label, delay in said["late"]] == [(1, 1, 40)]


def test_negatives_are_kept_at_their_rate_by_id_alone():
    ids = np.random.default_rng(1).integers(0, 2**64, 200_000, dtype=np.uint64)
    for rate in (0.01, 0.25, 1.0):
        kept = kept_negatives(ids, rate)
        assert kept.mean() == pytest.approx(rate, rel=0.05)
        assert (kept_negatives(ids[::-1].copy(), rate) == kept[::-1]).all()
    assert not (kept_negatives(ids, 0.01) & ~kept_negatives(ids, 0.25)).any(), (
        "a higher rate keeps the same and more"
    )


def test_a_share_forgets_by_half_lives_and_in_whole_numbers():
    share = Share().add(3, 7, 0, 1_000)
    assert share == Share(3_000_000, 7_000_000)
    assert share.add(1, 0, 1_000, 1_000) == Share(2_500_000, 3_500_000)
    assert share.add(0, 0, 10**9, 1_000) == Share(0, 0)
