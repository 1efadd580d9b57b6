"""The optimizers that run on a shard: a row of float32 holds the weights and, behind them, their
state.

One kernel call updates many rows: `apply(row store, head, rows, gradients)` with `row store` (n,
head + stride), `rows` (m,) int64 row numbers, each at most once, -1 = none, and `gradients` (m,
dim): the sum over the batch of each key's gradient. A dense array is a row store of one row.
Arithmetic inside a step is float64 where float32 would cancel (FTRL, Adam); what is kept is
float32. Options and defaults are the fields of the classes.
"""

from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Protocol

import numpy as np

from paramserver.messages import Rows
from paramserver.optim import kernels
from paramserver.optim.kernels import Periods, RowNumbers


class Optimizer(Protocol):
    """What tables and dense arrays ask of an optimizer."""

    def state_size(self, dim: int) -> int:
        """Floats of state behind `dim` weights."""

    def read_size(self, dim: int) -> int:
        """Floats of a row that its weights are derived from."""

    @property
    def decay_ms(self) -> float:
        """The period of event time after which accumulators decay; 0 = never."""

    def initialize(self, row_store: Rows, dim: int) -> None:
        """Complete new rows whose first `dim` floats are their initial weights."""

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        """One step for each of `rows` (>= 0), whose floats begin at column `head`. `scale`
        multiplies the rate of this step alone, not what accumulators take; `meanwhile` (m, dim):
        the gradients applied since these were computed, for who revises (`compensation`)."""

    def weights(self, row_store: Rows, head: int, rows: RowNumbers, out: Rows) -> None:
        """Write the weights of each row number >= 0 into `out` (m, dim); leave the others' rows
        of `out` alone."""

    def decay(
        self, row_store: Rows, head: int, dim: int, rows: RowNumbers, periods: Periods
    ) -> None:
        """Decay the accumulators of each of `rows` (>= 0) as often as `periods` says."""


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 < value < float("inf"):
            raise ValueError(
                f"{type(owner).__name__} option {name} = {value}: must be above 0 and finite"
            )


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < float("inf"):
            raise ValueError(
                f"{type(owner).__name__} option {name} = {value}: must be 0 or above and finite"
            )


def _check_decay(optimizer: str, decay_ms: float, decay_share: float) -> None:
    """Periods are whole seconds: that is how finely a row remembers its last touch."""
    if not (decay_ms >= 0 and decay_ms % 1000 == 0):
        raise ValueError(
            f"{optimizer} option decay_ms = {decay_ms}: must be 0 or whole seconds, ms"
        )
    if not 0 < decay_share <= 1:
        raise ValueError(f"{optimizer} option decay_share = {decay_share}: must be in (0, 1]")


class PlainWeights:
    """Of optimizers whose rows begin with the weights themselves, where no rule derives them."""

    def read_size(self, dim: int) -> int:
        """The weights alone."""
        return dim

    def weights(self, row_store: Rows, head: int, rows: RowNumbers, out: Rows) -> None:
        """Copied as they stand."""
        kernels.gather(row_store, head, rows, out)


class WithoutDecay:
    """Of optimizers whose state knows no event time."""

    @property
    def decay_ms(self) -> float:
        """Never."""
        return 0.0

    def decay(
        self, row_store: Rows, head: int, dim: int, rows: RowNumbers, periods: Periods
    ) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Sgd(PlainWeights, WithoutDecay):
    """w -= rate * g."""

    rate: float = 0.05

    def __post_init__(self) -> None:
        _positive(self, "rate")

    def state_size(self, dim: int) -> int:
        return 0

    def initialize(self, row_store: Rows, dim: int) -> None:
        pass

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        kernels.sgd(row_store, head, rows, gradients, np.float32(self.rate * scale))


@dataclass(frozen=True)
class Adagrad(PlainWeights):
    """G += g^2; w -= rate * g / (sqrt(G) + epsilon), element by element (Duchi et al. 2011). State:
    G.

    A stream that never ends would stop every weight: each `decay_ms` of event time G becomes
    max(decay_share * G, accumulator), for a row when it is touched next.
    """

    rate: float = 0.05
    epsilon: float = 1e-8
    accumulator: float = 0.1  # G of a new row: damps the first steps
    decay_ms: float = 0.0  # 0 = never
    decay_share: float = 0.95

    def __post_init__(self) -> None:
        _positive(self, "rate", "epsilon")
        _not_negative(self, "accumulator")
        _check_decay(type(self).__name__, self.decay_ms, self.decay_share)

    def state_size(self, dim: int) -> int:
        return dim

    def initialize(self, row_store: Rows, dim: int) -> None:
        row_store[:, dim:] = self.accumulator

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        kernels.adagrad(
            row_store,
            head,
            rows,
            gradients,
            np.float32(self.rate * scale),
            np.float32(self.epsilon),
        )

    def decay(
        self, row_store: Rows, head: int, dim: int, rows: RowNumbers, periods: Periods
    ) -> None:
        first, last = head + dim, head + dim + self.state_size(dim)
        kernels.decay_accumulators(
            row_store, first, last, rows, periods, self.decay_share, np.float32(self.accumulator)
        )


