"""The columns of catalogues' features, by the rows that impressions' keys name: one piece of code
for training and serving (A3, A5)."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from stream.columns import FEATURE_PREFIX, KEYS, Feature, Features, catalogued
from stream.decoding import given_features
from stream.decoding.catalogues.rows import RowReader
from stream.kernels import I64

Columns: TypeAlias = pa.RecordBatch | pa.Table


class FoundRows(NamedTuple):
    """Rows that keys name: of impression i `rows[places[i]]`, b"" = there is none."""

    rows: list[bytes]
    places: I64  # (n,)


#: Which rows of a catalogue these keys name: (name, key of each impression (n,) without nulls).
Find = Callable[[str, pa.Array], FoundRows]


class CatalogueColumns:
    """Of declared features, in their order."""

    def __init__(self, declared: Mapping[str, Feature], bytes_max: int, row_bytes_max: int) -> None:
        """`bytes_max`: of a record of a catalogue; `row_bytes_max`: of its attributes."""
        self._of: dict[tuple[str, str], Features] = {}
        features: dict[str, Features] = {}
        for name, one in catalogued(declared).items():
            columns = one.catalogue_columns(name)
            at = (one.catalogue, one.key)
            self._of[at] = (*self._of.get(at, ()), *columns)
            features[one.catalogue] = (*features.get(one.catalogue, ()), *columns)
        self._places = {
            name: {f.column: i for i, f in enumerate(of)} for name, of in features.items()
        }
        limits = (bytes_max, row_bytes_max)
        self.readers = {name: RowReader(of, *limits) for name, of in features.items()}
        self.features = tuple(c for one in features.values() for c in one)

    def places(self, name: str) -> Mapping[str, int]:
        """Where each of a catalogue's columns stands in what its reader says of a row."""
        return self._places[name]

    def keys(self, table: Columns) -> dict[str, set[bytes]]:
        """By catalogue, the rows that impressions ask for, whose features are among the columns."""
        found: dict[str, set[bytes]] = {}
        for (name, key), features in self._of.items():
            if not any(f.column in table.schema.names for f in features):
                continue
            said = _keys(table, key).unique().to_pylist()
            found.setdefault(name, set()).update(one.encode() for one in said if one)
        return found

    def columns(
        self, table: Columns, find: Find, only: Collection[str] | None = None
    ) -> dict[str, pa.Array]:
        """By column, (n,) of its type without nulls, for impressions as in `examples`. `only`: of
        the columns with these names."""
        found: dict[str, pa.Array] = {}
        for (name, key), every in self._of.items():
            features = [f for f in every if only is None or f.column in only]
            if not features:
                continue
            rows, places = find(name, _keys(table, key))
            said = [self.readers[name].attributes(row) for row in rows]
            at = self._places[name]
            given = {f.column: [one[at[f.column]] for one in said] for f in features}
            columns = given_features(features, given, len(rows))
            found |= {column: values.take(pa.array(places)) for column, values in columns.items()}
        return found


def found_of(keys: pa.Array, get: Callable[[list[bytes]], list[bytes]]) -> FoundRows:
    """Each key is looked up once; "" names no row."""
    distinct = keys.dictionary_encode()
    rows = get(distinct.dictionary.cast(pa.binary()).to_pylist())
    return FoundRows(rows, distinct.indices.to_numpy().astype(np.int64))


def _keys(table: Columns, key: str) -> pa.Array:
    column = table.column(key if key in KEYS else FEATURE_PREFIX + key)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no rows
        column = pa.array([], pa.string())
    return column if pa.types.is_string(column.type) else column.cast(pa.string())
