from dataclasses import replace

import pytest

from everspun.config import LimitsConfig
from everspun.status.learning import feature_notes, learning_faults
from everspun.status.scraping import Report

READ, EMPTY = "everspun_records_in_total", "everspun_learner_unusable_rows_total"
CLIPPED = "everspun_learner_clipped_values_total"


def reports(read: float, columns: float = 0.0, price: float = 0.0) -> dict[str, Report]:
    half = {
        (READ, ()): read / 2,
        (EMPTY, (("cause", "columns"),)): columns / 2,
        (EMPTY, (("cause", "not_finite"),)): 0.0,
        (CLIPPED, (("feature", "price"),)): price / 2,
    }
    other = {(READ, ()): 1e9, (EMPTY, (("cause", "columns"),)): 1e9}
    return {"learner-0": Report(half), "learner-1": Report(half), "labeler-0": Report(other)}


def test_rows_pushed_empty_above_the_limit_are_named_with_their_cause():
    (line,) = learning_faults(LimitsConfig(), reports(26_000, columns=24_800))
    assert line.startswith(
        "learners: 24,800 of 26,000 rows were pushed empty, a feature has another kind"
    )


def test_clipped_values_above_the_limit_are_named_with_their_feature():
    (line,) = learning_faults(LimitsConfig(), reports(1_000, price=11))
    assert "feature price: 11 of 1,000 values lie beyond its bounds" in line
    assert "model.bounds.price" in line


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (LimitsConfig(), reports(1_000, columns=10, price=10)),
        (LimitsConfig(), reports(0)),
        (LimitsConfig(), {}),
        (
            replace(LimitsConfig(), unusable_share_max=0.0, clipped_share_max=0.0),
            reports(10, columns=10, price=10),
        ),
    ],
)
def test_at_or_below_the_limit_or_without_one_nothing_is_wrong(limits, found):
    assert learning_faults(limits, found) == []


def test_features_that_are_misspelled_or_newer_than_their_rows_are_named():
    said = {
        "labeler-0": Report(
            {("everspun_labeler_undeclared_features", (("feature", "prise"),)): 40.0}
        ),
        "labeler-1": Report(
            {("everspun_labeler_undeclared_features", (("feature", "prise"),)): 2.0}
        ),
        "learner-0": Report(
            {("everspun_learner_filled_rows_total", (("feature", "colour"),)): 1_500.0}
        ),
        "learner-1": Report({("everspun_learner_filled_rows_total", (("feature", "size"),)): 0.0}),
    }
    misspelled, newer = feature_notes(said)
    assert misspelled.startswith(
        "feature 'prise' is in 42 records of a sample and declared nowhere"
    )
    assert newer.startswith("feature 'colour': 1,500 rows were learned with its missing value")
    assert feature_notes({}) == []
