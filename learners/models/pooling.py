"""The row of a bag: the weighted sum of its keys' rows; and its gradient, shared out among them.

Both walk the keys in the order of the examples, so a sum repeats bit for bit.
"""

import numpy as np

from learners.models.features import Floats
from paramserver import Rows
from stream.kernels import I64, kernel


def places_of_bag(table: str, column: int) -> str:
    """Under this name stand in `Places` those of a bag that the kind pools itself."""
    return f"{table}@{column}"


def pool(rows: Rows, places: I64, ends: I64, weights: Floats) -> Rows:
    """(n, dim) of `rows` (k, dim): the sum over example i's keys, `places[ends[i]:ends[i + 1]]`, of
    weight x row. Sums run in float64."""
    out = np.empty((len(ends) - 1, rows.shape[1]), np.float32)
    _pool(rows, places, ends, weights, out)
    return out


def share_out(gradient: Rows, places: I64, ends: I64, weights: Floats, of_rows: Rows) -> None:
    """Add to `of_rows` (k, dim), in place, what the gradient by the pooled rows (n, dim) is by each
    key's row."""
    _share_out(gradient, places, ends, weights, of_rows)


@kernel
def _pool(rows: Rows, places: I64, ends: I64, weights: Floats, out: Rows) -> None:
    dim = rows.shape[1]
    total = np.empty(dim, np.float64)
    for i in range(len(out)):
        total[:] = 0.0
        for j in range(ends[i], ends[i + 1]):
            row, w = places[j], np.float64(weights[j])
            for d in range(dim):
                total[d] += w * np.float64(rows[row, d])
        for d in range(dim):
            out[i, d] = total[d]


@kernel
def _share_out(gradient: Rows, places: I64, ends: I64, weights: Floats, of_rows: Rows) -> None:
    for i in range(len(gradient)):
        for j in range(ends[i], ends[i + 1]):
            row, w = places[j], weights[j]
            for d in range(of_rows.shape[1]):
                of_rows[row, d] += w * gradient[i, d]
