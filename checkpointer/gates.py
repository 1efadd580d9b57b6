"""What a checkpoint must pass before replicas may serve it: judged here, from what a clean process found."""

import math
from dataclasses import dataclass, field
from typing import Any

from checkpointer.catalogue import Gate, Gates
from checkpointer.config import CheckpointerConfig
from checkpointer.manifest import Evaluation

NOTHING = "nothing to compare with"


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
    #: the most memory it took beyond what the process held before, bytes
    memory_bytes: int = 0
    #: time to answer one request of `latency_rows` rows, ms
    answer_ms: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def golden(self) -> tuple[float, ...]:
        return self.answers[1:]


@dataclass(frozen=True)
class Reference:
    """The last published checkpoint: sums since its parent, and its answers to the golden rows."""

    evaluation: Evaluation = field(default_factory=Evaluation)
    golden: tuple[float, ...] = ()


def judge(findings: Findings, evaluation: Evaluation, reference: Reference | None, config: CheckpointerConfig,
          now_ms: int) -> Gates:  # fmt: skip
    """All gates' results. `evaluation` = sums since the parent."""
    results = (
        Gate("loads", not findings.error, findings.error or f"{findings.rows} rows in {findings.seconds:.3f} s"),
        Gate("finite", not findings.not_finite, ", ".join(findings.not_finite[:5])),
        _answers(findings),
        _memory(findings, config),
        _latency(findings, config),
        _golden(findings, evaluation, reference, config),
        _mean(evaluation, config),
        _entropy(evaluation, reference, config),
        _calibration(evaluation, reference, config),
        _slices(evaluation, reference, config),
    )
    failed = [f"{gate.gate}: {gate.detail}" for gate in results if not gate.passed]
    outcome = "rejected" if failed else "published"
    return Gates(outcome, "; ".join(failed), now_ms, results, findings.golden, findings.rows)


def normalized_entropy(evaluation: Evaluation) -> float:
    """Log loss over the entropy of the mean label (He et al. 2014); below 1 is better than knowing only that. NaN =
    no rows, or all of one label."""
    return _normalized(evaluation.rows, evaluation.log_loss_sum, evaluation.label_sum)


def _normalized(rows: float, log_loss_sum: float, label_sum: float) -> float:
    rate = label_sum / rows if rows else 0.0
    if not 0 < rate < 1:
        return math.nan
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return log_loss_sum / (rows * entropy)


# --- what the clean process found ---


def _answers(findings: Findings) -> Gate:
    bad = [answer for answer in findings.answers if not 0 <= answer <= 1]
    if findings.error or not findings.answers:
        return Gate("answers", False, "no answer")
    return Gate(
        "answers", not bad, f"answered {bad[0]}, outside [0, 1]" if bad else f"answered {findings.answers[0]:.6g}"
    )


def _memory(findings: Findings, config: CheckpointerConfig) -> Gate:
    limit, took = config.memory_bytes_max, f"{findings.memory_bytes:,} bytes to load and answer"
    if not limit:
        return Gate("memory", True, took)
    return Gate("memory", findings.memory_bytes <= limit, f"{took}, allowed {limit:,}")


def _latency(findings: Findings, config: CheckpointerConfig) -> Gate:
    limit, took = config.latency_ms_max, f"{findings.answer_ms:.2f} ms for {config.latency_rows} rows"
    if not limit:
        return Gate("latency", True, took)
    return Gate("latency", findings.answer_ms <= limit, f"{took}, allowed {limit:g}")


def _golden(
    findings: Findings, evaluation: Evaluation, reference: Reference | None, config: CheckpointerConfig
) -> Gate:
    """Neither unchanged, which a model that has stopped to learn is, nor changed too much."""
    name, now = "golden set", findings.golden
    before = () if reference is None else reference.golden
    if not now or len(now) != len(before):
        return Gate(name, True, NOTHING)
    if now == before:
        stuck = evaluation.rows >= config.entropy_rows_min
        return Gate(name, not stuck, f"no answer has changed in {evaluation.rows} scored rows")
    moved = sum(abs(_log_odds(a) - _log_odds(b)) for a, b in zip(now, before, strict=True)) / len(now)
    limit = config.golden_change_max
    allowed = f", allowed {limit:g}" if limit else ""
    return Gate(name, not limit or moved <= limit, f"log odds changed by {moved:.4f} on average{allowed}")


