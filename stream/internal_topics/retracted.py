"""What a record of `retract/p` says beside its rows: what is to be learned again, and in which
batches (C1).

Its rows are of two sorts. *Taken* rows are those of `examples[p]` that a late verdict covers, with
their position and the opposite weight. *Clean* rows are what is left, in every partition, of the
sources, vendors and items that its header `again` names, in the order in which they were labelled;
the position of one is -k, k = 1, 2, ... its batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.internal_topics.malformed import json_object, shown
from stream.record import ROWS_PER_RECORD_MAX

#: The columns whose values may be learned again: the record holds all that is known of them.
NAMED = ("source", "vendor", "item")


@dataclass(frozen=True)
class Again:
    """`named`: column -> the values whose clean rows the record holds; `batch_rows[k - 1]`: rows of
    batch k as it was learned, of which the record holds some."""

    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_rows: Sequence[int] = ()

    def encode(self) -> str:
        """As it stands in the record's header `again`, ASCII."""
        named = {name: sorted(values) for name, values in self.named.items()}
        return json.dumps(
            {"named": named, "batch_rows": list(self.batch_rows)},
            sort_keys=True,
            separators=(",", ":"),
        )

    @classmethod
    def decode(cls, raw: str) -> "Again":
        """Nothing for an empty header. MalformedRecord for what cannot be read."""
        if not raw:
            return cls()
        said = json_object("examples", raw.encode("utf-8", "surrogatepass"))
        named, sizes = said.mapping("named"), said.body.get("batch_rows")
        if not isinstance(sizes, list) or not all(
            type(n) is int and 0 < n <= ROWS_PER_RECORD_MAX for n in sizes
        ):
            said.wrong("header again", f"batch_rows are {shown(sizes)}, expected numbers of rows")
        if not all(
            isinstance(values, list) and all(type(v) is str for v in values)
            for values in named.values()
        ):
            said.wrong("header again", f"named is {shown(named)}, expected lists of strings")
        return cls({name: named[name] for name in NAMED if name in named}, sizes)

    def without(self, sources: Sequence[str]) -> "Again":
        """The same, without the names of these sources."""
        kept = [source for source in self.named.get("source", ()) if source not in set(sources)]
        return Again(
            {**self.named, "source": kept} if "source" in self.named else self.named,
            self.batch_rows,
        )


def taken(rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which rows (n,) of a record are taken back; the others are clean."""
    is_taken: npt.NDArray[np.bool_] = rows.column("position").to_numpy() >= 0
    return is_taken
