"""Logistic regression over hashed features: one weight a key, by closed form, without torch.

logit = logit(prior rate) + sum of the weights of the row's keys + sum of weight x number over the numeric features
(+ bias). With p its sigmoid, the gradient of the log loss by a weight is the sum over rows of weight_i (p_i - y_i) x_i,
where x is 1 for a key. Sums run in float64, in row order, so that they repeat bit for bit.
"""

import numba
import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.features import Encoded, Floats, Keys, Places, numeric_keys
from paramserver.messages import DenseSpec, Rows, TableSpec

TABLE = "weights"
_ALPHA = 0.4
_RATE = 0.05


class Logistic:
    """See `learners.model.Model`."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self._shared = numeric_keys(config.numeric, config.seed)
        if config.bias:
            self._shared = np.append(self._shared, numeric_keys(["(bias)"], config.seed))

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        optimizer = self.config.table_optimizer or "ftrl"
        defaults = {"alpha": _ALPHA} if optimizer == "ftrl" else {"rate": _RATE}
        config = self.config
        options = defaults | config.table_options
        return (TableSpec(TABLE, 1, optimizer, options, policy=config.table_policy, storage=config.table_storage),)

    @property
    def dense(self) -> DenseSpec:
        return DenseSpec({})

    def initial_dense(self) -> dict[str, Floats]:
        return {}

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        """The row's categorical keys, then those of the numeric features and the bias: (n, width)."""
        shared = np.broadcast_to(self._shared, (len(encoded), len(self._shared)))
        return {TABLE: np.hstack([encoded.keys, shared])}

    def column_name(self, table: str, column: int) -> str:
        names = (*self.config.categorical, *self.config.numeric, "(bias)")
        return names[column]

    def predict(self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], numbers: Floats) -> Floats:
        p: Floats = sigmoid(self._logits(places[TABLE], rows[TABLE], numbers))
        return p

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        numbers: Floats,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        place = places[TABLE]
        p = sigmoid(self._logits(place, rows[TABLE], numbers))
        gradient = _gradient(place, self._values(numbers), p, label, weight, len(rows[TABLE]))
        return p, {TABLE: gradient}, {}

    def _values(self, numbers: Floats) -> Floats:
        """What multiplies each key's weight: 1, the number, 1 for the bias."""
        ones = np.ones((len(numbers), len(self.config.categorical)), np.float32)
        bias = np.ones((len(numbers), int(self.config.bias)), np.float32)
        return np.hstack([ones, numbers, bias])

    def _logits(self, place: npt.NDArray[np.int64], weights: Rows, numbers: Floats) -> npt.NDArray[np.float64]:
        logits: npt.NDArray[np.float64] = _logits(place, self._values(numbers), weights, self.config.prior_logit)
        return logits


@numba.njit(cache=True, nogil=True)
def _logits(place: npt.NDArray[np.int64], value: Floats, weights: Rows, base: float) -> npt.NDArray[np.float64]:
    out = np.empty(len(place), np.float64)
    for i in range(len(place)):
        total = base
        for f in range(place.shape[1]):
            total += np.float64(weights[place[i, f], 0]) * np.float64(value[i, f])
        out[i] = total
    return out


@numba.njit(cache=True, nogil=True)
def sigmoid(logits: npt.NDArray[np.float64]) -> Floats:
    out = np.empty(len(logits), np.float32)
    for i in range(len(logits)):
        out[i] = 1.0 / (1.0 + np.exp(-logits[i]))
    return out


@numba.njit(cache=True, nogil=True)
def _gradient(place: npt.NDArray[np.int64], value: Floats, p: Floats, label: Floats, weight: Floats, keys: int) -> Rows:
    total = np.zeros((keys, 1), np.float64)
    for i in range(len(place)):
        error = np.float64(weight[i]) * (np.float64(p[i]) - np.float64(label[i]))
        for f in range(place.shape[1]):
            total[place[i, f], 0] += error * np.float64(value[i, f])
    return total.astype(np.float32)
