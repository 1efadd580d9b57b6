"""What a verdict that comes after training takes back of the rows of `examples` that it covers (L3, C1).

Two candidates, neither of which reaches what is asked of it yet (`python -m bench.taking_back`), so no record of
`retract/p` is written: the opposite gradient, at the parameters of today, has no bound; a negative in a click's place
is bounded, and still takes back what later honest events had already made good.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stream.events import FEATURE_PREFIX
from stream.verdicts import REJECT, WITHHOLD, Verdict


def covered(rows: pa.RecordBatch, said: Verdict) -> npt.NDArray[np.bool_]:
    """Which rows of a batch of `examples` a verdict takes out, (n,); none unless it rejects or withholds. A slice of
    a feature that the rows do not have covers nothing."""
    ts_ms = rows.column("ts_ms").to_numpy()
    inside: npt.NDArray[np.bool_] = (ts_ms >= said.from_ms) & (ts_ms < said.to_ms)
    if said.decision not in (REJECT, WITHHOLD):
        return np.zeros(rows.num_rows, np.bool_)
    named = [("source", said.source), ("vendor", said.vendor)]
    if said.feature is not None:
        named.append((FEATURE_PREFIX + said.feature, said.value))
    for column, value in named:
        if value is None:
            continue
        if column not in rows.schema.names:
            return np.zeros(rows.num_rows, np.bool_)
        same = pc.equal(rows.column(column).cast(pa.string()), pa.scalar(value, pa.string()))
        inside &= same.fill_null(False).to_numpy(zero_copy_only=False)
    return inside


def taken_back(rows: pa.RecordBatch, taken: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows (n,) that are `taken`, each with the opposite weight."""
    chosen = rows.filter(pa.array(taken))
    weight = -chosen.column("weight").to_numpy()
    return _with(chosen, "weight", weight.astype(np.float32))


def denied(rows: pa.RecordBatch, taken: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """The clicks among the rows (n,) that are `taken`, each as a negative of the same weight."""
    chosen = rows.filter(pa.array(taken & (rows.column("label").to_numpy() > 0)))
    return _with(chosen, "label", np.zeros(chosen.num_rows, np.int8))


def _with(rows: pa.RecordBatch, name: str, values: npt.NDArray[Any]) -> pa.RecordBatch:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), pa.array(values))
