"""What a record of `retract/p` says beside its rows: what is to be learned again, and in which batches (C1).

Its rows are of two sorts. *Taken* rows are those of `examples[p]` that a late verdict covers, with their position and
the opposite weight. *Clean* rows are what is left, in every partition, of the sources, vendors and items that its
header `again` names, in the order in which they were labelled; the position of one is -k, k = 1, 2, ... its batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: The columns whose values may be learned again: the record holds all that is known of them.
NAMED = ("source", "vendor", "item")


@dataclass(frozen=True)
class Again:
    """`named`: column -> the values whose clean rows the record holds; `batch_rows[k - 1]`: rows of batch k as it was
    learned, of which the record holds some."""

    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_rows: Sequence[int] = ()

    def encode(self) -> str:
        """As it stands in the record's header `again`, ASCII."""
        named = {name: sorted(values) for name, values in self.named.items()}
        return json.dumps({"named": named, "batch_rows": list(self.batch_rows)}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def decode(cls, raw: str) -> "Again":
        """Nothing for an empty header. ValueError for what cannot be read."""
        if not raw:
            return cls()
        try:
            said = json.loads(raw)
            named = {str(name): [str(value) for value in values] for name, values in said["named"].items()}
            return cls({name: named[name] for name in NAMED if name in named}, [int(n) for n in said["batch_rows"]])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"retract record: header again cannot be read ({error!r})") from error

    def without(self, sources: Sequence[str]) -> "Again":
        """The same, without the names of these sources."""
        kept = [source for source in self.named.get("source", ()) if source not in set(sources)]
        return Again({**self.named, "source": kept} if "source" in self.named else self.named, self.batch_rows)


def taken(rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which rows (n,) of a record are taken back; the others are clean."""
    is_taken: npt.NDArray[np.bool_] = rows.column("position").to_numpy() >= 0
    return is_taken
