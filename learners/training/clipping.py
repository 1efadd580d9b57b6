"""How much one row may move a batch's gradient.

The gradient of a row's log loss is its error, at most 1, times what the row's numbers multiply:
sqrt(1 + sum of x^2) in a linear layer, and products of two numbers where features are paired. A row
beyond the limit weighs less, so that its gradient is at most the limit: one price in the wrong unit
then costs that row, and neither its batch nor, through an accumulator, the weight for good. The
scale is a function of the row and the definition alone: splits, repeats and other rows change
nothing (S4, S7), and a weight that depends on features only leaves the rate that is learned where
it is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models import Bag, Encoded, Floats

Doubles = npt.NDArray[np.float64]


def row_scales(config: ModelConfig, encoded: Encoded) -> tuple[Floats, int]:
    """(n,) float32 in (0, 1], what each row's loss is multiplied by; and of how many rows it is
    below 1."""
    columns = [*encoded.numbers.T, *map(_length, encoded.bags)]
    reach = _reach(columns, len(encoded), pairs=config.kind == "fm")
    limit = config.row_gradient_max
    scales = np.where(reach > limit, limit / np.maximum(reach, 1.0), 1.0).astype(np.float32)
    return scales, int(np.count_nonzero(reach > limit))


def _length(bag: Bag) -> Doubles:
    """(n,) of the vector of a row's weights: what the gradient by its keys is multiplied by."""
    squares = np.square(bag.weights.astype(np.float64))
    length: Doubles = np.sqrt(np.add.reduceat(squares, bag.ends[:-1])) if len(squares) else squares
    return length


def _reach(columns: Sequence[npt.NDArray[Any]], rows: int, pairs: bool) -> Doubles:
    """What a row's error is multiplied by at most, (n,). Column by column: a row's does not
    depend on others."""
    squares = np.ones(rows, np.float64)
    first = np.zeros(rows, np.float64)
    second = np.zeros(rows, np.float64)
    for column in columns:
        size = np.abs(column.astype(np.float64))
        squares += size * size
        second = np.maximum(second, np.minimum(first, size))
        first = np.maximum(first, size)
    reach: Doubles = np.sqrt(squares)
    return np.maximum(reach, first * second) if pairs else reach