def _log_odds(probability: float) -> float:
    """NaN for what is no probability: then no comparison with a limit holds."""
    if not 0 <= probability <= 1:
        return math.nan
    inside = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(inside / (1 - inside))


# --- how it did before it learned ---


def _mean(evaluation: Evaluation, config: CheckpointerConfig) -> Gate:
    if not evaluation.rows:
        return Gate("mean prediction", True, "no scored rows since the parent")
    mean = evaluation.prediction_sum / evaluation.rows
    low, high = config.prediction_mean_min, config.prediction_mean_max
    return Gate("mean prediction", low <= mean <= high, f"{mean:.6g}, allowed is {low:g} to {high:g}")


def _entropy(evaluation: Evaluation, reference: Reference | None, config: CheckpointerConfig) -> Gate:
    """Losses of two spans of time are compared relative to what their base rates alone explain."""
    name = "progressive loss"
    if not config.entropy_band or reference is None:
        return Gate(name, True, NOTHING)
    before_rows = reference.evaluation.rows
    if min(evaluation.rows, before_rows) < config.entropy_rows_min:
        return Gate(name, True, f"too few rows to compare: {evaluation.rows} and {before_rows}")
    now, before = normalized_entropy(evaluation), normalized_entropy(reference.evaluation)
    if math.isnan(now) or math.isnan(before):
        return Gate(name, True, "no base rate to compare with")
    worst = before * (1 + config.entropy_band)
    return Gate(name, now <= worst, f"normalized entropy {now:.4f}, last published {before:.4f}, allowed {worst:.4f}")


def _calibration(evaluation: Evaluation, reference: Reference | None, config: CheckpointerConfig) -> Gate:
    """A model may be off by habit (late labels, sampled negatives); what counts is that it gets no worse."""
    name = "calibration"
    if not config.calibration_band or reference is None:
        return Gate(name, True, NOTHING)
    old = reference.evaluation
    if min(evaluation.label_sum, old.label_sum) < config.clicks_min:
        return Gate(name, True, f"too few clicks to compare: {evaluation.label_sum:g} and {old.label_sum:g}")
    now, before = evaluation.prediction_sum / evaluation.label_sum, old.prediction_sum / old.label_sum
    return Gate(name, not _further_off(now, before, config), f"{now:.3f}, last published {before:.3f}")


def _further_off(now: float, before: float, config: CheckpointerConfig) -> bool:
    """Whether a calibration is further from 1 than another by more than the band, too high or too low."""
    if min(now, before) <= 0:
        return now <= 0 < before
    return abs(math.log(now)) > abs(math.log(before)) + math.log1p(config.calibration_band)


def _slices(evaluation: Evaluation, reference: Reference | None, config: CheckpointerConfig) -> Gate:
    """Each value of each column that learners slice by, where both have enough rows and clicks."""
    name, worse, compared = "slices", list[str](), 0
    if not config.slice_entropy_band or reference is None:
        return Gate(name, True, NOTHING)
    for column, values in evaluation.slices.items():
        old = reference.evaluation.slices.get(column, {})
        for value in sorted(values.keys() & old.keys()):
            if _is_enough(values[value], config) and _is_enough(old[value], config):
                compared += 1
                if why := _slice_fault(values[value], old[value], config):
                    worse.append(f"{column} = {value!r}: {why}")
    more = f"; and {len(worse) - 3} more" if len(worse) > 3 else ""
    return Gate(name, not worse, "; ".join(worse[:3]) + more if worse else f"{compared} compared")


def _is_enough(sums: list[float], config: CheckpointerConfig) -> bool:
    rows, _, _, labels = sums
    return rows >= config.slice_rows_min and labels >= config.clicks_min


def _slice_fault(sums: list[float], old: list[float], config: CheckpointerConfig) -> str:
    rows, loss, predicted, labels = sums
    now, before = _normalized(rows, loss, labels), _normalized(old[0], old[1], old[3])
    if now > before * (1 + config.slice_entropy_band):
        return f"normalized entropy {now:.4f}, last published {before:.4f}"
    if config.calibration_band and _further_off(predicted / labels, old[2] / old[3], config):
        return f"calibration {predicted / labels:.3f}, last published {old[2] / old[3]:.3f}"
    return ""
