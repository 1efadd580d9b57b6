"""What stands between a kind, which knows one table with one row a feature, and its features.

*Groups* are features with a table, hence an optimizer, a policy and a storage, of their own: the
columns of each group's features go to the group's table, the others stay in the kind's. *Bags* are
features with any number of keys a row (lists, texts): their rows are summed by weight to one row an
example. `Grouped` puts rows together again, pooled ones behind those of keys, before the kind sees
them, and its gradient is taken apart the same way; so every kind has both and none knows of them.
But what is pooled by attention a network pools itself: it is told where the rows are.
Without groups and bags nothing stands round anything.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models.features import Bag, Encoded, Floats, Keys, Places
from learners.models.pooling import places_of_bag, pool, share_out
from paramserver import DenseSpec, Rows, TableSpec

if TYPE_CHECKING:
    from learners.models.model import Kind

Columns = npt.NDArray[np.int64]


def table_of(table: str, group: str) -> str:
    """The name of a group's table."""
    return f"{table}.{group}"


class Grouped:
    """A kind whose columns stand in several tables, or are bags. See `learners.models.model.Kind`.

    Keys of a table are (n, width), as any kind's; with bags they are one line, (m,): those of the
    columns that are none, row by row, then each bag's.
    """

    def __init__(self, kind: "Kind", config: ModelConfig):
        """`config.groups` has been checked: known features, each in one group at most."""
        self._kind = kind
        (base,) = kind.tables
        width = kind.keys(Encoded(*_no_rows(config)))[base.name].shape[1]
        names = [kind.column_name(base.name, column) for column in range(width)]
        self._base, self._width, self._names = base.name, width, names
        of_table: dict[str, list[int]] = {}
        specs = []
        for group, settings in config.groups.items():
            name = table_of(base.name, group)
            of_table[name] = [names.index(feature) for feature in settings["features"]]
            specs.append(_spec_of(name, base, settings))
        grouped = {column for columns in of_table.values() for column in columns}
        rest = [column for column in range(width) if column not in grouped]
        if rest:
            of_table = {base.name: rest} | of_table
            specs.insert(0, base)
        self.tables = tuple(specs)
        self._bags = {column: number for number, column in enumerate(config.bags)}
        self._attended = {column for column, _ in config.attended}
        #: of each table the columns with one key a row, and those of bags
        self._columns = {
            name: np.array([c for c in columns if c not in self._bags], np.int64)
            for name, columns in of_table.items()
        }
        self._bagged = {
            name: [c for c in columns if c in self._bags] for name, columns in of_table.items()
        }

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
        found = {
            name: np.ascontiguousarray(keys[:, columns]) for name, columns in self._columns.items()
        }
        if not self._bags:
            return found
        return {
            name: np.concatenate(
                [single.reshape(-1), *(self._bag(encoded, c).keys for c in self._bagged[name])]
            )
            for name, single in found.items()
        }

    def column_name(self, table: str, column: int) -> str:
        """Of the columns with one key a row."""
        return self._names[int(self._columns[table][column])]

    def table_of(self, feature: str) -> str:
        column = self._names.index(feature)
        for name, columns in self._columns.items():
            if column in columns or column in self._bagged[name]:
                return name
        raise KeyError(feature)

    def bag_lengths(self, table: str, encoded: Encoded) -> list[int]:
        """How many keys each bag of a table has, in their order."""
        return [len(self._bag(encoded, column).keys) for column in self._bagged[table]]

    def name_at(self, table: str, at: int, encoded: Encoded) -> str:
        width = len(self._columns[table])
        if at < len(encoded) * width:
            return self.column_name(table, at % width)
        at -= len(encoded) * width
        for column in self._bagged[table]:
            size = len(self._bag(encoded, column).keys)
            if at < size:
                return self._names[column]
            at -= size
        raise IndexError(f"table {table!r} has no key {at} behind its last")

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        place, joined, _ = self._joined(places, rows, encoded)
        return self._kind.predict(place, joined, dense, encoded)

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        encoded: Encoded,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        place, joined, of_bags = self._joined(places, rows, encoded)
        p, gradients, dense_gradients = self._kind.differentiate(
            place, joined, dense, encoded, label, weight
        )
        whole = gradients[self._base]
        known = sum(len(rows[name]) for name in self._columns)
        gradient = whole[:known]
        at = known
        for bag, bag_places in of_bags:
            share_out(whole[at : at + len(encoded)], bag_places, bag.ends, bag.weights, gradient)
            at += len(encoded)
        ends = np.cumsum([len(rows[name]) for name in self._columns])[:-1]
        split = dict(zip(self._columns, np.split(gradient, ends), strict=True))
        return p, split, dense_gradients

    def _bag(self, encoded: Encoded, column: int) -> Bag:
        return encoded.bags[self._bags[column]]

    def _joined(
        self, places: Places, rows: dict[str, Rows], encoded: Encoded
    ) -> tuple[Places, dict[str, Rows], list[tuple[Bag, Columns]]]:
        """The rows of all tables under each other and pooled ones behind them, where each column's
        are among them, and each bag with where its keys' are."""
        count = len(encoded)
        place = np.empty((count, self._width), np.int64)
        tables = [rows[name] for name in self._columns]
        known = tables[0] if len(tables) == 1 else np.concatenate(tables)
        of_bags: list[tuple[Bag, Columns]] = []
        pooled: list[Rows] = []
        beside: Places = {}
        offset = 0
        for name, columns in self._columns.items():
            flat = places[name].reshape(-1) + offset
            at = count * len(columns)
            place[:, columns] = flat[:at].reshape(count, len(columns))
            for column in self._bagged[name]:
                bag = self._bag(encoded, column)
                mine = flat[at : at + len(bag.keys)]
                at += len(mine)
                if column in self._attended:  # what stands in the place of its row is not read
                    place[:, column] = mine[bag.ends[:-1]]
                    beside[places_of_bag(self._base, column)] = mine
                    continue
                place[:, column] = len(known) + len(pooled) * count + np.arange(count)
                pooled.append(pool(known, mine, bag.ends, bag.weights))
                of_bags.append((bag, mine))
            offset += len(rows[name])
        joined = np.concatenate([known, *pooled]) if pooled else known
        return {self._base: place, **beside}, {self._base: joined}, of_bags


def _no_rows(config: ModelConfig) -> tuple[Keys, Floats]:
    return np.empty((0, len(config.categorical)), np.uint64), np.empty(
        (0, len(config.number_names)), np.float32
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
