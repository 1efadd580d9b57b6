"""How much one row may move a batch's gradient.

The gradient of a row's log loss is its error, at most 1, times what the row's numbers multiply:
sqrt(1 + sum of x^2) in a linear layer, and products of two numbers where features are paired. A row
beyond the limit weighs less, so that its gradient is at most the limit: one price in the wrong unit
then costs that row, and neither its batch nor, through an accumulator, the weight for good. The
scale is a function of the row and the definition alone: splits, repeats and other rows change
nothing (S4, S7), and a weight that depends on features only leaves the rate that is learned where
it is.
"""

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models.features import Floats


def row_scales(config: ModelConfig, numbers: Floats) -> tuple[Floats, int]:
    """(n,) float32 in (0, 1], what each row's loss is multiplied by; and of how many rows it is
    below 1. `numbers` as encoded, (n, g)."""
    reach = _reach(numbers, pairs=config.kind == "fm")
    limit = config.row_gradient_max
    scales = np.where(reach > limit, limit / np.maximum(reach, 1.0), 1.0).astype(np.float32)
    return scales, int(np.count_nonzero(reach > limit))


def _reach(numbers: Floats, pairs: bool) -> npt.NDArray[np.float64]:
    """What a row's error is multiplied by at most, (n,). Column by column: a row's does not
    depend on others."""
    squares = np.ones(len(numbers), np.float64)
    first = np.zeros(len(numbers), np.float64)
    second = np.zeros(len(numbers), np.float64)
    for column in numbers.T:
        size = np.abs(column.astype(np.float64))
        squares += size * size
        second = np.maximum(second, np.minimum(first, size))
        first = np.maximum(first, size)
    reach: npt.NDArray[np.float64] = np.sqrt(squares)
    return np.maximum(reach, first * second) if pairs else reach
