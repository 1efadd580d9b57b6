"""Which trained rows a late verdict covers, and what they become."""

import numpy as np
import pyarrow as pa
import pytest

from labeler.retraction import covered, denied, taken_back
from stream.verdicts import ALLOW, REJECT, WITHHOLD, Verdict

ROWS = pa.record_batch(
    {
        "ts_ms": np.array([10, 20, 30, 40]),
        "label": np.array([1, 0, 1, 1], np.int8),
        "weight": np.array([1.0, 2.0, 0.5, 1.0], np.float32),
        "source": ["a", "a", "b", "a"],
        "vendor": ["v", "v", "v", "w"],
        "f_language": ["de", "fi", None, "de"],
    }
)


def verdict(decision=REJECT, **scope):
    named = {"source": None, "vendor": None} | scope
    return Verdict("id", "rule", decision, from_ms=10, to_ms=40, reason="late", **named)


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        (verdict(source="a"), [0, 1]),
        (verdict(vendor="v"), [0, 1, 2]),
        (verdict(source="b", vendor="v"), [2]),
        (verdict(WITHHOLD, feature="language", value="de"), [0]),
        (verdict(WITHHOLD, feature="country", value="de"), []),
        (verdict(WITHHOLD), [0, 1, 2]),
        (verdict(ALLOW, source="a"), []),
    ],
)
def test_a_verdict_covers_its_scope_within_its_interval_and_its_end_is_excluded(said, rows):
    assert np.flatnonzero(covered(ROWS, said)).tolist() == rows


def test_the_opposite_row_is_the_same_row_with_its_weight_turned_round():
    back = taken_back(ROWS, covered(ROWS, verdict(source="a")))
    assert back.column("weight").to_pylist() == [-1.0, -2.0]
    assert back.schema == ROWS.schema
    assert back.drop_columns(["weight"]).to_pylist() == ROWS.slice(0, 2).drop_columns(["weight"]).to_pylist()


def test_a_denied_click_is_a_negative_of_its_weight_and_a_negative_stays_away():
    back = denied(ROWS, covered(ROWS, verdict(vendor="v")))
    assert back.column("label").to_pylist() == [0, 0]
    assert back.column("weight").to_pylist() == [1.0, 0.5]
