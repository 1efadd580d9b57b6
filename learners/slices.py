"""By what the progressive loss is also summed (`learners.slices`): the values of a column of
`examples`, or of a declared feature, whatever it is."""

from collections.abc import Sequence

import pyarrow as pa

from stream import StreamConfig
from stream.columns import FEATURE_PREFIX, slice_values

#: Columns of every impression that have few values.
COLUMNS = ("source", "vendor", "item", "shown_at", "model_version")


def slices_fault(slices: Sequence[str], stream: StreamConfig) -> str:
    """What is wrong with `learners.slices`; "" if nothing is."""
    declared = [feature.name for feature in stream.examples_features]
    known = (*COLUMNS, *declared)
    allowed = {*known, *(FEATURE_PREFIX + name for name in declared)}
    unknown = [name for name in slices if name not in allowed]
    return f"slices = {unknown}: allowed are {', '.join(known)}" if unknown else ""


def slice_column(rows: pa.RecordBatch, name: str) -> pa.Array:
    """(n,) strings: the values of a slice; of a feature that is no string whether it is there. All
    "" in a record from before the feature."""
    there = rows.schema.names
    if name in COLUMNS:
        return rows.column(name).cast(pa.string())
    column = FEATURE_PREFIX + name.removeprefix(FEATURE_PREFIX)
    if column not in there:
        return pa.array([""] * rows.num_rows, pa.string())
    return slice_values(rows.column(column))
