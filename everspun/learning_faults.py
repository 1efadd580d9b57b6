"""What learners could not use of what they read, as `everspun status` says it: shares above a limit, and what to do."""

from collections.abc import Mapping

from everspun.config import LimitsConfig
from everspun.scrape import Report

_EMPTY, _CLIPPED = "everspun_learner_unusable_rows_total", "everspun_learner_clipped_values_total"
_READ = "everspun_records_in_total"
_WHY = {
    "unreadable": "their records cannot be read",
    "columns": "a feature has another kind in their records than it is declared with now: it needs a new name",
    "not_finite": "their gradient is not finite",
    "retraction": "the record does not say what to learn again",
}


def learning_faults(limits: LimitsConfig, reports: Mapping[str, Report]) -> list[str]:
    """Of all learners together, since each began: one line for each share above its limit."""
    learners = [report for name, report in reports.items() if name.startswith("learner-")]
    read = sum(report.value(_READ) for report in learners)
    if not read:
        return []
    found = []
    for cause, rows in sorted(_summed(learners, _EMPTY, "cause").items()):
        if limits.unusable_share_max and rows / read > limits.unusable_share_max:
            found.append(
                f"learners: {rows:,.0f} of {read:,.0f} rows were pushed empty, {_WHY.get(cause, cause)};"
                f" the learner's log names record and feature (limit {limits.unusable_share_max:.2%})"
            )
    for feature, count in sorted(_summed(learners, _CLIPPED, "feature").items()):
        if limits.clipped_share_max and count / read > limits.clipped_share_max:
            found.append(
                f"learners: feature {feature}: {count:,.0f} of {read:,.0f} values lie beyond its bounds; a wrong unit,"
                f" or state model.bounds.{feature} (limit {limits.clipped_share_max:.2%})"
            )
    return found


def _summed(reports: list[Report], name: str, label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for report in reports:
        for key, value in report.by_label(name, label).items():
            sums[key] = sums.get(key, 0.0) + value
    return sums
