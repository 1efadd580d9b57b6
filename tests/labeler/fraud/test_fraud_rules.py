"""The rules by themselves: what each fires on, and what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeler.fraud.rules import (
    PAIR_RULES,
    SCORE_RULES,
    VENDOR_RULES,
    Evidence,
    Remembered,
    RememberedColumns,
    VendorEvidence,
)
from labeler.fraud_config import FraudConfig

CONFIG = FraudConfig()
#: Somebody who looks around: 40 views of 200 are this vendor's, 2 are clicked.
VISITOR = Evidence(
    "s",
    "v",
    40,
    2,
    200,
    10,
    0,
    0,
    click_rate=0.05,
    vendor_share=0.02,
    gap_rate=0.02,
    known_views=100_000,
)
CROWD = VendorEvidence("v", sources=60, devoted=1, devoted_clicks=3, devoted_rate=0.02)
FLOOD = {"views": 900, "source_views": 900, "clicks": 0}


@pytest.mark.parametrize(
    ("rule", "fires", "does_not"),
    [
        (
            "repeated_clicks",
            {"views": 12, "clicks": 11, "source_views": 14, "source_clicks": 11},
            {},
        ),
        (
            "repeated_clicks",
            {"clicks": 40, "source_clicks": 40},
            {"clicks": 40, "views": 400, "source_clicks": 180},
        ),
        (
            "repeated_clicks",
            {"clicks": 12, "views": 12, "source_clicks": 12},
            {"clicks": 5, "source_clicks": 5},
        ),
        ("view_flood", FLOOD, {**FLOOD, "source_views": 4_000}),
        ("view_flood", {**FLOOD, "clicks": 2}, {**FLOOD, "clicks": 20}),
        ("view_flood", {**FLOOD, "known_views": 1_000}, {**FLOOD, "known_views": 999}),
        ("burst", {"clicks": 30, "gaps_fast": 28}, {"clicks": 30, "gaps_fast": 4}),
        (
            "burst",
            {"clicks": 30, "gaps_fast": 28},
            {"clicks": 30, "gaps_fast": 28, "gap_rate": 0.6},
        ),
    ],
)
def test_a_pair(rule: str, fires: dict[str, int], does_not: dict[str, int]):
    found = PAIR_RULES[rule](CONFIG, replace(VISITOR, **fires))  # type: ignore[arg-type]
    assert found is not None
    assert found.reason
    assert found.evidence
    assert PAIR_RULES[rule](CONFIG, replace(VISITOR, **does_not)) is None  # type: ignore[arg-type]
    assert PAIR_RULES[rule](CONFIG, replace(VISITOR, vendor="", **fires)) is None  # type: ignore[arg-type]


def test_a_vendor():
    judge = VENDOR_RULES["botnet"]
    assert judge(CONFIG, CROWD) is None
    found = judge(CONFIG, replace(CROWD, devoted=40))
    assert found is not None
    assert "40 sources" in found.reason
    assert judge(CONFIG, replace(CROWD, devoted=40, vendor="")) is None
    assert judge(CONFIG, replace(CROWD, devoted=15, sources=600)) is None


def test_what_is_remembered():
    judge = SCORE_RULES["slow_clicks"].judge
    drip = Remembered(
        "s", "v", views=32, clicks=30, source_clicks=31, click_rate=0.05, vendor_share=0.02
    )
    found = judge(CONFIG, drip)
    assert found is not None
    assert found.evidence["score"] >= CONFIG.slow_score_min
    assert "30" in found.reason
    assert judge(CONFIG, replace(drip, vendor="")) is None
    assert judge(CONFIG, replace(drip, views=300)) is None  # a customer of the shop
    assert judge(CONFIG, replace(drip, source_clicks=400)) is None  # clicks on everything
    assert (
        judge(CONFIG, replace(drip, views=5, clicks=5, source_clicks=5)) is None
    )  # too little to go by


counts = st.integers(0, 60)
shares = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(counts, counts, counts, shares, shares), min_size=1, max_size=30))
def test_suspects_are_those_of_whom_there_is_a_finding(
    rows: list[tuple[int, int, int, float, float]],
):
    rule = SCORE_RULES["slow_clicks"]
    views, clicks, source_clicks, rates, shares = map(np.array, zip(*rows, strict=True))
    seen = RememberedColumns(views, clicks, source_clicks, rates, shares)
    found = [rule.judge(CONFIG, seen.row(at, "s", "v")) is not None for at in range(len(rows))]
    assert rule.suspects(CONFIG, seen).tolist() == found


@pytest.mark.parametrize("rule", PAIR_RULES)
def test_a_visitor_is_left_alone(rule: str):
    assert PAIR_RULES[rule](CONFIG, VISITOR) is None
