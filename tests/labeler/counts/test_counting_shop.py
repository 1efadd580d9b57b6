"""Labels, counters and sequences of a shop over the log in memory: what was learned equals a
recount."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_shop import (
    EXAMPLES,
    IMPRESSIONS,
    LABELER,
    STREAM,
    ZERO,
    Clock,
    beat,
    fill,
    memory_log,
)

from labeler.counts.runner import Adding
from labeler.labels import Labelling
from labeler.process.metrics import LabelerMetrics
from stream import LABEL, kind_of
from stream.columns import Feature
from stream.internal_topics import BatchHeader, decode_examples

COUNTING = replace(
    STREAM,
    declared={
        "rate": Feature(kind="counter", of="source", half_life_ms=0, prior_shows=4.0),
        "shows": Feature(kind="counter", of="source", half_life_ms=0, gives="shows"),
        "clicked": Feature(kind="sequence", by="item", of="source", max_values=3),
    },
    counts_bucket_ms=100,
    counts_slices=3,
)


def rows_of(log):
    rows = []
    for record in log.records(EXAMPLES):
        if record.value and kind_of(BatchHeader.from_headers(record.headers).chain) == LABEL:
            rows += decode_examples(record.value).to_pylist()
    return rows


def run(log, clock, turns):
    """A labeler's process, which is killed after so many turns; whether it waited for counters."""
    labelling, adding = Labelling(COUNTING, LABELER, log), Adding(COUNTING, log, 10)
    metrics, waited = LabelerMetrics(), False
    labelling.own([0])
    adding.own(True)
    for _ in range(turns):
        labelling.run_once(clock(), 0)
        adding.run_once(clock(), 0)
        waited |= labelling.waiting == "counts"
        metrics.waits_for(labelling.waiting)
    return waited


@pytest.mark.parametrize("turns", [400, 7])
def test_what_is_joined_equals_a_recount_however_often_it_is_killed(turns: int):
    clock = Clock()
    log = memory_log(COUNTING, clock)
    fill(log, seconds=6)
    waited = [run(log, clock, turns) for _ in range(400 // turns)]
    rows = rows_of(log)
    assert len(rows) == 60
    assert any(waited)
    assert check_joined(rows) > 30


def check_joined(rows) -> int:
    """Every row is given what a recount says; how many were given something."""
    wait_ms, given = COUNTING.wait_ms, 0
    for row in rows[1:]:
        until = (row["arrival_ms"] - wait_ms) // 100 * 100
        known = [r for r in rows if r["source"] == row["source"] and r["arrival_ms"] < until]
        clicks = sum(r["label"] for r in known)
        assert row["f_shows"] == len(known)
        assert row["f_rate"] == pytest.approx((clicks + 1.0) / (len(known) + 4.0))
        given += len(known) > 0
        before = [r for r in rows if r["label"] and r["arrival_ms"] < until]
        clicked = sorted((-r["ts_ms"] - r["click_delay_ms"], r["source"]) for r in before)
        assert row["f_clicked"] == [source for _, source in clicked[:3]]
    return given


@settings(max_examples=settings.default.max_examples // 5, deadline=None)
@given(
    st.lists(st.integers(1, 8_000), min_size=1, max_size=4),
    st.sampled_from([400, 20]),
    st.booleans(),
)
def test_labels_go_on_behind_a_silence_however_long(
    silences_ms: list[int], turns: int, beats: bool
):
    """Nothing arrives for longer than labels wait, not even a heartbeat: what comes next needs
    counters that no label closes but its own (J4b)."""
    clock, rng = Clock(), random.Random(sum(silences_ms))
    log = memory_log(COUNTING, clock)
    beat(log, ZERO)
    now, shown = ZERO, 0
    for silence_ms in silences_ms:
        now += silence_ms
        if beats:
            beat(log, now)
        for _ in range(rng.randrange(1, 12)):
            now, shown = now + rng.randrange(1, 150), shown + 1
            view = {"id": str(shown), "ts_ms": now, "session": "s", "source": f"u{shown % 2}"}
            view |= {"vendor": "v", "item": "i"}
            log.append(IMPRESSIONS, json.dumps(view).encode(), b"s", (), now)
    for more in range(100, 3_000, 100):
        beat(log, now + more)
    for _ in range(400 // turns):
        run(log, clock, turns)
    rows = rows_of(log)
    assert len({row["position"] for row in rows}) == shown
    check_joined(list({row["position"]: row for row in rows}.values()))
