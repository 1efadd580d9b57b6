import json
import math
from dataclasses import replace

import pytest

from checkpointer.config import CheckpointerConfig, ServingConfig
from checkpointer.gates.gates import NO_RECORD, Findings, Reference, judge
from checkpointer.store import Evaluation, TrackRecord, normalized_entropy
from checkpointer.store.track_record import HOUR_MS

GOOD = Findings(answers=(0.2, 0.3), rows=10, seconds=0.1)
SCORED = Evaluation(
    5, 5000, log_loss_sum=450.0, prediction_sum=500.0, label_sum=500.0, base_log_loss_sum=500.0
)


def judged(findings=GOOD, evaluation=SCORED, reference=SCORED, record=NO_RECORD, **config):
    if isinstance(reference, Evaluation):
        reference = Reference(reference)
    return judge(findings, evaluation, reference, CheckpointerConfig(**config), 7, record)


def outcome(*arguments, **more):
    """Outcome, the gates that say no, and why."""
    gates = judged(*arguments, **more)
    return (
        gates.outcome,
        {gate.gate for gate in gates.results if not gate.passed and gate.known},
        gates.reason,
    )


def unknown(*arguments, **more):
    return {gate.gate for gate in judged(*arguments, **more).results if not gate.known}


def test_a_good_checkpoint_passes_all_gates():
    assert outcome() == ("published", set(), "")
    assert outcome(evaluation=Evaluation(), reference=None)[0] == "published"


@pytest.mark.parametrize(
    ("findings", "failed", "reason"),
    [
        (Findings(error="Damaged: part-1: missing"), {"loads", "answers"}, "part-1: missing"),
        (Findings(answers=(0.1,), not_finite=("table/w",)), {"finite"}, "finite: table/w"),
        (Findings(answers=(0.1, math.nan)), {"answers"}, "answered nan"),
        (Findings(answers=(1.5,)), {"answers"}, "1.5"),
        (Findings(), {"answers"}, "no answer"),
    ],
)
def test_findings_reject(findings, failed, reason):
    kind, gates, why = outcome(findings)
    assert kind == "rejected"
    assert gates == failed
    assert reason in why


def test_the_mean_prediction_must_lie_in_its_band():
    assert outcome(prediction_mean_max=0.05)[1] == {"mean prediction"}
    assert outcome(prediction_mean_min=0.2)[1] == {"mean prediction"}


def test_loss_is_compared_only_with_enough_rows():
    worse = replace(SCORED, log_loss_sum=600.0)
    assert normalized_entropy(worse) == pytest.approx(600 / 5000 / 0.325083, rel=1e-5)
    assert math.isnan(normalized_entropy(Evaluation()))
    assert math.isnan(normalized_entropy(replace(SCORED, label_sum=0.0)))
    assert outcome(evaluation=worse)[1] == {"progressive loss"}
    assert outcome(evaluation=worse, entropy_band=0.5)[1] == set()
    assert outcome(evaluation=worse, entropy_band=0.0)[1] == set()
    assert outcome(evaluation=worse, entropy_rows_min=5001)[:2] == ("published", set())
    assert "progressive loss" in unknown(evaluation=worse, entropy_rows_min=5001)
    assert "progressive loss" in unknown(evaluation=replace(worse, label_sum=0.0))


def entropy(value, rows=100_000, clicks=10_000, **more):
    """An evaluation of this normalized entropy."""
    rate = clicks / rows
    base = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return Evaluation(1, rows, value * base * rows, clicks, clicks, **more)


