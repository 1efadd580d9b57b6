"""All counters and sequences of one reader of `counts`, or of its writer, on disk (J4a)."""

import json
from collections.abc import Iterable
from typing import Any

from stream.columns.counters.counted import CountedValues
from stream.columns.counters.kept_clicks import KeptClicks
from stream.columns.counters.key_sequences import KeySequences
from stream.columns.counters.row_bytes import SequencesBytes
from stream.columns.counters.stored_keys import StoredKeys
from stream.columns.counters.stored_totals import StoredTotals
from stream.log.rows import StoredRows


class KeptState:
    """As of one bucket. What is put is written with the next `commit`, in one batch with what is
    said of the bucket. Raises RowsFailed."""

    def __init__(
        self,
        stored: StoredRows,
        counted: Iterable[CountedValues],
        kept: Iterable[KeptClicks],
        slices: int,
        totals_max: int,
        decides: str,
    ) -> None:
        """`totals_max`: bytes of totals in memory. `decides`: what was written under another one,
        in words, is of no use."""
        counted = tuple(counted)
        self.stored, self._decides = stored, f"{decides} {slices}"
        each = totals_max // max(1, len(counted))
        self.totals = {one.name: StoredTotals(stored, one.name, slices, each) for one in counted}
        self.sequences: dict[str, StoredKeys[KeySequences]] = {
            one.name: StoredKeys(stored, one.name, slices, SequencesBytes()) for one in kept
        }

    @property
    def memory_bytes(self) -> int:
        """Memory of the rows that are held."""
        return self.stored.memory_bytes + sum(one.memory_bytes for one in self.totals.values())

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
        for totals in self.totals.values():
            totals.drop_recent()
        self.stored.clear()
