import math
from dataclasses import replace

import pytest

from checkpointer.config import CheckpointerConfig, ServingConfig
from checkpointer.gates import Findings, judge, normalized_entropy
from checkpointer.manifest import Evaluation

GOOD = Findings(answers=(0.2, 0.3), rows=10, seconds=0.1)
SCORED = Evaluation(5, 5000, log_loss_sum=450.0, prediction_sum=500.0, label_sum=500.0, base_log_loss_sum=500.0)


def outcome(findings=GOOD, evaluation=SCORED, reference=SCORED, **config):
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
