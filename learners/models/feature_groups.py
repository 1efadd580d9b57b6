"""Groups of features with a table, hence an optimizer, a policy and a storage, of their own.

A kind knows one table. `Grouped` stands round it: the columns of each group's features go to the
group's table, the others stay in the kind's. Rows are put together again before the kind sees them,
and its gradient is split the same way, so every kind has groups and none knows of them. Without
groups nothing stands round anything.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models.features import Encoded, Floats, Keys, Places
from paramserver.messages import DenseSpec, Rows, TableSpec

if TYPE_CHECKING:
    from learners.models.model import Kind

Columns = npt.NDArray[np.int64]


def table_of(table: str, group: str) -> str:
    """The name of a group's table."""
    return f"{table}.{group}"


class Grouped:
    """A kind whose columns stand in several tables. See `learners.models.model.Kind`."""

    def __init__(self, kind: "Kind", config: ModelConfig):
        """`config.groups` has been checked: known features, each in one group at most."""
        self._kind = kind
        (base,) = kind.tables
        width = kind.keys(Encoded(*_no_rows(config)))[base.name].shape[1]
        names = [kind.column_name(base.name, column) for column in range(width)]
        self._base, self._width = base.name, width
        self._columns: dict[str, Columns] = {}
        specs = []
        for group, settings in config.groups.items():
            name = table_of(base.name, group)
            self._columns[name] = np.array(
                [names.index(feature) for feature in settings["features"]]
            )
            specs.append(_spec_of(name, base, settings))
        grouped = np.concatenate(list(self._columns.values()))
        rest = np.setdiff1d(np.arange(width), grouped)
        if len(rest):
            self._columns = {base.name: rest} | self._columns
            specs.insert(0, base)
        self.tables = tuple(specs)

    @property
    def dense(self) -> DenseSpec:
        return self._kind.dense

    @property
    def constants(self) -> frozenset[str]:
        return self._kind.constants

    def initial_dense(self) -> dict[str, Floats]:
        return self._kind.initial_dense()

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        keys = self._kind.keys(encoded)[self._base]
        return {
            name: np.ascontiguousarray(keys[:, columns]) for name, columns in self._columns.items()
        }

    def column_name(self, table: str, column: int) -> str:
        return self._kind.column_name(self._base, int(self._columns[table][column]))

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], numbers: Floats
    ) -> Floats:
        return self._kind.predict(*self._joined(places, rows), dense, numbers)

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        numbers: Floats,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        place, joined = self._joined(places, rows)
        p, gradients, dense_gradients = self._kind.differentiate(
            place, joined, dense, numbers, label, weight
        )
        ends = np.cumsum([len(rows[name]) for name in self._columns])[:-1]
        split = dict(zip(self._columns, np.split(gradients[self._base], ends), strict=True))
        return p, split, dense_gradients

    def _joined(self, places: Places, rows: dict[str, Rows]) -> tuple[Places, dict[str, Rows]]:
        """The rows of all tables under each other, and where each column's are among them."""
        first = next(iter(self._columns))
        place = np.empty((len(places[first]), self._width), np.int64)
        offset = 0
        for name, columns in self._columns.items():
            place[:, columns] = places[name] + offset
            offset += len(rows[name])
        return {self._base: place}, {
            self._base: np.concatenate([rows[name] for name in self._columns])
        }


def _no_rows(config: ModelConfig) -> tuple[Keys, Floats]:
    return np.empty((0, len(config.categorical)), np.uint64), np.empty(
        (0, len(config.numeric)), np.float32
    )


def _spec_of(name: str, base: TableSpec, settings: dict[str, Any]) -> TableSpec:
    """The kind's table but for what the group says. A group with an optimizer of its own has
    that one's defaults."""
    options = {} if "optimizer" in settings else base.options
    return replace(
        base,
        name=name,
        optimizer=settings.get("optimizer", base.optimizer),
        options=options | _floats(settings.get("options", {})),
        policy=_floats(settings["policy"]) if "policy" in settings else base.policy,
        storage=settings.get("storage", base.storage),
    )


def _floats(settings: dict[str, Any]) -> dict[str, float]:
    """Kernels are compiled for float64 alone, and a file may say 1."""
    return {key: float(value) for key, value in settings.items()}
