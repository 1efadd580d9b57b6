"""The optimizers that run on a shard: a row of float32 holds the weights and, behind them, their state.

One kernel call updates a whole batch of rows: `apply(slab, rows, gradients)` with `slab` (n, stride), `rows` (m,)
int64 row numbers, each at most once, and `gradients` (m, dim): the sum over the batch of each key's gradient. A dense
array is a slab of one row. Arithmetic inside a step is float64 where float32 would cancel (FTRL, Adam); what is kept
is float32. Options and defaults are the fields of the classes.
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paramserver.kernel import kernel
from paramserver.messages import Rows

RowNumbers = npt.NDArray[np.int64]


class Optimizer(Protocol):
    """What tables and dense arrays ask of an optimizer."""

    def state_size(self, dim: int) -> int:
        """Floats of state behind `dim` weights."""

    def initialize(self, slab: Rows, dim: int) -> None:
        """Complete new rows whose first `dim` floats are their initial weights."""

    def apply(
        self, slab: Rows, rows: RowNumbers, gradients: Rows, scale: float = 1.0, meanwhile: Rows | None = None
    ) -> None:
        """One step for each of `rows`. `scale` multiplies the rate of this step alone, not what accumulators take;
        `meanwhile` (m, dim): the gradients applied since these were computed, for who revises (`compensation`)."""

    def weights(self, slab: Rows, rows: RowNumbers, out: Rows) -> None:
        """Write the weights of each row number >= 0 into `out` (m, dim); leave the others' rows of `out` alone."""


@kernel
def _gather(slab: Rows, rows: RowNumbers, out: Rows) -> None:
    dim = out.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        if r >= 0:
            for j in range(dim):
                out[i, j] = slab[r, j]


@kernel
def _sgd(slab: Rows, rows: RowNumbers, gradients: Rows, rate: np.float32) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        for j in range(dim):
            slab[r, j] -= rate * gradients[i, j]


@kernel
def _adagrad(slab: Rows, rows: RowNumbers, gradients: Rows, rate: np.float32, epsilon: np.float32) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        for j in range(dim):
            g = gradients[i, j]
            total = slab[r, dim + j] + g * g
            slab[r, dim + j] = total
            slab[r, j] -= rate * g / (np.sqrt(total) + epsilon)


@kernel
def _adam(
    slab: Rows, rows: RowNumbers, gradients: Rows, rate: float, beta1: float, beta2: float, epsilon: float
) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        # The step count is the last float of the row: exact to 2^24, where both corrections have long been 1.
        step = np.float64(slab[r, 3 * dim]) + 1.0
        slab[r, 3 * dim] = np.float32(step)
        correction1 = 1.0 - beta1**step
        correction2 = np.sqrt(1.0 - beta2**step)
        for j in range(dim):
            g = np.float64(gradients[i, j])
            m = np.float64(slab[r, dim + j])
            m += (1.0 - beta1) * (g - m)
            v = beta2 * np.float64(slab[r, 2 * dim + j]) + (1.0 - beta2) * g * g
            slab[r, dim + j] = np.float32(m)
            slab[r, 2 * dim + j] = np.float32(v)
            step_size = rate / correction1 * m / (np.sqrt(v) / correction2 + epsilon)
            slab[r, j] = np.float32(np.float64(slab[r, j]) - step_size)


@kernel
def _ftrl_weight(z: np.float64, n: np.float64, alpha: float, beta: float, l1: float, l2: float) -> np.float64:
    """w of (z, n), without a branch: McMahan et al. 2013, Algorithm 1."""
    shrunk = max(abs(z) - l1, 0.0)
    return np.float64(-np.copysign(shrunk, z) / ((beta + np.sqrt(n)) / alpha + l2))


