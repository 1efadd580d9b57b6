"""Logistic regression over hashed features: one weight a key, by closed form, without torch.

logit = logit(prior rate) + sum of the weights of the row's keys + sum of weight x number over the
numeric features (+ bias). With p its sigmoid, the gradient of the log loss by a weight is the sum
over rows of weight_i (p_i - y_i) x_i, where x is 1 for a key. Sums run in float64, in row order, so
that they repeat bit for bit.
"""

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models.features import Encoded, Floats, Keys, Places, numeric_keys
from paramserver import DenseSpec, Rows, TableSpec
from stream.kernels import kernel

TABLE = "weights"
_ALPHA = 0.4
_RATE = 0.05


class Logistic:
    """See `learners.models.model.Model`."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self._shared = numeric_keys(config.number_names, config.seed, config.hash_secret)
        if config.bias:
            self._shared = np.append(
                self._shared, numeric_keys(["(bias)"], config.seed, config.hash_secret)
            )

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        optimizer = self.config.table_optimizer or "ftrl"
        defaults = {"alpha": _ALPHA} if optimizer == "ftrl" else {"rate": _RATE}
        config = self.config
        options = defaults | config.table_options
        return (
            TableSpec(
                TABLE,
                1,
                optimizer,
                options,
                policy=config.table_policy,
                storage=config.table_storage,
            ),
        )

    @property
    def dense(self) -> DenseSpec:
        return DenseSpec({})

    @property
    def constants(self) -> frozenset[str]:
        return frozenset()

    def initial_dense(self) -> dict[str, Floats]:
        return {}

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        """The row's categorical keys, then those of the numeric features and the bias: (n,
        width)."""
        if not len(self._shared):
            return {TABLE: encoded.keys}
        shared = np.broadcast_to(self._shared, (len(encoded), len(self._shared)))
        return {TABLE: np.hstack([encoded.keys, shared])}

    def column_name(self, table: str, column: int) -> str:
        names = (*self.config.categorical, *self.config.number_names, "(bias)")
        return names[column]

    def table_of(self, feature: str) -> str:
        return TABLE

    def name_at(self, table: str, at: int, encoded: Encoded) -> str:
        return self.column_name(table, at % (len(self.config.categorical) + len(self._shared)))

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        p: Floats = probabilities(
            places[TABLE], encoded.numbers, rows[TABLE], self.config.prior_logit, self._ones
        )
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
        p = self.predict(places, rows, dense, encoded)
        gradient = _gradient(
            places[TABLE], encoded.numbers, p, label, weight, len(rows[TABLE]), self._ones
        )
        return p, {TABLE: gradient}, {}

    @property
    def _ones(self) -> int:
        """How many columns come before those that a number multiplies; behind those is the bias
        alone."""
        return len(self.config.categorical)


@kernel
def probabilities(
    place: npt.NDArray[np.int64], numbers: Floats, weights: Rows, base: float, ones: int
) -> Floats:
    """Click probabilities (n,) float32. `place` (n, ones + m): where in `weights` (keys, 1) the
    weights of a row stand, first of `ones` features that are there or not, then of the `numbers`
    (n, m). Sums are float64; `base` is the bias."""
    logits = np.empty(len(place), np.float64)
    for i in range(len(place)):
        total = base
        for f in range(ones):
            total += np.float64(weights[place[i, f], 0])
        for g in range(numbers.shape[1]):
            total += np.float64(weights[place[i, ones + g], 0]) * np.float64(numbers[i, g])
        for f in range(ones + numbers.shape[1], place.shape[1]):
            total += np.float64(weights[place[i, f], 0])
        logits[i] = total
    p: Floats = sigmoid(logits)
    return p


@kernel
def sigmoid(logits: npt.NDArray[np.float64]) -> Floats:
    out = np.empty(len(logits), np.float32)
    for i in range(len(logits)):
        out[i] = 1.0 / (1.0 + np.exp(-logits[i]))
    return out


@kernel
def _gradient(
    place: npt.NDArray[np.int64],
    numbers: Floats,
    p: Floats,
    label: Floats,
    weight: Floats,
    keys: int,
    ones: int,
) -> Rows:
    total = np.zeros((keys, 1), np.float64)
    for i in range(len(place)):
        error = np.float64(weight[i]) * (np.float64(p[i]) - np.float64(label[i]))
        for f in range(ones):
            total[place[i, f], 0] += error
        for g in range(numbers.shape[1]):
            total[place[i, ones + g], 0] += error * np.float64(numbers[i, g])
        for f in range(ones + numbers.shape[1], place.shape[1]):
            total[place[i, f], 0] += error
    return total.astype(np.float32)
