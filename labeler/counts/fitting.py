"""How much of its sequences a range may take along: what is joined to it must fit into its record,
however long the values are (C3, J6)."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream import StreamConfig
from stream.columns import list_lengths

#: Of a string in a list, beside its bytes.
OFFSET_BYTES = 4


def list_bytes_max(stream: StreamConfig, name: str, rows: int) -> int:
    """Bytes that the values of a sequence may take in a range of so many rows: what its boundary
    reckoned with, and a share of what a record may have beyond."""
    beyond = stream.record_bytes_max * 3 // 4 // len(stream.sequences)
    return rows * stream.list_bytes(name) + beyond


def fitting(column: pa.ListArray, bytes_max: int) -> pa.ListArray:
    """The column, or the first n values of each list, for the largest n that fits."""
    values, lengths = column.flatten(), list_lengths(column)
    sizes = pc.binary_length(values).to_numpy(zero_copy_only=False) + OFFSET_BYTES
    if sizes.sum() <= bytes_max:
        return column
    place = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    through = np.cumsum(np.bincount(place, sizes))
    most = int(np.searchsorted(through, bytes_max, side="right"))
    ends = np.append(0, np.cumsum(np.minimum(lengths, most))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values.filter(pa.array(place < most)))
