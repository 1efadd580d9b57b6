"""Each optimizer against an implementation that is not ours: torch.optim, river, or the paper's
formula in float64."""

import math

import numpy as np
import pytest
import torch
from river.optim import FTRLProximal

from paramserver.messages import DenseSpec, TableSpec
from paramserver.optim.optimizers import OPTIMIZERS, Optimizer, make_optimizer
from paramserver.tables import Dense, Table

DIM, ROWS, STEPS = 5, 7, 40


def random_gradients(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.7, (STEPS, ROWS, DIM)).astype(np.float32)


def run(optimizer: Optimizer, start: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Weights after all steps, rows in a scrambled order of a larger row store."""
    row_store = np.full((3 * ROWS, DIM + optimizer.state_size(DIM)), np.nan, np.float32)
    rows = np.random.default_rng(9).permutation(3 * ROWS)[:ROWS]
    new = np.empty((ROWS, row_store.shape[1]), np.float32)
    new[:, :DIM] = start
    optimizer.initialize(new, DIM)
    row_store[rows] = new
    for step in gradients:
        optimizer.apply(row_store, 0, rows, step)
    out = np.empty((ROWS, DIM), np.float32)
    optimizer.weights(row_store, 0, rows, out)
    untouched = np.setdiff1d(np.arange(3 * ROWS), rows)
    assert np.isnan(row_store[untouched]).all()
    return out


START = np.random.default_rng(1).uniform(-0.1, 0.1, (ROWS, DIM)).astype(np.float32)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("sgd", {"rate": 0.03}), lambda p: torch.optim.SGD(p, lr=0.03)),
        (
            ("adagrad", {"rate": 0.07, "epsilon": 1e-7, "accumulator": 0.3}),
            lambda p: torch.optim.Adagrad(p, lr=0.07, eps=1e-7, initial_accumulator_value=0.3),
        ),
        (
            ("adam", {"rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6}),
            lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6),
        ),
    ],
)
def test_equals_torch_in_float64(ours, theirs):
    gradients = random_gradients(3)
    weight = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = theirs([weight])
    for step in gradients:
        weight.grad = torch.tensor(step, dtype=torch.float64)
        optimizer.step()
    got = run(make_optimizer(*ours), START, gradients)
    np.testing.assert_allclose(got, weight.detach().numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.4, "beta": 1.0, "l1": 0.0, "l2": 0.0},
        {"alpha": 0.1, "beta": 2.0, "l1": 0.5, "l2": 0.3},
    ],
)
def test_ftrl_equals_the_papers_algorithm_in_float64(options):
    """McMahan et al. 2013, Algorithm 1, for a gradient that is given; from w = 0."""
    gradients = random_gradients(4)
    alpha, beta, l1, l2 = options["alpha"], options["beta"], options["l1"], options["l2"]
    expected = np.zeros((ROWS, DIM))
    for r in range(ROWS):
        for j in range(DIM):
            z = n = w = 0.0
            for g in map(float, gradients[:, r, j]):
                sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / alpha
                z += g - sigma * w
                n += g * g
                w = (
                    0.0
                    if abs(z) <= l1
                    else -(z - math.copysign(l1, z)) / ((beta + math.sqrt(n)) / alpha + l2)
                )
            expected[r, j] = w
    got = run(make_optimizer("ftrl", options), np.zeros((ROWS, DIM), np.float32), gradients)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert (got == 0).any() == (l1 > 0)


def test_ftrl_equals_river():
    """Without l1: where |z| <= l1 river leaves w as it was, the paper sets it to 0."""
    gradients = random_gradients(5)[:, 0, :]
    river = FTRLProximal(alpha=0.3, beta=1.0, l1=0.0, l2=0.2)
    theirs = dict.fromkeys(range(DIM), 0.0)
    for step in gradients:
        theirs = river.step(theirs, {j: float(step[j]) for j in range(DIM)})
    # river derives w at the start of a step, before it takes the gradient in: one more step with
    # gradient 0.
    theirs = river.step(theirs, dict.fromkeys(range(DIM), 0.0))
    ours = run(
        make_optimizer("ftrl", {"alpha": 0.3, "beta": 1.0, "l1": 0.0, "l2": 0.2}),
        np.zeros((ROWS, DIM), np.float32),
        np.repeat(gradients[:, None, :], ROWS, axis=1),
    )
    np.testing.assert_allclose(ours[0], [theirs[j] for j in range(DIM)], rtol=1e-6, atol=1e-6)


def test_ftrl_without_regularisation_steps_from_its_own_weight():
    """With l1 = l2 = 0 a step is w - g * alpha / (beta + sqrt(n)) exactly, whoever computed g
    and when."""
    optimizer = make_optimizer("ftrl", {"alpha": 0.4, "beta": 1.0})
    gradients = random_gradients(6)[:, :1, :1]
    w, n = 0.05, 0.0
    start = np.full((1, 1), w, np.float32)
    for g in map(float, gradients.ravel()):
        n += g * g
        w -= 0.4 / (1.0 + math.sqrt(n)) * g
    row_store = np.zeros((1, 2), np.float32)
    row_store[:, :1] = start
    optimizer.initialize(row_store, 1)
    out = np.empty((1, 1), np.float32)
    for step in gradients:
        optimizer.apply(row_store, 0, np.zeros(1, np.int64), step)
    optimizer.weights(row_store, 0, np.zeros(1, np.int64), out)
    assert out[0, 0] == pytest.approx(w, abs=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_initial_weights_are_what_is_asked_for(name):
    np.testing.assert_allclose(
        run(make_optimizer(name, {}), START, random_gradients(1)[:0]), START, rtol=1e-6
    )


def test_ftrl_initial_weights_survive_l1():
    optimizer = make_optimizer("ftrl", {"alpha": 0.1, "l1": 0.5, "l2": 0.2})
    np.testing.assert_allclose(run(optimizer, START, random_gradients(1)[:0]), START, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("adagard", {}, "allowed are sgd, adagrad"),
        ("adagrad", {"epsilom": 1}, "did you mean 'epsilon'"),
        ("sgd", {"rate": 0.0}, "rate = 0.0"),
        ("sgd", {"rate": float("nan")}, "rate = nan"),
        ("adam", {"beta2": 1.0}, "beta2 = 1.0"),
        ("ftrl", {"l1": -1.0}, "l1 = -1.0"),
    ],
)
def test_bad_options_are_named(name, options, words):
    with pytest.raises(ValueError, match=words):
        make_optimizer(name, options)


def test_rowwise_adagrad_equals_its_formula_in_float64():
    rng = np.random.default_rng(8)
    start = rng.normal(size=(ROWS, DIM)).astype(np.float32)
    gradients = rng.normal(size=(60, ROWS, DIM)).astype(np.float32)
    weight, total = (
        torch.tensor(start, dtype=torch.float64),
        torch.full((ROWS, 1), 0.2, dtype=torch.float64),
    )
    for step in torch.tensor(gradients, dtype=torch.float64):
        total += step.square().mean(1, keepdim=True)
        weight -= 0.1 * step / (total.sqrt() + 1e-8)
    optimizer = make_optimizer("rowwise_adagrad", {"rate": 0.1, "accumulator": 0.2})
    np.testing.assert_allclose(
        run(optimizer, start, gradients), weight.numpy(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(("name", "floats"), [("adagrad", 2), ("rowwise_adagrad", 1)])
def test_accumulators_decay_once_a_period_and_not_below_those_of_a_new_row(name, floats):
    spec = TableSpec(
        "t", 2, name, {"rate": 1.0, "accumulator": 0.1, "decay_ms": 1000, "decay_share": 0.5}
    )
    table, keys = Table(spec), np.arange(2, dtype=np.uint64)
    for version, (now_ms, gradient) in enumerate([(1500, 2.0), (1900, 0.0), (4000, 0.0)], 1):
        table.reserve(keys)
        table.apply(keys, np.full((2, 2), gradient, np.float32), version, now_ms)
        state = table.items().rows[:, 2:]
        assert state.shape == (2, floats)
        np.testing.assert_allclose(state, 4.1 * 0.5 ** (now_ms // 1000 - 1), rtol=1e-6)
    table.apply(keys, np.zeros((2, 2), np.float32), 4, 60_000)
    np.testing.assert_allclose(table.items().rows[:, 2:], 0.1, rtol=1e-6)


def test_ftrl_decay_forgets_how_much_was_seen_and_not_what():
    spec = TableSpec("t", 1, "ftrl", {"l1": 0.01, "l2": 0.1, "decay_ms": 1000, "decay_share": 0.5})
    table, keys = Table(spec), np.arange(1, dtype=np.uint64)
    for version in range(1, 20):
        table.reserve(keys)
        table.apply(keys, np.full((1, 1), 0.7, np.float32), version, 1000)
    weight, n = table.pull(keys), table.items().rows[0, 1]
    table.apply(keys, np.zeros((1, 1), np.float32), 20, 3000)
    np.testing.assert_allclose(table.pull(keys), weight, rtol=1e-6)
    np.testing.assert_allclose(table.items().rows[0, 1], n / 4, rtol=1e-6)


def test_dense_accumulators_decay_with_the_events_time():
    options = {"rate": 1.0, "accumulator": 0.1, "decay_ms": 1000.0, "decay_share": 0.5}
    dense = Dense(DenseSpec({"bias": (2,)}, "adagrad", options), ["bias"])
    dense.initialize({"bias": np.zeros(2)})
    dense.apply({"bias": np.full(2, 2.0, np.float32)})
    dense.advance(1500, 3400)
    np.testing.assert_allclose(dense.items()["bias"][2:], 4.1 / 4, rtol=1e-6)
