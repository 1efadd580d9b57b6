"""What learners could not use of what they read, as `everspun status` says it: shares above a
limit, and what to do."""

from collections.abc import Mapping

from everspun.config import LimitsConfig
from everspun.status.scraping import Report
from stream.columns import Feature

_EMPTY, _CLIPPED = "everspun_learner_unusable_rows_total", "everspun_learner_clipped_values_total"
_UNDECLARED, _FILLED = "everspun_labeler_undeclared_features", "everspun_learner_filled_rows_total"
_MISSING = "everspun_labeler_missing_share"
_READ = "everspun_records_in_total"
_WHY = {
    "unreadable": "their records cannot be read",
    "columns": "a feature has another kind in their records than it is declared with now: it "
    "needs a new name",
    "not_finite": "their gradient is not finite",
    "module": "the model's own code raised for them, or answered what is no logit a row",
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
                f"learners: {rows:,.0f} of {read:,.0f} rows were pushed empty, "
                f"{_WHY.get(cause, cause)};"
                f" the learner's log names record and feature (limit "
                f"{limits.unusable_share_max:.2%})"
            )
    for feature, count in sorted(_summed(learners, _CLIPPED, "feature").items()):
        if limits.clipped_share_max and count / read > limits.clipped_share_max:
            found.append(
                f"learners: feature {feature}: {count:,.0f} of {read:,.0f} values lie beyond its "
                f"bounds; a wrong unit,"
                f" or state model.bounds.{feature} (limit {limits.clipped_share_max:.2%})"
            )
    return found


def missing_faults(components: Mapping[str, Feature], reports: Mapping[str, Report]) -> list[str]:
    """Components, and features of catalogues, that too many of the last minutes' impressions lack,
    by labeler."""
    found = []
    for process, report in reports.items():
        for name, share in sorted(report.by_label(_MISSING, "feature").items()):
            declared = components.get(name)
            if declared is not None and share > declared.missing_max:
                who = " ".join(part for part in (declared.source, declared.owner) if part)
                found.append(
                    f"{process}: {share:.0%} of the impressions read lately have no {name}: ask "
                    f"{who or 'who answers for it'} (missing_max {declared.missing_max:.0%})"
                )
    return found


def feature_notes(reports: Mapping[str, Report]) -> list[str]:
    """Features that are read otherwise than somebody may think: no fault by itself, and often a
    misspelling."""
    labelers = [report for name, report in reports.items() if name.startswith("labeler-")]
    learners = [report for name, report in reports.items() if name.startswith("learner-")]
    found = []
    for feature, records in sorted(_summed(labelers, _UNDECLARED, "feature").items()):
        if records:
            found.append(
                f"feature {feature!r} is in {records:,.0f} records of a sample and declared "
                f"nowhere, so it is ignored: "
                "misspelled? else add it to [model]"
            )
    for feature, rows in sorted(_summed(learners, _FILLED, "feature").items()):
        if rows:
            found.append(
                f"feature {feature!r}: {rows:,.0f} rows were learned with its missing value, from "
                f"records written "
                "before it was declared"
            )
    return found


def _summed(reports: list[Report], name: str, label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for report in reports:
        for key, value in report.by_label(name, label).items():
            sums[key] = sums.get(key, 0.0) + value
    return sums
