"""What a record of `retract/p` says beside its rows: what is to be learned again, and in which batches (C1).

Its rows are of two sorts. *Taken* rows are those of `examples[p]` that a late verdict covers, with their position and
the opposite weight. *Clean* rows are what is left, in every partition, of the sources, vendors and items named in
`Again`, in the order in which they were labelled; the position of one is -k, k = 1, 2, ... being its batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: The columns whose values may be learned again: the record holds all that is known of them.
NAMED = ("source", "vendor", "item")
_KEY = b"everspun.again"


@dataclass(frozen=True)
class Again:
    """`named`: column -> the values whose clean rows the record holds; `batch_rows[k - 1]`: rows of batch k as it was
    learned, of which the record holds some."""

    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    batch_rows: Sequence[int] = ()


def with_again(rows: pa.RecordBatch, again: Again) -> pa.RecordBatch:
    """The rows of a record, complete. They travel as those of any other (`stream.examples.encode_examples`)."""
    named = {name: sorted(values) for name, values in again.named.items()}
    said = json.dumps({"named": named, "batch_rows": list(again.batch_rows)}, sort_keys=True)
    return rows.replace_schema_metadata({_KEY: said.encode()})


def again_of(rows: pa.RecordBatch) -> Again:
    """What the record says; nothing where it says nothing. ValueError for what cannot be read."""
    raw = (rows.schema.metadata or {}).get(_KEY)
    if raw is None:
        return Again()
    try:
        said = json.loads(raw)
        named = {str(name): [str(value) for value in values] for name, values in said["named"].items()}
        return Again({name: named[name] for name in NAMED if name in named}, [int(n) for n in said["batch_rows"]])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"retract record: metadata {_KEY.decode()!r} cannot be read ({error!r})") from error


def taken(rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Which rows (n,) of a record are taken back; the others are clean."""
    is_taken: npt.NDArray[np.bool_] = rows.column("position").to_numpy() >= 0
    return is_taken
