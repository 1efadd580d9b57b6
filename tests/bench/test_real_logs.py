"""The pieces of `bench.real_logs` on EB-NeRD: its labels, what follows what, and that learners
which should be one learner are."""

import dataclasses
import importlib.util
import json

import numpy as np
import pyarrow as pa
import pytest

from bench.baselines.plain_learners import Ftrl, Rows, Step, Torch, run, vowpal_wabbit
from bench.end_to_end import real_logs as bench
from everspun import config as config_file
from everspun.replay import history

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def recorded() -> history.History:
    return history.load(bench.LOGS["ebnerd"][1], bench.CACHE)


@pytest.fixture(scope="module")
def log(recorded: history.History) -> bench.Labelled:
    config = config_file.loads(bench.LOGS["ebnerd"][0].read_text(), bench.ALONE)
    return bench.label(config, recorded)


def other_labels(log: bench.Labelled) -> np.ndarray:
    return (1 - log.label).astype(np.int8)


def test_labels_are_those_of_another_join_and_a_wrong_one_is_counted(log, recorded):
    window_ms = log.config.stream.window_ms
    assert (len(log.ids), bench.labels_wrong(log, recorded, window_ms)) == (10_848, 0)
    assert 0 < log.label.sum() <= 1_047
    at = log.rows.schema.get_field_index("label")
    flipped = log.rows.set_column(at, log.rows.schema.field(at), pa.array(other_labels(log)))
    other = dataclasses.replace(log, rows=flipped)
    assert bench.labels_wrong(other, recorded, window_ms) == 10_848
    doubled = dataclasses.replace(log, ids=[log.ids[0], *log.ids[1:-1], log.ids[0]])
    assert bench.labels_wrong(doubled, recorded, window_ms) >= 2


def test_nothing_is_answered_by_what_was_decided_later(log):
    steps = bench.schedule(log, HOUR_MS)
    arrival, decided = log.rows.column("arrival_ms").to_numpy(), np.empty(len(log.ids), np.int64)
    for b, at_ms in enumerate(log.decided_ms):
        decided[log.ends[b] : log.ends[b + 1]] = at_ms
    known = -1
    for step in steps:
        if step.learn:
            known = max(known, int(decided[step.rows].max()))
        else:
            period = arrival[step.rows].min() // HOUR_MS
            assert (arrival[step.rows] // HOUR_MS == period).all()
            assert known < (period + 1) * HOUR_MS
            assert known // HOUR_MS < period
    for learns in (True, False):
        rows = np.concatenate([step.rows for step in steps if step.learn == learns])
        assert (np.sort(rows) == np.arange(len(log.ids))).all()


def readings(rng: np.random.Generator, n: int) -> tuple[list, np.ndarray]:
    rows = [[(int(k), float(rng.normal())) for k in rng.integers(0, 9, 3)] for _ in range(n)]
    return rows, (rng.random(n) < 0.4).astype(float)


def test_our_model_is_the_row_by_row_ftrl_where_each_batch_is_a_row(log):
    few = np.arange(400)
    alone = dataclasses.replace(
        log, rows=log.rows.slice(0, 400), ends=list(range(401)), decided_ms=[0] * 400
    )
    steps = [Step(True, few[i : i + 1]) for i in few]
    model = log.config.model
    ours = np.concatenate(list(run(bench.Ours(alone), steps)))
    table = alone.rows.to_pylist()
    found = bench.reference_features.read(table, model.declared, model.categorical, model.numeric)
    rows = Rows.of(found, alone.label)
    theirs = Ftrl(rows, model.prior_rate, model.table_options["alpha"])
    assert ours == pytest.approx(theirs.learn(few), abs=1e-4)
    assert np.ptp(ours) > 0.01
    said = theirs.predict(few)
    assert (said == theirs.predict(few)).all()
    assert said.tolist() != theirs.learn(few).tolist()


@pytest.mark.parametrize("dim", [0, 3])
def test_torch_predicts_before_it_learns_and_learns(dim):
    table, label = readings(np.random.default_rng(1), 64)
    torch = Torch(Rows.of(table, label), 0.4, 0.3, dim)
    rows = np.arange(64)
    before = torch.predict(rows)
    assert torch.learn(rows) == pytest.approx(before)
    for _ in range(30):
        torch.learn(rows)

    def loss(p):
        return -(label * np.log(p) + (1 - label) * np.log(1 - p)).mean()

    assert loss(torch.predict(rows)) < loss(before)


def test_torchs_pairs_are_those_of_a_factorization_machine():
    torch = Torch(Rows.of([[(0, 1.0), (1, 2.0), (2, -1.0)]], np.ones(1)), 0.5, 0.1, 2)
    w = torch._bag.weight.detach().numpy().astype(float)
    x = np.array([1.0, 2.0, -1.0])
    pairs = sum(w[i, 1:] @ w[j, 1:] * x[i] * x[j] for i in range(3) for j in range(i))
    assert torch.predict(np.array([0]))[0] == pytest.approx(
        1 / (1 + np.exp(-(w[:, 0] @ x + pairs)))
    )


@pytest.mark.skipif(
    importlib.util.find_spec("vowpalwabbit") is None, reason="pip install vowpalwabbit"
)
def test_vowpal_wabbit_learns_what_has_a_label_alone():
    table, label = readings(np.random.default_rng(2), 50)
    rows, all_rows = Rows.of(table, label), np.arange(50)
    asked, learned = Step(False, all_rows), Step(True, all_rows)
    first, again, _, after = vowpal_wabbit(rows, [asked, asked, learned, asked], "")
    assert (first == again).all()
    assert np.abs(after - first).max() > 0.01


def test_entropy_of_the_mean_rate_is_one():
    steps = [Step(False, np.arange(10)), Step(True, np.arange(10))]
    label = (np.arange(10) < 3).astype(float)
    found = bench.entropies(steps, [np.full(10, 0.3), np.full(10, 0.5)], label)
    assert found["as_served"] == pytest.approx(1.0)
    assert found["progressive"] > 1.1


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_excess_of_each_log_stands_in_the_line(wrong, monkeypatch, capsys):
    def measured(name, few, more):
        assert (few, more) == (True, bench.OURS)
        excess = {"ebnerd": -0.0028, "movielens": 0.007}[name]
        return {"labels_wrong": wrong, "progressive": {"excess": excess},
                "as_served": {"excess": 2 * excess}}  # fmt: skip

    monkeypatch.setattr(bench, "measure", measured)
    monkeypatch.setattr("sys.argv", ["real_logs", "--json", "--few"])
    assert bench.main() == (1 if wrong else 0)
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["ne_excess"] == {"ebnerd": -0.0028, "movielens": 0.007}
    assert found["served_excess"] == {"ebnerd": -0.0056, "movielens": 0.014}
    assert found["labels_exact"] == (not wrong)
