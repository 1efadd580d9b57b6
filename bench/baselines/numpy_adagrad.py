"""Baseline of `bench.table`: element-wise Adagrad on dense arrays by numpy's fancy indexing, as one
writes it first.

Ids are dense row numbers, so there is no key to look up, none to create, and no version or touch to
keep.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


class NumpyAdagrad:
    """(rows, dim) float32 weights, zero, and accumulators."""

    def __init__(
        self, rows: int, dim: int, rate: float, accumulator: float, epsilon: float
    ) -> None:
        self.weights = np.zeros((rows, dim), np.float32)
        self._totals = np.full((rows, dim), accumulator, np.float32)
        self._rate, self._epsilon = np.float32(rate), np.float32(epsilon)

    def pull(self, ids: Ids) -> Floats:
        return self.weights[ids]

    def push(self, ids: Ids, gradients: Floats) -> None:
        """Ids are unique."""
        totals = self._totals[ids]
        totals += gradients * gradients
        self._totals[ids] = totals
        self.weights[ids] -= self._rate * gradients / (np.sqrt(totals) + self._epsilon)
