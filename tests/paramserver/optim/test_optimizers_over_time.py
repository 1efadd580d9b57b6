"""Optimizers through tables and dense arrays, over event time: lazy steps and decay, beside
torch or float64."""

import math

import numpy as np
import pytest
import torch

from paramserver.messages import DenseSpec, TableSpec
from paramserver.optim.optimizers import OPTIMIZERS
from paramserver.tables import Dense, Table

DIM, ROWS, STEPS = 4, 12, 60
PERIOD_MS, SHARE = 5_000, 0.7


class Story:
    """Pushes that touch some rows each, at event times that sometimes stand still and sometimes
    leap."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.now_ms = np.cumsum(rng.choice([0, 500, 2_000, 9_000, 40_000], STEPS)) + 1_000_000
        self.keys = [np.unique(rng.integers(0, ROWS, 5)) for _ in range(STEPS)]
        self.gradients = [
            rng.normal(0, 0.8, (len(keys), DIM)).astype(np.float32) for keys in self.keys
        ]

    def weights(self, spec: TableSpec) -> np.ndarray:
        """(ROWS, DIM) after all pushes, through a table."""
        table = Table(spec)
        for version, (now_ms, keys, gradients) in enumerate(
            zip(self.now_ms, self.keys, self.gradients, strict=True), 1
        ):
            table.reserve(keys.astype(np.uint64))
            table.advance(version, int(now_ms), len(keys))
            table.apply(keys.astype(np.uint64), gradients, version, int(now_ms))
        return table.pull(np.arange(ROWS, dtype=np.uint64))

    def periods(self, row: int) -> list[tuple[int, np.ndarray]]:
        """(boundaries of periods that have passed since the row's last touch, gradient) of each
        of its touches."""
        found, last = [], None
        for now_ms, keys, gradients in zip(self.now_ms, self.keys, self.gradients, strict=True):
            for at in np.flatnonzero(keys == row):
                passed = 0 if last is None else int(now_ms) // PERIOD_MS - last // PERIOD_MS
                found.append((passed, gradients[at].astype(np.float64)))
                last = int(now_ms)
        return found


def initial(spec: TableSpec) -> np.ndarray:
    return Table(spec).pull(np.arange(ROWS, dtype=np.uint64)).astype(np.float64)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rowwise", [False, True])
def test_a_decayed_accumulator_is_torchs_with_its_sum_shrunk(seed: int, rowwise: bool):
    options = {"rate": 0.1, "accumulator": 0.2, "decay_ms": float(PERIOD_MS), "decay_share": SHARE}
    spec = TableSpec("t", DIM, "rowwise_adagrad" if rowwise else "adagrad", options, init_scale=0.1)
    story, expected = Story(seed), initial(spec)
    for row in range(ROWS):
        weight = torch.nn.Parameter(torch.tensor(expected[row]))
        optimizer = torch.optim.Adagrad([weight], lr=0.1, eps=1e-8, initial_accumulator_value=0.2)
        total = optimizer.state[weight]["sum"]
        for passed, gradient in story.periods(row):
            total.copy_(torch.clamp(total * SHARE**passed, min=0.2))
            weight.grad = torch.tensor(gradient)
            if rowwise:  # torch has none: its own step, with a sum that is the same everywhere
                total += weight.grad.square().mean() - weight.grad.square()
            optimizer.step()
        expected[row] = weight.detach().numpy()
    np.testing.assert_allclose(story.weights(spec), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_decayed_ftrl_is_its_formula_in_float64(seed: int):
    """n shrinks, and z such that w stays: McMahan et al. 2013 in between."""
    alpha, beta, l1, l2 = 0.3, 1.0, 0.02, 0.1
    options = {
        "alpha": alpha,
        "beta": beta,
        "l1": l1,
        "l2": l2,
        "decay_ms": float(PERIOD_MS),
        "decay_share": SHARE,
    }
    spec, story = TableSpec("t", DIM, "ftrl", options), Story(seed)

    def weight(z: float, n: float) -> float:
        return (
            0.0
            if abs(z) <= l1
            else -(z - math.copysign(l1, z)) / ((beta + math.sqrt(n)) / alpha + l2)
        )

    expected = np.zeros((ROWS, DIM))
    for row in range(ROWS):
        for j in range(DIM):
            z = n = 0.0
            for passed, gradient in story.periods(row):
                if passed:
                    w, n = weight(z, n), n * SHARE**passed
                    if w:
                        z = -w * ((beta + math.sqrt(n)) / alpha + l2) - math.copysign(l1, w)
                g = gradient[j]
                sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / alpha
                z += g - sigma * weight(z, n)
                n += g * g
            expected[row, j] = weight(z, n)
    np.testing.assert_allclose(story.weights(spec), expected, rtol=1e-6, atol=1e-6)


def test_a_lazy_row_of_adam_is_torchs_adam_of_that_row_alone():
    """Moments and corrections move with the row's own touches, whatever the others do."""
    spec, story = (
        TableSpec("t", DIM, "adam", {"rate": 0.02, "beta1": 0.8, "beta2": 0.95}, init_scale=0.1),
        Story(5),
    )
    expected = initial(spec)
    for row in range(ROWS):
        weight = torch.nn.Parameter(torch.tensor(expected[row]))
        optimizer = torch.optim.Adam([weight], lr=0.02, betas=(0.8, 0.95), eps=1e-8)
        for _, gradient in story.periods(row):
            weight.grad = torch.tensor(gradient)
            optimizer.step()
        expected[row] = weight.detach().numpy()
    np.testing.assert_allclose(story.weights(spec), expected, rtol=1e-6, atol=1e-6)


# --- the dense part
# -----------------------------------------------------------------------------------------------

SHAPES = {"hidden": (3, 5), "bias": (4,), "scale": ()}
TORCH = {
    "sgd": ({"rate": 0.03}, lambda p: torch.optim.SGD(p, lr=0.03)),
    "adagrad": (
        {"rate": 0.07, "accumulator": 0.3},
        lambda p: torch.optim.Adagrad(p, lr=0.07, eps=1e-8, initial_accumulator_value=0.3),
    ),
    "adam": (
        {"rate": 0.02, "beta2": 0.99},
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.9, 0.99), eps=1e-8),
    ),
    # Where nothing is applied meanwhile it is Adagrad without an epsilon.
    "adaptive_revision": (
        {"rate": 0.07, "accumulator": 0.3},
        lambda p: torch.optim.Adagrad(p, lr=0.07, eps=0.0, initial_accumulator_value=0.3),
    ),
}


