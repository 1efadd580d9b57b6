"""Labels, counters and sequences of a shop over the log in memory: what was learned equals a
recount."""

from dataclasses import replace

import pytest
from labelled_shop import EXAMPLES, LABELER, STREAM, Clock, fill, memory_log

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
    assert given > 30