def served(value, rows=100_000):
    """An evaluation whose served answers had this normalized entropy."""
    its = entropy(value, rows, rows // 10)
    return replace(
        entropy(0.8),
        served_rows=rows,
        served_log_loss_sum=its.log_loss_sum,
        served_label_sum=its.label_sum,
    )


@pytest.mark.parametrize("reference", [None, entropy(5.2), entropy(0.8)])
@pytest.mark.parametrize("value", [1.0001, 1.5, 5.2])
def test_who_does_worse_than_the_mean_label_is_never_published(value, reference):
    kind, failed, why = outcome(evaluation=entropy(value), reference=reference)
    assert (kind, failed) == ("rejected", {"progressive loss"})
    assert "always answering the mean label does better" in why
    assert outcome(evaluation=entropy(0.9999), reference=None)[0] == "published"
    assert outcome(evaluation=entropy(value), reference=None, entropy_max=0)[0] == "published"


def test_five_in_a_row_that_are_each_a_little_worse_do_not_pass():
    record, value, last, outcomes = TrackRecord(), 0.4, None, []
    for hour in range(6):
        gates = judged(evaluation=entropy(value), reference=last, record=record)
        outcomes.append(gates.outcome)
        record = record.extended(entropy(value), hour * HOUR_MS, gates.passed, 7 * 24 * HOUR_MS)
        last = Reference(entropy(value)) if gates.passed else last
        value *= 1.24
    assert outcomes == ["published", "published", "rejected", "rejected", "rejected", "rejected"]


def test_the_best_is_forgotten_after_a_week():
    week = 7 * 24 * HOUR_MS
    record = TrackRecord().extended(entropy(0.4), 0, True, week)
    assert outcome(evaluation=entropy(0.6), reference=None, record=record)[1] == {
        "progressive loss"
    }
    record = record.extended(entropy(0.58), week, True, week)
    assert outcome(evaluation=entropy(0.6), reference=None, record=record)[1] == set()


def test_what_was_rejected_is_no_best():
    record = TrackRecord().extended(entropy(0.4), 0, False, HOUR_MS * 100)
    assert record.best(1_000, 100) is None
    assert outcome(evaluation=entropy(0.6), reference=None, record=record)[0] == "published"


def test_the_best_is_of_enough_rows():
    """A lucky hour with few rows is joined with those behind it."""
    record = TrackRecord()
    for hour, value in enumerate((0.1, 0.9, 0.9, 0.9)):
        record = record.extended(entropy(value, 500, 50), hour * HOUR_MS, True, HOUR_MS * 100)
    assert record.best(1_000, 100) == pytest.approx(0.5)
    assert record.best(2_000, 200) == pytest.approx(0.7)
    assert record.best(2_001, 200) is None


def test_too_little_data_is_unknown_and_is_published_only_where_nothing_better_is():
    few = entropy(0.8, 50, 5)
    assert outcome(evaluation=few, reference=None)[0] == "published", "the first of a new system"
    assert {"progressive loss", "as-served loss"} <= unknown(evaluation=few, reference=None)
    assert outcome(evaluation=few, reference=few)[0] == "published", "nothing of known quality yet"
    kind, failed, why = outcome(evaluation=few, reference=entropy(0.8))
    assert (kind, failed) == ("rejected", set())
    assert why == (
        "progressive loss: unknown: 50 scored rows with 5 clicks so far, needed are 1,000 with 100"
    )
    record = TrackRecord().extended(entropy(0.8), 0, True, HOUR_MS)
    assert outcome(evaluation=few, reference=few, record=record)[0] == "published", (
        "older rows count"
    )


def test_a_site_with_few_visitors_is_judged_on_its_last_rows():
    record = TrackRecord()
    for hour in range(12):
        record = record.extended(entropy(0.8, 100, 10), hour * HOUR_MS, True, HOUR_MS * 100)
    few = entropy(0.8, 100, 10)
    assert outcome(evaluation=few, reference=few, record=record)[0] == "published"
    bad = record
    for hour in range(12, 22):
        bad = bad.extended(entropy(1.4, 100, 10), hour * HOUR_MS, True, HOUR_MS * 100)
    assert outcome(evaluation=few, reference=few, record=bad)[1] == {"progressive loss"}


def test_what_was_served_badly_is_answered_by_one_try_at_a_time():
    recent, older = (
        Reference(entropy(0.8), age_ms=HOUR_MS - 1),
        Reference(entropy(0.8), age_ms=HOUR_MS),
    )
    assert outcome(evaluation=served(0.9), reference=recent)[0] == "published"
    assert outcome(evaluation=served(1.2), reference=recent)[:2] == ("rejected", {"as-served loss"})
    assert outcome(evaluation=served(1.2), reference=older)[0] == "published"
    assert outcome(evaluation=served(1.2, rows=900), reference=recent)[0] == "published"
    assert outcome(evaluation=served(1.2), reference=recent, entropy_max=0)[0] == "published"


def test_a_track_record_survives_its_way_through_json():
    record = TrackRecord()
    for hour in (3, 3, 4):
        record = record.extended(served(0.9), hour * HOUR_MS, hour == 3, HOUR_MS * 100)
    assert [span[:3] for span in record.spans] == [(3, True, 200_000), (4, False, 100_000)]
    assert TrackRecord.of(json.loads(json.dumps(record.spans))) == record


@pytest.mark.parametrize(("now", "before"), [(True, False), (False, True), (False, False)])
def test_a_slice_is_compared_only_where_both_have_enough(now, before):
    """A young country must not reject every checkpoint, nor one that has shrunk."""

    def sliced(enough, loss):
        rows = 6_000.0 if enough else 60.0
        return replace(
            SCORED, slices={"country": {"fr": [rows, loss * rows, 0.1 * rows, 0.1 * rows]}}
        )

    gates = judged(evaluation=sliced(now, 0.6), reference=sliced(before, 0.2))
    assert gates.outcome == "published"
    assert next(gate.detail for gate in gates.results if gate.gate == "slices") == "0 compared"
    assert outcome(evaluation=sliced(True, 0.6), reference=sliced(True, 0.2))[1] == {"slices"}


def test_memory_and_latency_have_budgets_where_they_are_given():
    found = replace(GOOD, memory_bytes=2_000_000, answer_ms=3.5)
    assert outcome(found)[0] == "published"
    assert outcome(found, memory_bytes_max=2_000_000, latency_ms_max=3.5)[0] == "published"
    assert outcome(found, memory_bytes_max=1_999_999) == (
        "rejected", {"memory"}, "memory: 2,000,000 bytes to load and answer, allowed 1,999,999",
    )  # fmt: skip
    assert outcome(found, latency_ms_max=3)[2] == "latency: 3.50 ms for 100 rows, allowed 3"


def test_golden_answers_may_neither_stand_still_nor_jump():
    """GOOD answers one golden row with 0.3."""
    assert outcome(reference=Reference(SCORED, (0.3,)))[1] == {"golden set"}
    assert (
        "no answer has changed in 5000 scored rows"
        in outcome(reference=Reference(SCORED, (0.3,)))[2]
    )
    few = replace(SCORED, rows=999, log_loss_sum=90.0)
    assert outcome(evaluation=few, reference=Reference(SCORED, (0.3,)))[1] == set(), (
        "nothing much was learned"
    )
    assert outcome(reference=Reference(SCORED, (0.31,)))[1] == set()
    assert outcome(reference=Reference(SCORED, (0.8,)))[1] == {"golden set"}
    assert outcome(reference=Reference(SCORED, (0.8,)), golden_change_max=3.0)[1] == set()
    assert outcome(reference=Reference(SCORED, (0.8,)), golden_change_max=0)[1] == set()
    assert outcome(reference=Reference(SCORED, (0.3, 0.4)))[1] == set(), (
        "another golden set: nothing to compare"
    )
    assert outcome(replace(GOOD, answers=(0.2, math.nan)), reference=Reference(SCORED, (0.3,)))[
        1
    ] == {
        "answers",
        "golden set",
    }
    kept = judge(GOOD, SCORED, None, CheckpointerConfig(), 7)
    assert (kept.golden, kept.rows) == ((0.3,), 10), "kept for the next one, and for the list"


def test_calibration_may_be_off_by_habit_and_get_no_worse():
    high, low = replace(SCORED, prediction_sum=1100.0), replace(SCORED, prediction_sum=240.0)
    assert outcome(evaluation=high)[1] == {"calibration"}
    assert outcome(evaluation=low)[1] == {"calibration"}
    assert "2.200, last published 1.000" in outcome(evaluation=high)[2]
    assert outcome(evaluation=high, reference=low)[1] == set()
    assert outcome(evaluation=high, calibration_band=1.3)[1] == set()
    assert outcome(evaluation=high, calibration_band=0.0)[1] == set()
    assert outcome(evaluation=high, clicks_min=501)[1] == set()
    assert outcome(evaluation=replace(SCORED, prediction_sum=0.0), prediction_mean_min=0.0)[1] == {
        "calibration"
    }


def test_one_slice_that_gets_worse_is_named():
    def sliced(**values):
        return replace(SCORED, slices={"country": values})

    good, bad, off = (
        [6000.0, 1900.0, 600.0, 600.0],
        [6000.0, 3000.0, 600.0, 600.0],
        [6000.0, 1900.0, 1300.0, 600.0],
    )
    before = sliced(de=good, fr=good)
    assert outcome(evaluation=before, reference=before)[1] == set()
    kind, failed, why = outcome(evaluation=sliced(de=good, fr=bad), reference=before)
    assert (kind, failed) == ("rejected", {"slices"})
    assert why.startswith("slices: country = 'fr': normalized entropy")
    assert "calibration 2.167" in outcome(evaluation=sliced(de=off), reference=before)[2]
    assert outcome(evaluation=sliced(de=off), reference=before, calibration_band=0)[1] == set()
    assert outcome(evaluation=sliced(fr=bad), reference=before, slice_entropy_band=0)[1] == set()
    assert outcome(evaluation=sliced(fr=bad), reference=before, slice_rows_min=6001)[1] == set()
    assert outcome(evaluation=sliced(it=bad), reference=before)[1] == set(), (
        "nobody to compare it with"
    )


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (CheckpointerConfig, {"keep": 0}),
        (CheckpointerConfig, {"begin": "middle"}),
        (CheckpointerConfig, {"prediction_mean_min": 0.9, "prediction_mean_max": 0.1}),
        (CheckpointerConfig, {"root": ""}),
        (ServingConfig, {"port": 70_000}),
        (ServingConfig, {"fallback_probability": 1.5}),
        (ServingConfig, {"request_timeout_s": 0}),
        (ServingConfig, {"poll_ms": 0}),
    ],
)
def test_impossible_settings_name_key_value_and_what_is_allowed(config, changes):
    with pytest.raises(ValueError, match=r"= .*: allowed is") as caught:
        config(**changes)
    assert next(iter(changes)) in str(caught.value)
