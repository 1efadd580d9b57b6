"""Numbers that are read by what the stream has shown of them: standardised by running moments, or
spread evenly by learned quantiles.

What was shown is part of the model: running sums in dense arrays (`paramserver.optim.moments`),
pushed with each batch, in every checkpoint, and what serving reads. So a replayed log gives the
same sums, and an answer is made of the sums that stood beside the weights. The sums of a batch do
not depend on what was pulled; they take effect with the next one.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models.features import Encoded, Floats, Keys, Places
from paramserver import DenseSpec, Rows, TableSpec
from paramserver.optim import MOMENTS

if TYPE_CHECKING:
    from learners.models.model import Kind

Doubles = npt.NDArray[np.float64]

#: Equal parts of a feature's bounds in which values are counted.
BINS = 256
#: Values beyond this count as it in running moments, and as so many deviations once standardised.
VALUE_MAX, DEVIATIONS_MAX = 1e6, 10.0
#: Sums of moments are pushed in units of so many rows: squares stay far from what a push may hold.
UNIT = 1_024.0


class Column(NamedTuple):
    """A scaled feature: where its numbers stand, and what its array counts."""

    array: str
    at: int  # its first number
    pieces: int  # 0 = standardised, else so many numbers
    low: float
    high: float

    @property
    def numbers(self) -> int:
        return self.pieces or 1

    @property
    def size(self) -> int:
        """Of its array."""
        return BINS if self.pieces else 3

    def initial(self) -> Floats:
        """One row's worth of evidence: mean 0 and deviation 1, or spread evenly."""
        if self.pieces:
            return np.full(BINS, 1.0 / BINS, np.float32)
        return np.array([1.0, 0.0, 1.0], np.float32) / np.float32(UNIT)

    def scaled(self, x: Doubles, sums: Floats) -> Floats:
        """(n, numbers) of transformed values (n,), NaN = missing."""
        missing, state = np.isnan(x), sums.astype(np.float64)
        if self.pieces:
            share = np.append(0.0, np.cumsum(np.maximum(state, 0.0)))
            edges = np.linspace(self.low, self.high, BINS + 1)
            place = np.interp(np.where(missing, self.low, x), edges, share / share[-1])
            through = np.clip(place[:, None] * self.pieces - np.arange(self.pieces), 0.0, 1.0)
            through[missing] = 0.0
            spread: Floats = through.astype(np.float32)
            return spread
        count, first, second = state
        mean, square = first / count, second / count
        deviation = np.sqrt(max(square - mean * mean, 1e-6 * square, 1e-12))
        away = np.clip((x - mean) / deviation, -DEVIATIONS_MAX, DEVIATIONS_MAX)
        return np.where(missing, 0.0, away)[:, None].astype(np.float32)

    def shown(self, x: Doubles) -> Floats:
        """What a batch adds to its array: missing values nothing."""
        x = x[~np.isnan(x)]
        if self.pieces:
            at = (x - self.low) * (BINS / (self.high - self.low))
            bins = np.clip(at, 0, BINS - 1).astype(np.int64)
            return np.bincount(bins, minlength=BINS).astype(np.float32)
        x = np.clip(x, -VALUE_MAX, VALUE_MAX)
        return np.array([len(x), x.sum(), (x * x).sum()]).astype(np.float32) / np.float32(UNIT)


def columns_of(config: ModelConfig) -> tuple[Column, ...]:
    """The scaled features of a model, in the order of its numbers."""
    out, at = [], 0
    for name in config.numeric:
        declared = config.feature(name)
        if declared is not None and declared.is_scaled:
            low, high = config.bounds_of(name)
            if config.transform_of(name) == "log1p":
                low, high = (float(np.copysign(np.log1p(abs(b)), b)) for b in (low, high))
            out.append(Column(MOMENTS + name, at, declared.quantiles, low, high))
        at += len(declared.number_names(name)) if declared is not None else 1
    return tuple(out)


def scaled(config: ModelConfig, encoded: Encoded, dense: dict[str, Floats]) -> Encoded:
    """The rows with these numbers as the model reads them; themselves where it has none."""
    columns = columns_of(config)
    if not columns:
        return encoded
    numbers = encoded.numbers.copy()
    for column in columns:
        x = encoded.numbers[:, column.at].astype(np.float64)
        numbers[:, column.at : column.at + column.numbers] = column.scaled(x, dense[column.array])
    return encoded.with_numbers(numbers)


class Scaled:
    """A kind some of whose numbers are scaled. See `learners.models.model.Kind`."""

    def __init__(self, kind: "Kind", config: ModelConfig):
        self._kind, self._config, self._columns = kind, config, columns_of(config)

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        return self._kind.tables

    @property
    def dense(self) -> DenseSpec:
        own = self._kind.dense
        shapes = {column.array: (column.size,) for column in self._columns}
        return DenseSpec({**own.shapes, **shapes}, own.optimizer, own.options)

    @property
    def constants(self) -> frozenset[str]:
        return self._kind.constants

    def initial_dense(self) -> dict[str, Floats]:
        return self._kind.initial_dense() | {c.array: c.initial() for c in self._columns}

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        return self._kind.keys(encoded)

    def column_name(self, table: str, column: int) -> str:
        return self._kind.column_name(table, column)

    def table_of(self, feature: str) -> str:
        return self._kind.table_of(feature)

    def name_at(self, table: str, at: int, encoded: Encoded) -> str:
        return self._kind.name_at(table, at, encoded)

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        return self._kind.predict(
            places, rows, self._own(dense), scaled(self._config, encoded, dense)
        )

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        encoded: Encoded,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        p, gradients, found = self._kind.differentiate(
            places, rows, self._own(dense), scaled(self._config, encoded, dense), label, weight
        )
        sums = {
            column.array: column.shown(encoded.numbers[:, column.at].astype(np.float64))
            for column in self._columns
        }
        return p, gradients, found | sums

    def _own(self, dense: dict[str, Floats]) -> dict[str, Floats]:
        return {name: array for name, array in dense.items() if not name.startswith(MOMENTS)}
