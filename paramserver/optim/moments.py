"""Running sums of what the stream has shown, kept as a model keeps its weights: pushed with each
batch, applied once (S1), in every checkpoint. No gradient: what is pushed is added.

An array is one by its name, which begins with `MOMENTS`.
"""

from dataclasses import dataclass

from paramserver.messages import DenseSpec, Rows
from paramserver.optim import kernels
from paramserver.optim.kernels import RowNumbers
from paramserver.optim.optimizers import (
    Optimizer,
    PlainWeights,
    WithoutDecay,
    make_optimizer,
)

#: Begins the name of a dense array that is a running sum; no parameter of a module is called so.
MOMENTS = "moments:"


@dataclass(frozen=True)
class Moments(PlainWeights, WithoutDecay):
    """w = (1 - 1/horizon) w + g, so that the sums of the last `horizon` pushes count. State: what
    float32 rounds off w, so that millions of pushes lose nothing."""

    horizon: float = 10_000.0

    def state_size(self, dim: int) -> int:
        return dim

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
        """However stale the push: a sum does not depend on what was read."""
        kernels.moments(row_store, head, rows, gradients, 1.0 - 1.0 / self.horizon)


def dense_optimizer(spec: DenseSpec, name: str) -> Optimizer:
    """Of one dense array. ValueError for a bad optimizer or option."""
    made = make_optimizer(spec.optimizer, spec.options)
    return Moments() if name.startswith(MOMENTS) else made
