"""What a checkpoint must pass before replicas may serve it: judged here, from what a clean
process found."""

import math
from dataclasses import dataclass, field
from typing import Any

from checkpointer.config import CheckpointerConfig
from checkpointer.store import (
    Evaluation,
    Gate,
    Gates,
    HourSums,
    TrackRecord,
    normalized,
    normalized_entropy,
)

NOTHING = "nothing to compare with"
NO_RECORD = TrackRecord()
#: Gates that must be known where something of known quality is published already.
NEEDED = ("progressive loss",)


@dataclass(frozen=True)
class Findings:
    """What a process that shares nothing with the checkpointer found when it loaded a checkpoint
    and asked it."""

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
    """The last published checkpoint: sums since its parent, its answers to the golden rows, and how
    much event time lies between it and the one that is judged."""

    evaluation: Evaluation = field(default_factory=Evaluation)
    golden: tuple[float, ...] = ()
    age_ms: int = 0


def judge(
    findings: Findings,
    evaluation: Evaluation,
    reference: Reference | None,
    config: CheckpointerConfig,
    now_ms: int,
    record: TrackRecord = NO_RECORD,
) -> Gates:
    """All gates' results. `evaluation` = sums since the parent; `record` = how the model did
    before.

    Published is what no gate rejects. A gate that has too little to judge by is *unknown*, and has
    not passed: while something of known quality is published, that rejects too where it is the
    progressive loss. A new system has nothing better to serve, so its first checkpoints are
    published on what the other gates say."""
    evidence = record.evidence(evaluation, config.entropy_rows_min, config.clicks_min)
    results = (
        Gate(
            "loads",
            not findings.error,
            findings.error or f"{findings.rows} rows in {findings.seconds:.3f} s",
        ),
        Gate("finite", not findings.not_finite, ", ".join(findings.not_finite[:5])),
        _answers(findings),
        _memory(findings, config),
        _latency(findings, config),
        _golden(findings, evaluation, reference, config),
        _mean(evaluation, config),
        _entropy(reference, record, evidence, config),
        _as_served(evaluation, reference, record, config),
        _calibration(evidence, reference, config),
        _slices(evaluation, reference, config),
    )
    proven = _best(reference, record, config) is not None
    failed = [
        f"{g.gate}: {g.detail}"
        for g in results
        if not g.passed and (g.known or (proven and g.gate in NEEDED))
    ]
    outcome = "rejected" if failed else "published"
    return Gates(outcome, "; ".join(failed), now_ms, results, findings.golden, findings.rows)


# --- what the clean process found ---


def _answers(findings: Findings) -> Gate:
    bad = [answer for answer in findings.answers if not 0 <= answer <= 1]
    if findings.error or not findings.answers:
        return Gate("answers", False, "no answer")
    return Gate(
        "answers",
        not bad,
        f"answered {bad[0]}, outside [0, 1]" if bad else f"answered {findings.answers[0]:.6g}",
    )


def _memory(findings: Findings, config: CheckpointerConfig) -> Gate:
    limit, took = config.memory_bytes_max, f"{findings.memory_bytes:,} bytes to load and answer"
    if not limit:
        return Gate("memory", True, took)
    return Gate("memory", findings.memory_bytes <= limit, f"{took}, allowed {limit:,}")


def _latency(findings: Findings, config: CheckpointerConfig) -> Gate:
    limit, took = (
        config.latency_ms_max,
        f"{findings.answer_ms:.2f} ms for {config.latency_rows} rows",
    )
    if not limit:
        return Gate("latency", True, took)
    return Gate("latency", findings.answer_ms <= limit, f"{took}, allowed {limit:g}")


def _golden(
    findings: Findings,
    evaluation: Evaluation,
    reference: Reference | None,
    config: CheckpointerConfig,
) -> Gate:
    """Neither unchanged, which a model that has stopped to learn is, nor changed too much."""
    name, now = "golden set", findings.golden
    before = () if reference is None else reference.golden
    if not now or len(now) != len(before):
        return Gate(name, True, NOTHING)
    if now == before:
        stuck = evaluation.rows >= config.entropy_rows_min
        return Gate(name, not stuck, f"no answer has changed in {evaluation.rows} scored rows")
    moved = sum(abs(_log_odds(a) - _log_odds(b)) for a, b in zip(now, before, strict=True)) / len(
        now
    )
    limit = config.golden_change_max
    allowed = f", allowed {limit:g}" if limit else ""
    return Gate(
        name, not limit or moved <= limit, f"log odds changed by {moved:.4f} on average{allowed}"
    )


def _log_odds(probability: float) -> float:
    """NaN for what is no probability: then no comparison with a limit holds."""
    if not 0 <= probability <= 1:
        return math.nan
    inside = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(inside / (1 - inside))


# --- how it did before it learned ---


def _mean(evaluation: Evaluation, config: CheckpointerConfig) -> Gate:
    if not evaluation.rows:
        return Gate(
            "mean prediction", False, "unknown: no scored rows since the parent", known=False
        )
    mean = evaluation.prediction_sum / evaluation.rows
    low, high = config.prediction_mean_min, config.prediction_mean_max
    return Gate(
        "mean prediction", low <= mean <= high, f"{mean:.6g}, allowed is {low:g} to {high:g}"
    )