def steps(seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in SHAPES.items()} for _ in range(40)
    ]


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        name: rng.uniform(-0.3, 0.3, shape).astype(np.float32) for name, shape in SHAPES.items()
    }


def dense_of(name: str, options: dict[str, float]) -> Dense:
    dense = Dense(DenseSpec(SHAPES, name, options), list(SHAPES))
    dense.initialize(start())
    return dense


@pytest.mark.parametrize("name", TORCH)
def test_dense_arrays_step_as_torchs_do(name: str):
    options, make = TORCH[name]
    dense, parameters = (
        dense_of(name, options),
        {n: torch.nn.Parameter(torch.tensor(a.astype(np.float64))) for n, a in start().items()},
    )
    optimizer = make(list(parameters.values()))
    for gradients in steps(7):
        dense.apply(gradients)
        for n, gradient in gradients.items():
            parameters[n].grad = torch.tensor(gradient.astype(np.float64))
        optimizer.step()
    for n, array in dense.pull().items():
        np.testing.assert_allclose(array, parameters[n].detach().numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rowwise_adagrad"])
def test_a_dense_array_steps_as_a_row_of_a_table_does(name: str):
    """Also those that torch lacks: the row kernels have their own checks."""
    dense, table = dense_of(name, {}), Table(TableSpec("t", 15, name))
    keys = np.zeros(1, np.uint64)
    dense.initialize({n: np.zeros(shape, np.float32) for n, shape in SHAPES.items()})
    for version, gradients in enumerate(steps(8), 1):
        dense.apply({"hidden": gradients["hidden"]})
        table.reserve(keys)
        table.apply(keys, gradients["hidden"].reshape(1, 15), version, 0)
    np.testing.assert_array_equal(dense.pull()["hidden"].reshape(1, 15), table.pull(keys))


def test_a_dense_accumulator_decays_as_torchs_with_its_sum_shrunk():
    options = {"rate": 0.1, "accumulator": 0.2, "decay_ms": float(PERIOD_MS), "decay_share": SHARE}
    dense, parameters = (
        dense_of("adagrad", options),
        {n: torch.nn.Parameter(torch.tensor(a.astype(np.float64))) for n, a in start().items()},
    )
    optimizer = torch.optim.Adagrad(
        list(parameters.values()), lr=0.1, eps=1e-8, initial_accumulator_value=0.2
    )
    before_ms = 0
    for now_ms, gradients in zip(Story(2).now_ms.tolist(), steps(9), strict=False):
        dense.advance(before_ms, now_ms)
        dense.apply(gradients)
        for n, parameter in parameters.items():
            total = optimizer.state[parameter]["sum"]
            total.copy_(
                torch.clamp(
                    total * SHARE ** (now_ms // PERIOD_MS - before_ms // PERIOD_MS), min=0.2
                )
            )
            parameter.grad = torch.tensor(gradients[n].astype(np.float64))
        optimizer.step()
        before_ms = now_ms
    for n, array in dense.pull().items():
        np.testing.assert_allclose(array, parameters[n].detach().numpy(), rtol=1e-6, atol=1e-6)