@dataclass(frozen=True)
class RowwiseAdagrad(Adagrad):
    """Adagrad with one G a row, which the mean of g^2 is added to (as in fbgemm): a float of
    state instead of dim."""

    def state_size(self, dim: int) -> int:
        return 1

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        kernels.rowwise_adagrad(
            row_store,
            head,
            rows,
            gradients,
            np.float32(self.rate * scale),
            np.float32(self.epsilon),
        )


@dataclass(frozen=True)
class Adam(PlainWeights, WithoutDecay):
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

    def initialize(self, row_store: Rows, dim: int) -> None:
        row_store[:, dim:] = 0.0

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        kernels.adam(
            row_store,
            head,
            rows,
            gradients,
            self.rate * scale,
            self.beta1,
            self.beta2,
            self.epsilon,
        )


@dataclass(frozen=True)
class Ftrl:
    """FTRL-Proximal (McMahan et al. 2013, Algorithm 1). A row is (z, n); w is derived when it is
    asked for."""

    alpha: float = 0.05  # the step size
    beta: float = 1.0  # smooths the first steps
    l1: float = 0.0  # |z| <= l1 gives w = 0 exactly
    l2: float = 0.0
    decay_ms: float = (
        0.0  # each so much event time n becomes decay_share * n, with w unchanged; 0 = never
    )
    decay_share: float = 0.95

    def __post_init__(self) -> None:
        _positive(self, "alpha")
        _not_negative(self, "beta", "l1", "l2")
        _check_decay(type(self).__name__, self.decay_ms, self.decay_share)
        if self.beta == 0 and self.l2 == 0:
            raise ValueError(
                "Ftrl options beta = 0 and l2 = 0: a row without gradients would be 0 / 0; set "
                "beta above 0"
            )

    def state_size(self, dim: int) -> int:
        return dim

    def read_size(self, dim: int) -> int:
        return 2 * dim

    def initialize(self, row_store: Rows, dim: int) -> None:
        """Choose z so that w, derived with n = 0, is the initial weight."""
        weights = row_store[:, :dim].astype(np.float64)
        strength = self.beta / self.alpha + self.l2
        row_store[:, :dim] = -(weights * strength) - np.sign(weights) * self.l1
        row_store[:, dim:] = 0.0

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        kernels.ftrl(
            row_store, head, rows, gradients, self.alpha, self.beta, self.l1, self.l2, scale
        )

    def weights(self, row_store: Rows, head: int, rows: RowNumbers, out: Rows) -> None:
        kernels.ftrl_gather(row_store, head, rows, out, self.alpha, self.beta, self.l1, self.l2)

    def decay(
        self, row_store: Rows, head: int, dim: int, rows: RowNumbers, periods: Periods
    ) -> None:
        kernels.ftrl_decay(
            row_store,
            head,
            dim,
            rows,
            periods,
            self.decay_share,
            self.alpha,
            self.beta,
            self.l1,
            self.l2,
        )


@dataclass(frozen=True)
class AdaptiveRevision(PlainWeights, WithoutDecay):
    """AdaptiveRevision (McMahan and Streeter 2014): Adagrad, where nothing was applied `meanwhile`
    (g_b). State: z, z'.

    z += g^2 + 2 g g_b; z' = max(z, z'); the rate falls from r = rate / sqrt(z') before to r' after,
    and w -= r' g - (r - r') g_b, which revises the steps that were applied meanwhile. g_b comes
    with the compensation of that name.
    """

    rate: float = 0.05
    accumulator: float = 0.1  # z and z' of a new row

    def __post_init__(self) -> None:
        _positive(self, "rate", "accumulator")

    def state_size(self, dim: int) -> int:
        return 2 * dim

    def initialize(self, row_store: Rows, dim: int) -> None:
        row_store[:, dim:] = self.accumulator

    def apply(
        self,
        row_store: Rows,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        applied = np.zeros_like(gradients) if meanwhile is None else meanwhile
        kernels.adaptive_revision(row_store, head, rows, gradients, applied, self.rate, scale)


OPTIMIZERS: dict[
    str,
    type[Sgd]
    | type[Adagrad]
    | type[RowwiseAdagrad]
    | type[Adam]
    | type[Ftrl]
    | type[AdaptiveRevision],
] = {
    "sgd": Sgd,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowwiseAdagrad,
    "adam": Adam,
    "ftrl": Ftrl,
    "adaptive_revision": AdaptiveRevision,
}


def make_optimizer(name: str, options: dict[str, float]) -> Optimizer:
    """The optimizer of a spec. ValueError names an unknown optimizer or option, what is allowed,
    and the nearest."""
    kind = OPTIMIZERS.get(name)
    if kind is None:
        raise ValueError(f"optimizer {name!r}: allowed are {', '.join(OPTIMIZERS)}")
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            near = get_close_matches(option, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"optimizer {name!r} has no option {option!r}: allowed are {', '.join(known)}{hint}"
            )
    return kind(**options)
