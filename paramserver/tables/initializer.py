"""The value of a row that nobody has pushed to: a function of (key, seed, column) alone (S3).

A pull of an unknown key answers it and creates nothing; the first push creates the row with exactly
this value. So a model does not depend on who asked first, and a replica can answer for keys that
its checkpoint lacks.
"""

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys, Rows
from stream.kernels import GOLDEN, kernel, mix64


@kernel
def initial_value(
    key: np.uint64, seed: np.uint64, column: np.uint64, scale: np.float32
) -> np.float32:
    """Uniform in [-scale, scale): the top 24 bits of a hash, so exact in float32."""
    h = mix64(key ^ mix64(seed + GOLDEN * (column + np.uint64(1))))
    return np.float32(2.0**-23 * np.float64(h >> np.uint64(40)) - 1.0) * scale


@kernel
def fill_unknown(
    out: Rows, keys: Keys, rows: npt.NDArray[np.int64], seed: np.uint64, scale: np.float32, dim: int
) -> None:
    """Write the initial weights into `out[i, :dim]` wherever `rows[i] < 0`."""
    for i in range(len(keys)):
        if rows[i] < 0:
            for j in range(dim):
                out[i, j] = (
                    initial_value(keys[i], seed, np.uint64(j), scale)
                    if scale != 0
                    else np.float32(0)
                )