@kernel
def _ftrl(
    slab: Rows, rows: RowNumbers, gradients: Rows, alpha: float, beta: float, l1: float, l2: float, scale: float
) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        for j in range(dim):
            g = np.float64(gradients[i, j])
            z = np.float64(slab[r, j])
            n = np.float64(slab[r, dim + j])
            # The shard's own present w, not the one that the learner pulled: with l1 = l2 = 0 the step is then
            # exactly w - scale * rate * g, however stale the gradient.
            w = _ftrl_weight(z, n, alpha, beta, l1, l2)
            sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
            slab[r, j] = np.float32(z + scale * g - sigma * w)
            slab[r, dim + j] = np.float32(n + g * g)


@kernel
def _ftrl_gather(slab: Rows, rows: RowNumbers, out: Rows, alpha: float, beta: float, l1: float, l2: float) -> None:
    dim = out.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        if r >= 0:
            for j in range(dim):
                z = np.float64(slab[r, j])
                out[i, j] = np.float32(_ftrl_weight(z, np.float64(slab[r, dim + j]), alpha, beta, l1, l2))


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"{type(owner).__name__} option {name} = {value}: must be above 0 and finite")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < float("inf"):
            raise ValueError(f"{type(owner).__name__} option {name} = {value}: must be 0 or above and finite")


@dataclass(frozen=True)
class Sgd:
    """w -= rate * g."""

    rate: float = 0.05

    def __post_init__(self) -> None:
        _positive(self, "rate")

    def state_size(self, dim: int) -> int:
        return 0

    def initialize(self, slab: Rows, dim: int) -> None:
        pass

    def apply(
        self, slab: Rows, rows: RowNumbers, gradients: Rows, scale: float = 1.0, meanwhile: Rows | None = None
    ) -> None:
        _sgd(slab, rows, gradients, np.float32(self.rate * scale))

    def weights(self, slab: Rows, rows: RowNumbers, out: Rows) -> None:
        _gather(slab, rows, out)


@dataclass(frozen=True)
class Adagrad:
    """G += g^2; w -= rate * g / (sqrt(G) + epsilon), element by element (Duchi et al. 2011). State: G."""

    rate: float = 0.05
    epsilon: float = 1e-8
    accumulator: float = 0.1  # G of a new row: damps the first steps

    def __post_init__(self) -> None:
        _positive(self, "rate", "epsilon")
        _not_negative(self, "accumulator")

    def state_size(self, dim: int) -> int:
        return dim

    def initialize(self, slab: Rows, dim: int) -> None:
        slab[:, dim:] = self.accumulator

    def apply(
        self, slab: Rows, rows: RowNumbers, gradients: Rows, scale: float = 1.0, meanwhile: Rows | None = None
    ) -> None:
        _adagrad(slab, rows, gradients, np.float32(self.rate * scale), np.float32(self.epsilon))

    def weights(self, slab: Rows, rows: RowNumbers, out: Rows) -> None:
        _gather(slab, rows, out)


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma and Ba 2015). State: m, v, and the row's own step count."""

    rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _positive(self, "rate", "epsilon")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Adam option {name} = {getattr(self, name)}: must be in [0, 1)")

    def state_size(self, dim: int) -> int:
        return 2 * dim + 1

    def initialize(self, slab: Rows, dim: int) -> None:
        slab[:, dim:] = 0.0

    def apply(
        self, slab: Rows, rows: RowNumbers, gradients: Rows, scale: float = 1.0, meanwhile: Rows | None = None
    ) -> None:
        _adam(slab, rows, gradients, self.rate * scale, self.beta1, self.beta2, self.epsilon)

    def weights(self, slab: Rows, rows: RowNumbers, out: Rows) -> None:
        _gather(slab, rows, out)


