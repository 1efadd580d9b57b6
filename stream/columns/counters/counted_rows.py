"""Which key a row counts for: the values of a counted feature, and their hashes (J1)."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from stream.columns.counters.counted import COUNTABLE
from stream.columns.declaration import Feature
from stream.columns.derived import categories
from stream.columns.events import FEATURE_PREFIX
from stream.hashing import HashKey, hash_strings
from stream.kernels import U64

Columns: TypeAlias = pa.RecordBatch | pa.Table
_NO_TIMES = np.zeros(0, np.int64)


def counted_keys(
    of: str, columns: Columns, declared: Mapping[str, Feature], hash_key: HashKey
) -> U64:
    """(n,) for which key each row counts: a hash of its value, keyed by one of `counter_keys`; 0 of
    a missing one, which is not counted. `columns` as in `examples`."""
    column = counted_values(of, columns, declared)
    if of in declared:
        column = categories(declared[of], column, _NO_TIMES)
    return hash_strings(column, hash_key)


def counted_values(of: str, columns: Columns, declared: Mapping[str, Feature]) -> pa.Array:
    """(n,) the strings of a feature as `examples` hold them; "" in all rows of a record from before
    it was declared."""
    names = [of] if of in COUNTABLE else [FEATURE_PREFIX + of]
    if of in declared and declared[of].alias:
        names.append(FEATURE_PREFIX + declared[of].alias)
    name = next((one for one in names if one in columns.schema.names), None)
    if name is None:
        return pa.array([""] * columns.num_rows, pa.string())
    column = columns.column(name)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column
