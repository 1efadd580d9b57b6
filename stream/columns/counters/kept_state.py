"""All counters and sequences of one reader of `counts`, or of its writer, on disk (J4a)."""

import json
from collections.abc import Iterable
from typing import Any

from stream.columns.counters.counted import CountedValues
from stream.columns.counters.kept_clicks import KeptClicks
from stream.columns.counters.key_sequences import KeySequences
from stream.columns.counters.row_bytes import SequencesBytes, TotalsBytes
from stream.columns.counters.stored_keys import StoredKeys
from stream.columns.counters.totals import KeyTotals
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
        decides: str,
    ) -> None:
        """`decides`: what was written under another one, in words, is of no use."""
        self.stored, self._decides = stored, f"{decides} {slices}"
        self.totals: dict[str, StoredKeys[KeyTotals]] = {
            one.name: StoredKeys(stored, one.name, slices, TotalsBytes()) for one in counted
        }
        self.sequences: dict[str, StoredKeys[KeySequences]] = {
            one.name: StoredKeys(stored, one.name, slices, SequencesBytes()) for one in kept
        }

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
        self.stored.clear()
