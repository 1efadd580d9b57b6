"""Corrections of early labels: against the rates they must lead to, and against the published
formulas."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from learners.config import ModelConfig
from learners.models.delayed_feedback import (
    NONE,
    PRIOR_CLICKS,
    SHARE_MAX,
    Correction,
    LateShare,
    correction,
)
from learners.models.model import make_model
from learners.pacing import Batch
from learners.training import BatchGradients, Published, gradient
from learners.training.progressive import Scoring, evaluate
from stream import StreamConfig

ONE, NO = np.ones(1, np.float32), np.zeros(1, np.float32)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("true", [0.001, 0.05, 0.4])
def test_the_weighted_loss_of_the_biased_stream_stands_still_at_the_true_rate(
    share: float, true: float
) -> None:
    """Of one impression the stream shows: a negative unless its click was in time, and each
    click once."""
    at = np.array([true], np.float32)
    corrects = Correction(share)
    positive, negative = corrects.weights(at, ONE)[0], corrects.weights(at, NO)[0]
    clicks, negatives = true, 1 - true + share * true
    gradient_at_truth = clicks * positive * (true - 1) + negatives * negative * true
    assert gradient_at_truth == pytest.approx(0, abs=1e-6 * true)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("true", [0.001, 0.05, 0.4])
def test_where_late_clicks_are_only_counted_both_corrections_lead_to_the_true_rate(
    share: float, true: float
) -> None:
    at, known = np.array([true], np.float32), (1 - share) * true
    corrects = Correction(share, late_learned=False)
    positive, negative = corrects.weights(at, ONE)[0], corrects.weights(at, NO)[0]
    assert known * positive * (true - 1) + (1 - known) * negative * true == pytest.approx(
        0, abs=1e-6
    )
    answer = Correction(share, in_loss=False, late_learned=False).answer(
        np.array([known], np.float32)
    )
    assert answer[0] == pytest.approx(true, rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_calibration_answers_the_true_rate_for_the_rate_of_the_biased_stream(share: float) -> None:
    true = np.array([0.001, 0.05, 0.4])
    shown = true / (1 + share * true)
    answer = Correction(share, in_loss=False).answer(shown.astype(np.float32))
    np.testing.assert_allclose(answer, true, rtol=1e-5)


def test_log_odds_make_sampled_negatives_good_and_then_the_delay() -> None:
    true, rate, share = np.array([0.01, 0.2]), 0.1, 1.0
    shown = true / (true + rate * (1 - true + share * true))
    answer = Correction(share, in_loss=False, negative_rate=rate).answer(shown.astype(np.float32))
    np.testing.assert_allclose(answer, true, rtol=1e-5)


def test_eager_weights_are_those_of_ktena_and_no_correction_changes_nothing() -> None:
    p = np.array([0.2], np.float32)
    assert Correction(1.0).weights(p, ONE)[0] == pytest.approx(1.2)
    assert Correction(1.0).weights(p, NO)[0] == pytest.approx(0.8 * 1.2)
    assert NONE.answer(p) is p
    assert not NONE.weighs


def test_the_late_share_is_what_the_late_chains_say_from_a_prior_on() -> None:
    late = LateShare(0.1)
    assert late.share == pytest.approx(0.1)
    late.take(0, 300_000_000, 700_000_000)
    late.take(1, 100_000_000, 900_000_000)
    late.take(1, 0, 0)  # says nothing
    assert late.share == pytest.approx((400 + 0.1 * PRIOR_CLICKS) / (2000 + PRIOR_CLICKS))


def test_the_configuration_decides_what_is_corrected() -> None:
    late = LateShare(0.25)
    assert correction(StreamConfig(), late) == NONE
    assert correction(StreamConfig(label_strategy="eager"), late).share == 1.0
    corrected = StreamConfig(
        label_strategy="window+correct", late_window_ms=7_200_000, delay_correction="calibration"
    )
    assert correction(corrected, late) == Correction(0.25, False)
    counted = correction(replace(corrected, late_clicks="count"), LateShare(0.9999))
    assert counted == Correction(SHARE_MAX, False, late_learned=False), (
        "a click in time may not weigh without bound"
    )
    with pytest.raises(ValueError, match="late_clicks = 'count': only label_strategy 'window"):
        StreamConfig(late_clicks="count")
    assert correction(StreamConfig(negative_rate=0.5), late).negative_rate == 1.0, (
        "weights make it good, once"
    )
    sampled = StreamConfig(negative_rate=0.5, negative_correction="log_odds")
    assert correction(sampled, late).negative_rate == 0.5
    with pytest.raises(ValueError, match="never both"):
        StreamConfig(negative_rate=0.5, negative_correction="both")


def rows(label: list[int]) -> pa.RecordBatch:
    n = len(label)
    values = {
        "position": np.arange(n),
        "ts_ms": np.arange(n) + 1_000,
        "arrival_ms": np.arange(n) + 2_000,
        "label": np.array(label, np.int8),
        "click_delay_ms": np.full(n, -1),
        "weight": np.ones(n, np.float32),
        "source": ["u"] * n,
        "vendor": ["v"] * n,
        "item": ["i"] * n,
        "prediction": np.full(n, np.nan, np.float32),
        "model_version": [""] * n,
    }
    return pa.record_batch(values)


def test_a_gradient_weighs_by_the_models_own_answer() -> None:
    model = make_model(ModelConfig(prior_rate=0.2, reduction="sum"))
    prepared = gradient.prepare(model, rows([1, 0]))
    pulled = {t: np.zeros((len(k), 1), np.float32) for t, k in prepared.keys.items()}
    plain = gradient.compute(model, prepared, pulled, {})
    weighed = gradient.compute(model, prepared, pulled, {}, Correction(1.0))
    sums = [
        one.gradients["weights"].mean() for one in (plain, weighed)
    ]  # every feature has the same
    assert sums[0] == pytest.approx(-0.8 + 0.2, rel=1e-5)
    assert sums[1] == pytest.approx(1.2 * -0.8 + 0.96 * 0.2, rel=1e-5)
    calibrated = gradient.compute(model, prepared, pulled, {}, Correction(1.0, in_loss=False))
    np.testing.assert_allclose(calibrated.prediction, 0.25, rtol=1e-5)


def test_an_evaluation_of_a_late_click_takes_its_negative_back() -> None:
    def evaluated(chain: str, label: list[int], corrections: bool = True) -> dict:
        computed = BatchGradients(
            rows(label), np.full(len(label), 0.2, np.float32), event_time_max_ms=5
        )
        at = Batch(0, chain, 0, 10, 0, 1, len(label))
        scoring = Scoring("m", "l", 0.1, corrections=corrections)
        return evaluate(scoring, at, computed, 1, Published("m", True, 10))

    first, late = evaluated("label/0", [0, 0, 1]), evaluated("late/0", [1])
    total = {
        name: first[name] + late[name]
        for name in ("rows", "log_loss_sum", "prediction_sum", "label_sum")
    }
    assert (total["rows"], total["label_sum"]) == (3, 2)
    assert total["log_loss_sum"] == pytest.approx(-2 * math.log(0.2) - math.log(0.8), rel=1e-6)
    assert total["prediction_sum"] == pytest.approx(0.6)
    released = evaluated(
        "late/0", [1], corrections=False
    )  # strategy 'window': it was no row before
    assert (released["rows"], released["log_loss_sum"]) == (
        1,
        pytest.approx(-math.log(0.2), rel=1e-6),
    )
