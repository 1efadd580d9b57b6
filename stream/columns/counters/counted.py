"""What is counted, by whose declarations, and which key a row counts for (J1)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from stream.columns.declaration import COUNTER, Feature
from stream.columns.derived import categories
from stream.columns.events import FEATURE_PREFIX
from stream.hashing import HashKey, derived_key, hash_strings
from stream.kernels import U64

#: Fields of an impression whose values can be counted without a declaration.
COUNTABLE = ("item", "vendor", "source")
Columns: TypeAlias = pa.RecordBatch | pa.Table
_NO_TIMES = np.zeros(0, np.int64)


class CountedValues(NamedTuple):
    """Shows and clicks of a feature's values with one half-life: counters that differ in what they
    give of them share it."""

    of: str
    half_life_ms: int  # 0 = counted for ever

    @property
    def name(self) -> str:
        """In records of `counts`."""
        return f"{self.of}/{self.half_life_ms}"


def counted_by(declared: Feature) -> CountedValues:
    """What a counter is of."""
    return CountedValues(declared.of, declared.half_life_ms)


def counters(declared: Mapping[str, Feature]) -> dict[str, Feature]:
    """The counters among declared features, by name, in their order."""
    return {name: one for name, one in declared.items() if one.kind == COUNTER and one.kept_by}


def counter_keys(hash_key: HashKey, of: Iterable[str]) -> dict[str, HashKey]:
    """What the values of these features are hashed with. A replica may be told them, and not the
    key that they come from."""
    return {name: derived_key(hash_key, "counter", name) for name in sorted(set(of))}


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
