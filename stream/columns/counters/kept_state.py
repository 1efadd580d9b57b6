"""All counters and sequences of one reader of `counts`, or of its writer, on disk (J4a)."""

import json
from collections.abc import Iterable
from typing import Any

from stream.columns.counters.counted import CountedValues
from stream.columns.counters.kept_clicks import KeptClicks
from stream.columns.counters.key_rows import SequencesRows, TotalsRows
from stream.columns.counters.key_sequences import KeySequences
from stream.columns.counters.stored_keys import StoredKeys
from stream.columns.counters.totals import KeyTotals
from stream.log.rows import Rooms, RowStorage, StoredRows

#: Of what lies on disk; another one is of no use.
FORMAT = 2


class KeptState:
    """As of one bucket. What is put is written with the next `commit`, in one batch with what is
    said of the bucket. Raises RowsFailed."""

    def __init__(
        self,
        storage: RowStorage,
        counted: Iterable[CountedValues],
        kept: Iterable[KeptClicks],
        slices: int,
        bytes_max: int,
        decides: str,
    ) -> None:
        """`bytes_max`: of it in memory, about. `decides`: what was written under another one, in
        words, is of no use."""
        self.stored, self._rooms = StoredRows(storage, 0), Rooms(storage, bytes_max)
        self._decides = f"{FORMAT} {decides} {slices}"
        self.totals: dict[str, StoredKeys[KeyTotals]] = {
            one.name: StoredKeys(self.stored, one.name, slices, TotalsRows(self._rooms))
            for one in counted
        }
        self.sequences: dict[str, StoredKeys[KeySequences]] = {
            one.name: StoredKeys(self.stored, one.name, slices, SequencesRows(self._rooms))
            for one in kept
        }

    @property
    def memory_bytes(self) -> int:
        """Memory of the rows that are held."""
        return self._rooms.memory_bytes

    def written(self) -> dict[str, Any]:
        """What the last `commit` said; nothing where it is of no use."""
        said: dict[str, Any] = json.loads(self.stored.position or b"{}")
        return said if said.get("decides") == self._decides else {}

    def commit(self, said: dict[str, Any]) -> None:
        """Write all that was put, and what is said of it."""
        self.stored.commit(json.dumps({"decides": self._decides, **said}).encode())

    def flush(self) -> None:
        """Write what was put; until the next `commit` it is of no use to others."""
        self.stored.commit()

    def clear(self) -> None:
        """Forget everything."""
        every: list[StoredKeys[Any]] = [*self.totals.values(), *self.sequences.values()]
        for kept in every:
            kept.unload()
        self.stored.clear()
