"""Factorization machine (Rendle 2010): a weight and a vector a key, by closed form, without torch.

logit = logit(prior rate) + sum of w_i x_i + sum over pairs of <v_i, v_j> x_i x_j, where x is 1 for
a key and the number for a numeric feature (whose key is shared by all rows). With s = sum of v_i
x_i, the pairs are (|s|^2 - sum of |v_i x_i|^2) / 2, and the gradient by v_i is x_i (s - v_i x_i):
linear in the number of features. A row is (w, v); the bias, where there is one, has no pairs.
"""

import numpy as np
import numpy.typing as npt

from learners.models.features import Encoded, Floats, Places
from learners.models.logistic import TABLE, Logistic, sigmoid
from paramserver import Rows, TableSpec
from stream.kernels import kernel

_RATE = 0.05


class FactorizationMachine(Logistic):
    """See `learners.models.model.Kind`."""

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        config = self.config
        optimizer = config.table_optimizer or "adagrad"
        options = {"alpha" if optimizer == "ftrl" else "rate": _RATE} | config.table_options
        return (
            TableSpec(
                TABLE,
                1 + config.dim,
                optimizer,
                options,
                config.init_scale,
                config.seed,
                config.table_policy,
                config.table_storage,
            ),
        )

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        p: Floats = sigmoid(self._sums(places[TABLE], rows[TABLE], encoded.numbers)[0])
        return p

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        encoded: Encoded,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        logits, sums = self._sums(places[TABLE], rows[TABLE], encoded.numbers)
        p = sigmoid(logits)
        values, pairs = self._values(encoded.numbers), self._pairs
        return (
            p,
            {TABLE: _gradient(places[TABLE], values, rows[TABLE], sums, p, label, weight, pairs)},
            {},
        )

    def _values(self, numbers: Floats) -> Floats:
        """What multiplies each key's weight: 1, the number, 1 for the bias."""
        ones = np.ones((len(numbers), len(self.config.categorical)), np.float32)
        bias = np.ones((len(numbers), int(self.config.bias)), np.float32)
        return np.hstack([ones, numbers, bias])

    @property
    def _pairs(self) -> int:
        """How many columns are paired: all but the bias, the last."""
        return len(self.config.categorical) + len(self.config.number_names)

    def _sums(
        self, place: npt.NDArray[np.int64], rows: Rows, numbers: Floats
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Logits (n,) and s (n, dim)."""
        logits = np.empty(len(place), np.float64)
        sums = np.empty((len(place), self.config.dim), np.float64)
        _sum_up(
            place, self._values(numbers), rows, self.config.prior_logit, self._pairs, logits, sums
        )
        return logits, sums


@kernel
def _sum_up(
    place: npt.NDArray[np.int64],
    value: Floats,
    rows: Rows,
    base: float,
    pairs: int,
    logits: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
) -> None:
    dim = sums.shape[1]
    squares = np.empty(dim, np.float64)
    for i in range(place.shape[0]):
        total = base
        sums[i] = 0.0
        squares[:] = 0.0
        for f in range(place.shape[1]):
            row, x = place[i, f], np.float64(value[i, f])
            total += np.float64(rows[row, 0]) * x
            if f < pairs:
                for j in range(dim):
                    vx = np.float64(rows[row, 1 + j]) * x
                    sums[i, j] += vx
                    squares[j] += vx * vx
        for j in range(dim):
            total += 0.5 * (sums[i, j] * sums[i, j] - squares[j])
        logits[i] = total


@kernel
def _gradient(
    place: npt.NDArray[np.int64],
    value: Floats,
    rows: Rows,
    sums: npt.NDArray[np.float64],
    p: Floats,
    label: Floats,
    weight: Floats,
    pairs: int,
) -> Rows:
    dim = sums.shape[1]
    total = np.zeros(rows.shape, np.float64)
    for i in range(place.shape[0]):
        error = np.float64(weight[i]) * (np.float64(p[i]) - np.float64(label[i]))
        for f in range(place.shape[1]):
            row, x = place[i, f], np.float64(value[i, f])
            total[row, 0] += error * x
            if f < pairs:
                for j in range(dim):
                    total[row, 1 + j] += error * x * (sums[i, j] - np.float64(rows[row, 1 + j]) * x)
    return total.astype(np.float32)
