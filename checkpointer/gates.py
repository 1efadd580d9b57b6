"""What a checkpoint must pass before replicas may serve it: judged here, from what a clean process found."""

import math
from dataclasses import dataclass, field
from typing import Any

from checkpointer.catalogue import Gate, Gates
from checkpointer.config import CheckpointerConfig
from checkpointer.manifest import Evaluation


@dataclass(frozen=True)
class Findings:
    """What a process that shares nothing with the checkpointer found when it loaded a checkpoint and asked it."""

    #: why it could not be loaded; "" = it was
    error: str = ""
    #: arrays that hold a NaN or an infinity, by name
    not_finite: tuple[str, ...] = ()
    #: the answer to one row with unknown ids and no features, then those to the golden rows
    answers: tuple[float, ...] = ()
    rows: int = 0
    seconds: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)


def judge(findings: Findings, evaluation: Evaluation, reference: Evaluation | None, config: CheckpointerConfig,
          now_ms: int) -> Gates:  # fmt: skip
    """All gates' results. `evaluation` = sums since the parent; `reference` = those of the last published one."""
    results = (
        Gate("loads", not findings.error, findings.error or f"{findings.rows} rows in {findings.seconds:.3f} s"),
        Gate("finite", not findings.not_finite, ", ".join(findings.not_finite[:5])),
        _answers(findings),
        _mean(evaluation, config),
        _entropy(evaluation, reference, config),
    )
    failed = [f"{gate.gate}: {gate.detail}" for gate in results if not gate.passed]
    return Gates("rejected" if failed else "published", "; ".join(failed), now_ms, results)


def normalized_entropy(evaluation: Evaluation) -> float:
    """Log loss over the entropy of the mean label (He et al. 2014); below 1 is better than knowing only that. NaN =
    no rows, or all of one label."""
    rate = evaluation.label_sum / evaluation.rows if evaluation.rows else 0.0
    if not 0 < rate < 1:
        return math.nan
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return evaluation.log_loss_sum / (evaluation.rows * entropy)


def _answers(findings: Findings) -> Gate:
    bad = [answer for answer in findings.answers if not 0 <= answer <= 1]
    if findings.error or not findings.answers:
        return Gate("answers", False, "no answer")
    return Gate(
        "answers", not bad, f"answered {bad[0]}, outside [0, 1]" if bad else f"answered {findings.answers[0]:.6g}"
    )


def _mean(evaluation: Evaluation, config: CheckpointerConfig) -> Gate:
    if not evaluation.rows:
        return Gate("mean prediction", True, "no scored rows since the parent")
    mean = evaluation.prediction_sum / evaluation.rows
    low, high = config.prediction_mean_min, config.prediction_mean_max
    return Gate("mean prediction", low <= mean <= high, f"{mean:.6g}, allowed is {low:g} to {high:g}")


def _entropy(evaluation: Evaluation, reference: Evaluation | None, config: CheckpointerConfig) -> Gate:
    """Losses of two spans of time are compared relative to what their base rates alone explain."""
    name = "progressive loss"
    if not config.entropy_band or reference is None:
        return Gate(name, True, "nothing to compare with")
    if min(evaluation.rows, reference.rows) < config.entropy_rows_min:
        return Gate(name, True, f"too few rows to compare: {evaluation.rows} and {reference.rows}")
    now, before = normalized_entropy(evaluation), normalized_entropy(reference)
    if math.isnan(now) or math.isnan(before):
        return Gate(name, True, "no base rate to compare with")
    worst = before * (1 + config.entropy_band)
    return Gate(name, now <= worst, f"normalized entropy {now:.4f}, last published {before:.4f}, allowed {worst:.4f}")
