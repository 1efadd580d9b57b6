"""Optimizers, over rows and over dense arrays.

- `kernels`: the arithmetic of the optimizers, a row at a time
- `moments`: running sums of what the stream has shown, in the place of weights
- `optimizers`: the optimizers that run on a shard
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.optim.kernels import Periods
    from paramserver.optim.moments import MOMENTS, dense_optimizer
    from paramserver.optim.optimizers import OPTIMIZERS, Optimizer, make_optimizer
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "MOMENTS",
    "OPTIMIZERS",
    "Optimizer",
    "Periods",
    "dense_optimizer",
    "make_optimizer",
]