@dataclass(frozen=True)
class Ftrl:
    """FTRL-Proximal (McMahan et al. 2013, Algorithm 1). A row is (z, n); w is derived when it is asked for."""

    alpha: float = 0.05  # the step size
    beta: float = 1.0  # smooths the first steps
    l1: float = 0.0  # |z| <= l1 gives w = 0 exactly
    l2: float = 0.0

    def __post_init__(self) -> None:
        _positive(self, "alpha")
        _not_negative(self, "beta", "l1", "l2")
        if self.beta == 0 and self.l2 == 0:
            raise ValueError(
                "Ftrl options beta = 0 and l2 = 0: a row without gradients would be 0 / 0; set beta above 0"
            )

    def state_size(self, dim: int) -> int:
        return dim

    def initialize(self, slab: Rows, dim: int) -> None:
        """Choose z so that w, derived with n = 0, is the initial weight."""
        weights = slab[:, :dim].astype(np.float64)
        strength = self.beta / self.alpha + self.l2
        slab[:, :dim] = -(weights * strength) - np.sign(weights) * self.l1
        slab[:, dim:] = 0.0

    def apply(
        self, slab: Rows, rows: RowNumbers, gradients: Rows, scale: float = 1.0, meanwhile: Rows | None = None
    ) -> None:
        _ftrl(slab, rows, gradients, self.alpha, self.beta, self.l1, self.l2, scale)

    def weights(self, slab: Rows, rows: RowNumbers, out: Rows) -> None:
        _ftrl_gather(slab, rows, out, self.alpha, self.beta, self.l1, self.l2)


@kernel
def _adaptive_revision(
    slab: Rows, rows: RowNumbers, gradients: Rows, meanwhile: Rows, rate: float, scale: float
) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        for j in range(dim):
            g, applied = np.float64(gradients[i, j]), np.float64(meanwhile[i, j])
            rate_before = rate / np.sqrt(np.float64(slab[r, 2 * dim + j]))
            total = np.float64(slab[r, dim + j]) + g * g + 2.0 * g * applied
            largest = max(total, np.float64(slab[r, 2 * dim + j]))
            rate_now = rate / np.sqrt(largest)
            step = scale * rate_now * g - (rate_before - rate_now) * applied
            slab[r, dim + j] = np.float32(total)
            slab[r, 2 * dim + j] = np.float32(largest)
            slab[r, j] = np.float32(np.float64(slab[r, j]) - step)


@dataclass(frozen=True)
class AdaptiveRevision:
    """AdaptiveRevision (McMahan and Streeter 2014): Adagrad, where nothing was applied `meanwhile` (g_b). State: z, z'.

    z += g^2 + 2 g g_b; z' = max(z, z'); the rate falls from r = rate / sqrt(z') before to r' after, and
    w -= r' g - (r - r') g_b, which revises the steps that were applied meanwhile. g_b comes with the compensation of
    that name.
    """

    rate: float = 0.05
    accumulator: float = 0.1  # z and z' of a new row

    def __post_init__(self) -> None:
        _positive(self, "rate", "accumulator")

    def state_size(self, dim: int) -> int:
        return 2 * dim

    def initialize(self, slab: Rows, dim: int) -> None:
        slab[:, dim:] = self.accumulator

    def apply(
        self, slab: Rows, rows: RowNumbers, gradients: Rows, scale: float = 1.0, meanwhile: Rows | None = None
    ) -> None:
        applied = np.zeros_like(gradients) if meanwhile is None else meanwhile
        _adaptive_revision(slab, rows, gradients, applied, self.rate, scale)

    def weights(self, slab: Rows, rows: RowNumbers, out: Rows) -> None:
        _gather(slab, rows, out)


OPTIMIZERS: dict[str, type[Sgd] | type[Adagrad] | type[Adam] | type[Ftrl] | type[AdaptiveRevision]] = {
    "sgd": Sgd,
    "adagrad": Adagrad,
    "adam": Adam,
    "ftrl": Ftrl,
    "adaptive_revision": AdaptiveRevision,
}


def make_optimizer(name: str, options: dict[str, float]) -> Optimizer:
    """The optimizer of a spec. ValueError names an unknown optimizer or option, what is allowed, and the nearest."""
    kind = OPTIMIZERS.get(name)
    if kind is None:
        raise ValueError(f"optimizer {name!r}: allowed are {', '.join(OPTIMIZERS)}")
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"optimizer {name!r} has no option {option!r}: allowed are {', '.join(known)}{hint}")
    return kind(**options)
