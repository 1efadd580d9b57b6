import math
from dataclasses import replace

import pytest

from checkpointer.config import CheckpointerConfig, ServingConfig
from checkpointer.gates import Findings, Reference, judge, normalized_entropy
from checkpointer.manifest import Evaluation

GOOD = Findings(answers=(0.2, 0.3), rows=10, seconds=0.1)
SCORED = Evaluation(5, 5000, log_loss_sum=450.0, prediction_sum=500.0, label_sum=500.0, base_log_loss_sum=500.0)


def outcome(findings=GOOD, evaluation=SCORED, reference=SCORED, **config):
    if isinstance(reference, Evaluation):
        reference = Reference(reference)
    gates = judge(findings, evaluation, reference, CheckpointerConfig(**config), 7)
    return gates.outcome, {gate.gate for gate in gates.results if not gate.passed}, gates.reason


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
    assert outcome(evaluation=worse, entropy_rows_min=5001)[1] == set()
    assert outcome(evaluation=replace(worse, label_sum=0.0))[1] == set()


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
    assert "no answer has changed in 5000 scored rows" in outcome(reference=Reference(SCORED, (0.3,)))[2]
    few = replace(SCORED, rows=999)
    assert outcome(evaluation=few, reference=Reference(SCORED, (0.3,)))[1] == set(), "nothing much was learned"
    assert outcome(reference=Reference(SCORED, (0.31,)))[1] == set()
    assert outcome(reference=Reference(SCORED, (0.8,)))[1] == {"golden set"}
    assert outcome(reference=Reference(SCORED, (0.8,)), golden_change_max=3.0)[1] == set()
    assert outcome(reference=Reference(SCORED, (0.8,)), golden_change_max=0)[1] == set()
    assert outcome(reference=Reference(SCORED, (0.3, 0.4)))[1] == set(), "another golden set: nothing to compare"
    assert outcome(replace(GOOD, answers=(0.2, math.nan)), reference=Reference(SCORED, (0.3,)))[1] == {
        "answers", "golden set",
    }  # fmt: skip
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
    assert outcome(evaluation=replace(SCORED, prediction_sum=0.0), prediction_mean_min=0.0)[1] == {"calibration"}


def test_one_slice_that_gets_worse_is_named():
    def sliced(**values):
        return replace(SCORED, slices={"country": values})

    good, bad, off = [6000.0, 1900.0, 600.0, 600.0], [6000.0, 3000.0, 600.0, 600.0], [6000.0, 1900.0, 1300.0, 600.0]
    before = sliced(de=good, fr=good)
    assert outcome(evaluation=before, reference=before)[1] == set()
    kind, failed, why = outcome(evaluation=sliced(de=good, fr=bad), reference=before)
    assert (kind, failed) == ("rejected", {"slices"})
    assert why.startswith("slices: country = 'fr': normalized entropy")
    assert "calibration 2.167" in outcome(evaluation=sliced(de=off), reference=before)[2]
    assert outcome(evaluation=sliced(de=off), reference=before, calibration_band=0)[1] == set()
    assert outcome(evaluation=sliced(fr=bad), reference=before, slice_entropy_band=0)[1] == set()
    assert outcome(evaluation=sliced(fr=bad), reference=before, slice_rows_min=6001)[1] == set()
    assert outcome(evaluation=sliced(it=bad), reference=before)[1] == set(), "nobody to compare it with"


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
