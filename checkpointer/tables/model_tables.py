"""All tables and dense arrays of a served model, at one cut after another (X3, I6).

`apply` checks the parts of a cut, all of them, before it changes anything; `publish` makes a
version of what they say. A cut costs the rows that its parts hold. Only a full part in a cut that
else holds deltas costs more: what its slots held before is looked for among all rows.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from checkpointer.tables.versioned_table import (
    PRIVATE,
    Initial,
    TableMemory,
    TableVersion,
    VersionedTable,
)
from paramserver import SLOTS, ModelSpec, slot_of
from paramserver.parts import ServingPart, check

Dense = Mapping[str, npt.NDArray[np.float32]]


class ModelVersion(NamedTuple):
    """A model's weights at one cut; they never change. Hold it for as long as they are read."""

    tables: Mapping[str, TableVersion]
    dense: Dense

    @property
    def rows(self) -> int:
        return sum(len(table) for table in self.tables.values())

    def not_finite(self) -> list[str]:
        """Names of the arrays that hold a NaN or an infinity. Costs what the dense ones hold."""
        found = [f"table {name}" for name, table in self.tables.items() if table.not_finite]
        found += [f"dense {n}" for n, array in self.dense.items() if not np.isfinite(array).all()]
        return sorted(found)


class ModelTables:
    """The writer's side: one thread's."""

    def __init__(
        self,
        spec: ModelSpec,
        rows: Mapping[str, int],
        secret: int = 0,
        memory: TableMemory = PRIVATE,
    ) -> None:
        """`rows`: of each table, to be expected. `secret`: as of `VersionedTable`."""
        self.spec, self.memory = spec, memory
        self._tables = {
            t.name: VersionedTable(
                t.dim, rows.get(t.name, 0), Initial(t.seed, t.init_scale), secret, memory
            )
            for t in spec.tables
        }
        self._dense: dict[str, npt.NDArray[np.float32]] = {}
        #: of a weight in the files that they were made of (X3); 0 = of some other than of others
        self.bits = 32
        #: False from the first change on until it is published: an apply that failed leaves it so.
        self.whole = True
        self.current = self._version()

    def apply(self, parts: Sequence[ServingPart]) -> None:
        """What the parts of a cut say, full ones and deltas; nobody sees it yet. A full part
        replaces what its slots held, a delta changes it, tombstones before rows. ValueError
        changes nothing. MemoryError, or anything else: these tables are of no use any more."""
        for part in parts:
            check(part, self.spec)
        slots = np.sort(np.concatenate([np.empty(0, np.int32), *(part.slots for part in parts)]))
        if (np.diff(slots) == 0).any():
            raise ValueError(f"slot {slots[:-1][np.diff(slots) == 0][0]} stands in two parts")
        self.whole = False
        self._clear(parts)
        for part in parts:
            for name, keys in part.tombstones.items():
                self._tables[name].remove(keys)
            for name, (keys, rows) in part.tables.items():
                self._tables[name].add(keys, rows)
            self._dense |= part.dense

    def publish(self) -> ModelVersion:
        """What was applied is a version now. ValueError where a dense array is missing."""
        if missing := self.spec.dense.shapes.keys() - self._dense.keys():
            raise ValueError(f"dense array {min(missing)!r} is missing")
        for table in self._tables.values():
            table.publish()
        self.current, self.whole = self._version(), True
        return self.current

    def _version(self) -> ModelVersion:
        return ModelVersion({n: t.current for n, t in self._tables.items()}, dict(self._dense))

    def _clear(self, parts: Sequence[ServingPart]) -> None:
        """The slots of full parts hold nothing any more."""
        full = np.zeros(SLOTS, np.bool_)
        for part in parts:
            if part.parent is None:
                full[part.slots] = True
        for table in self._tables.values():
            if full.any() and len(table.current):
                keys, _ = table.current.items()
                table.remove(keys[full[slot_of(keys)]])
