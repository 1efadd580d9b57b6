"""Rows of a batch's distinct keys <-> what stands in each example: gather on the way in, segment
sums on the way out.

Both walk the examples in order, so a sum repeats bit for bit. They are kernels of our own because
torch's take three passes: `embedding` copies, `cat` copies again, and the backward of `embedding`
zeroes and scatters a second array.
"""

import numpy as np
import numpy.typing as npt

from learners.models.features import Floats
from paramserver import Rows
from stream.kernels import kernel


def gather(rows: Rows, places: npt.NDArray[np.int64]) -> Floats:
    """`rows` (m, dim) and `places` (n, width) -> (n, width, dim), new memory."""
    out = np.empty((*places.shape, rows.shape[1]), np.float32)
    _gather(rows, places, out)
    return out


def segment_sums(places: npt.NDArray[np.int64], gradients: Floats, count: int) -> Rows:
    """(count, dim): for each distinct key the sum of `gradients` (n, width, dim) over its
    occurrences, in float32 and in the order of the examples."""
    out = np.zeros((count, gradients.shape[2]), np.float32)
    _segment_sums(places, gradients, out)
    return out


@kernel
def _gather(rows: Rows, places: npt.NDArray[np.int64], out: Floats) -> None:
    dim = rows.shape[1]
    for i in range(places.shape[0]):
        for f in range(places.shape[1]):
            row = places[i, f]
            for j in range(dim):
                out[i, f, j] = rows[row, j]


@kernel
def _segment_sums(places: npt.NDArray[np.int64], gradients: Floats, out: Rows) -> None:
    dim = out.shape[1]
    for i in range(places.shape[0]):
        for f in range(places.shape[1]):
            row = places[i, f]
            for j in range(dim):
                out[row, j] += gradients[i, f, j]