def _entropy(
    reference: Reference | None, record: TrackRecord, evidence: HourSums, config: CheckpointerConfig
) -> Gate:
    """Losses of two spans of time are compared relative to what their base rates alone explain:
    with the best that was published lately, and with knowing nothing but the mean label."""
    name = "progressive loss"
    now = normalized(evidence.rows, evidence.log_loss_sum, evidence.label_sum)
    if not _is_known(evidence, config) or math.isnan(now):
        return Gate(name, False, _too_little(evidence, config), known=False)
    if config.entropy_max and now > config.entropy_max:
        worse = "; always answering the mean label does better" if now > 1 else ""
        return Gate(
            name, False, f"normalized entropy {now:.4f}, allowed {config.entropy_max:g}{worse}"
        )
    before = _best(reference, record, config)
    if not config.entropy_band or before is None:
        return Gate(name, True, f"normalized entropy {now:.4f}")
    worst = before * (1 + config.entropy_band)
    found = f"normalized entropy {now:.4f}, best published lately {before:.4f}, allowed {worst:.4f}"
    return Gate(name, now <= worst, found)


def _best(
    reference: Reference | None, record: TrackRecord, config: CheckpointerConfig
) -> float | None:
    """The lowest normalized entropy that is known of what was published lately; None = of
    nothing."""
    found = [record.best(config.entropy_rows_min, config.clicks_min)]
    if reference is not None and _is_known(reference.evaluation, config):
        found.append(normalized_entropy(reference.evaluation))
    return min((one for one in found if one is not None and not math.isnan(one)), default=None)


def _is_known(sums: Evaluation | HourSums, config: CheckpointerConfig) -> bool:
    return sums.rows >= config.entropy_rows_min and sums.label_sum >= config.clicks_min


def _too_little(evidence: HourSums, config: CheckpointerConfig) -> str:
    return (
        f"unknown: {evidence.rows:,.0f} scored rows with {evidence.label_sum:,.0f} clicks so far, "
        f"needed are"
        f" {config.entropy_rows_min:,} with {config.clicks_min:,}"
    )


def _as_served(
    evaluation: Evaluation,
    reference: Reference | None,
    record: TrackRecord,
    config: CheckpointerConfig,
) -> Gate:
    """What replicas answered, once its labels are known. It tells of versions before this one:
    while they did worse than the mean label, one checkpoint each `served_retry_ms` is published,
    and waited for before the next one is."""
    name, served = "as-served loss", record.served(evaluation, config.entropy_rows_min)
    now = normalized(served.served_rows, served.served_log_loss_sum, served.served_label_sum)
    if served.served_rows < config.entropy_rows_min or math.isnan(now):
        return Gate(
            name,
            False,
            f"unknown: {served.served_rows:,.0f} rows with a served answer so far",
            known=False,
        )
    if not config.entropy_max or now <= config.entropy_max:
        return Gate(name, True, f"normalized entropy {now:.4f}")
    found = f"normalized entropy {now:.4f} of what was served, allowed {config.entropy_max:g}"
    if reference is None or reference.age_ms >= config.served_retry_ms:
        return Gate(
            name,
            True,
            f"{found}; this one is tried, the last is {config.served_retry_ms} ms old or more",
        )
    return Gate(
        name, False, f"{found}; the next one is tried {config.served_retry_ms} ms after the last"
    )


def _calibration(
    evidence: HourSums, reference: Reference | None, config: CheckpointerConfig
) -> Gate:
    """A model may be off by habit (late labels, sampled negatives); what counts is that it gets
    no worse."""
    name = "calibration"
    if not config.calibration_band or reference is None:
        return Gate(name, True, NOTHING)
    old = reference.evaluation
    if min(evidence.label_sum, old.label_sum) < config.clicks_min:
        few = (
            f"unknown: {evidence.label_sum:,.0f} and {old.label_sum:,.0f} clicks, needed are "
            f"{config.clicks_min:,}"
        )
        return Gate(name, False, few, known=False)
    now, before = evidence.prediction_sum / evidence.label_sum, old.prediction_sum / old.label_sum
    return Gate(
        name, not _further_off(now, before, config), f"{now:.3f}, last published {before:.3f}"
    )


def _further_off(now: float, before: float, config: CheckpointerConfig) -> bool:
    """Whether a calibration is further from 1 than another by more than the band, too high or
    too low."""
    if min(now, before) <= 0:
        return now <= 0 < before
    return abs(math.log(now)) > abs(math.log(before)) + math.log1p(config.calibration_band)


def _slices(
    evaluation: Evaluation, reference: Reference | None, config: CheckpointerConfig
) -> Gate:
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
    now, before = normalized(rows, loss, labels), normalized(old[0], old[1], old[3])
    if now > before * (1 + config.slice_entropy_band):
        return f"normalized entropy {now:.4f}, last published {before:.4f}"
    if config.calibration_band and _further_off(predicted / labels, old[2] / old[3], config):
        return f"calibration {predicted / labels:.3f}, last published {old[2] / old[3]:.3f}"
    return ""
