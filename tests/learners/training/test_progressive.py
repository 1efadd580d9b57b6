"""The two losses: against plain formulas, and what counts as served."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from learners.config import ModelConfig
from learners.models import make_model
from learners.pacing import Batch
from learners.training import gradient, progressive
from learners.training.gradient import BatchGradients
from learners.training.progressive import Published, Scoring, auc, evaluate

MODEL = make_model(ModelConfig(prior_rate=0.25))


def rows(count: int, **columns: object) -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    values = {
        "position": np.arange(count),
        "ts_ms": np.arange(count) + 1_000,
        "arrival_ms": np.arange(count) + 2_000,
        "label": rng.integers(0, 2, count).astype(np.int8),
        "weight": np.full(count, 7.0, np.float32),
        "source": [f"u{i}" for i in rng.integers(0, 4, count)],
        "vendor": [f"v{i % 3}" for i in range(count)],
        "item": ["i"] * count,
        "prediction": np.full(count, np.nan, np.float32),
        "model_version": [""] * count,
    }
    return pa.record_batch({**values, **columns})


def evaluation(
    batch: pa.RecordBatch, prediction: np.ndarray, published: Published, **options: object
):
    computed = BatchGradients(batch, prediction.astype(np.float32), event_time_max_ms=5)
    at = Batch(1, "label/1", 0, batch.num_rows, 0, 1, batch.num_rows)
    scoring = Scoring("clicks", "learner-0", 0.25, **options)
    return evaluate(scoring, at, computed, 9, published)


def published(*versions: tuple[str, int, int], live: bool = True) -> Published:
    known = Published("clicks", live, 10)
    for name, created_ms, learned_ms in versions:
        said = {"kind": "published", "model": "clicks", "name": name, "created_ms": created_ms}
        known.announced({**said, "event_time_max_ms": learned_ms})
    return known


def test_sums_are_those_of_the_formulas() -> None:
    batch = rows(50)
    p = np.random.default_rng(1).uniform(0.05, 0.95, 50)
    y = batch["label"].to_numpy()
    e = evaluation(batch, p, published())
    assert e["log_loss_sum"] == pytest.approx(
        -sum(math.log(q if label else 1 - q) for q, label in zip(p, y, strict=True)), 1e-5
    )
    assert e["base_log_loss_sum"] == pytest.approx(
        -sum(math.log(0.25 if label else 0.75) for label in y)
    )
    assert (e["rows"], e["clicks"], e["label_sum"]) == (50, y.sum(), y.sum())
    assert e["prediction_sum"] == pytest.approx(p.sum(), 1e-6)
    assert e["served_rows"] == 0
    assert json.loads(json.dumps(e)) == e


def test_the_first_batch_of_a_model_is_scored_at_the_prior() -> None:
    batch = rows(20)
    prepared = gradient.prepare(MODEL, batch)
    pulled = {"weights": np.zeros((len(prepared.keys["weights"]), 1), np.float32)}
    computed = gradient.compute(MODEL, prepared, pulled, {})
    e = evaluation(batch, computed.prediction, published())
    assert e["log_loss_sum"] == pytest.approx(e["base_log_loss_sum"], 1e-6)


def test_a_served_prediction_counts_only_of_a_version_published_before_the_arrival() -> None:
    versions = ["v1", "v2", "v3", "", "unknown", "v1"]
    prediction = np.array([0.5, 0.5, 0.5, 0.5, 0.5, np.nan], np.float32)
    batch = rows(6, model_version=versions, prediction=prediction)  # arrivals 2000, 2001, ...
    known = published(("v1", 1_999, 0), ("v2", 2_001, 0), ("v3", 0, 2_002))
    assert known.served(batch).tolist() == [True, False, False, False, False, False]
    e = evaluation(batch, np.full(6, 0.9), known)
    assert e["served_rows"] == 1
    assert e["served_log_loss_sum"] == pytest.approx(math.log(2)), (
        "of what was served, not of what is predicted now"
    )


def test_on_a_replay_the_clock_of_the_announcement_is_not_historys() -> None:
    batch = rows(2, model_version=["v1", "v2"], prediction=np.array([0.5, 0.5], np.float32))
    known = published(("v1", 10**12, 1_000), ("v2", 10**12, 3_000), live=False)
    assert known.served(batch).tolist() == [True, False]


def test_versions_are_bounded_and_unknown_ones_are_told() -> None:
    known = published(*((f"v{i}", 0, 0) for i in range(20)))
    assert not known.unknown(pa.array(["v19", ""]))
    assert known.unknown(pa.array(["v0"]))


def test_slices_sum_to_the_whole_and_are_bounded() -> None:
    batch = rows(50)
    e = evaluation(batch, np.full(50, 0.4), published(), slices=("vendor", "source"), slices_max=2)
    for name in ("vendor", "source"):
        values = np.array(list(e["slices"][name].values()))
        assert len(values) == 3
        np.testing.assert_allclose(
            values.sum(axis=0),
            [50, e["log_loss_sum"], e["prediction_sum"], e["label_sum"]],
            rtol=1e-6,
        )


def test_features_are_slices_by_their_names_and_without_one_all_are_missing() -> None:
    batch = rows(4)
    for name, values in (
        ("f_language", pa.array(["de", "", "de", "en"])),
        ("f_tags", pa.array([["a"], [], ["b", "c"], []], pa.list_(pa.string()))),
    ):
        batch = batch.append_column(name, values)
    slices = ("language", "f_language", "tags", "later")
    said = evaluation(batch, np.full(4, 0.4), published(), slices=slices)["slices"]
    counts = {n: {v: sums[0] for v, sums in of.items()} for n, of in said.items()}
    assert counts["language"] == counts["f_language"] == {"de": 2, "": 1, "en": 1}
    assert counts["tags"] == {"given": 2, "": 2}
    assert counts["later"] == {"": 4}


def test_auc_of_bins_is_near_that_of_the_ranks() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4_000)
    logit = rng.normal(0, 1.5, 4_000) + y
    p = 1 / (1 + np.exp(-logit))
    batch = rows(4_000, label=y.astype(np.int8))
    e = evaluation(batch, p, published())
    ranks = np.empty(4_000)
    ranks[np.argsort(p)] = np.arange(4_000)
    exact = (ranks[y == 1].sum() - y.sum() * (y.sum() - 1) / 2) / (y.sum() * (4_000 - y.sum()))
    assert auc(e["bins"]) == pytest.approx(exact, abs=0.005)
    np.testing.assert_allclose(
        np.sum(e["bins"], axis=0), [4_000, e["prediction_sum"], e["label_sum"]], rtol=1e-4
    )
    assert math.isnan(auc([[1, 0.5, 1]]))
    assert len(e["bins"]) == progressive.BINS
