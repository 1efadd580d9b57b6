"""What impressions and clicks look like outside (JSON, Arrow IPC) and how a parsed JSON object
becomes flat rows."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from stream.columns import Features, click_schema, impression_schema, list_lengths
from stream.kernels import I64

#: Memory of one value of a list, without the bytes of a string.
_VALUE_BYTES = 8
#: Equally long columns of one chunk, by the names of `Shape.wire`; nulls where nothing was given.
Columns = dict[str, pa.Array]


class Rows(NamedTuple):
    """Flat columns with the index of the record that each row came from, rising."""

    columns: Columns
    record: I64


def in_log_order(parts: Sequence[Rows]) -> Rows | None:
    """All rows of all parts; None without any part."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    columns = {
        name: pa.concat_arrays([part.columns[name] for part in parts]) for name in parts[0].columns
    }
    record = np.concatenate([part.record for part in parts])
    if (np.diff(record) < 0).any():  # JSON and Arrow records stand mixed in the log
        order = np.argsort(record, kind="stable")
        columns = {name: column.take(pa.array(order)) for name, column in columns.items()}
        record = record[order]
    return Rows(columns, record)


def without(rows: Rows, records: Collection[int]) -> Rows | None:
    """The rows of all records but these; None if there is none."""
    if not records:
        return rows
    keep = np.flatnonzero(~np.isin(rows.record, np.array(sorted(records), np.int64)))
    if not len(keep):
        return None
    return Rows(
        {name: column.take(pa.array(keep)) for name, column in rows.columns.items()},
        rows.record[keep],
    )


_PAGE = "impressions"  # the list of a page view
_OWN = (
    "id",
    "item",
    "vendor",
    "position",
    "prediction",
    "model_version",
)  # what each impression of a page view has
_SHARED = (
    "vendor",
    "model_version",
)  # of those, what a page view may also say once for all; and every feature


@dataclass(frozen=True)
class Shape:
    """One kind of event: how JSON is parsed, the flat columns that come of it, and what travels
    on from them."""

    is_impression: bool
    features: Features
    wire: dict[str, pa.DataType]  # flat columns, as in our producer's Arrow IPC
    required: tuple[str, ...]
    schema: pa.Schema  # of `Events.table`
    parse: pj.ParseOptions

    @cached_property
    def wanted(self) -> pa.StructType:
        """A parsed object: the fields that are read of it."""
        return pa.struct(list(self.parse.explicit_schema))

    @cached_property
    def columns(self) -> dict[str, pa.DataType]:
        """`wire`, with the columns of the names that features had before."""
        former = {f.alias_column: self.wire[f.column] for f in self.features if f.alias}
        return former | self.wire

    @property
    def row_bytes(self) -> int:
        """Memory of one row in flat columns, without the bytes of its strings."""
        return sum(4 if type_ in (pa.string(), pa.binary()) else 8 for type_ in self.wire.values())


@lru_cache(maxsize=64)
def impression_shape(features: Features) -> Shape:
    """What an impression with these features looks like, in JSON and in Arrow."""
    wire = {
        "id": pa.string(),
        "ts_ms": pa.int64(),
        "session": pa.string(),
        "source": pa.string(),
        "vendor": pa.string(),
        "item": pa.string(),
        "position": pa.int64(),
        "prediction": pa.float64(),
        "model_version": pa.string(),
    }
    own = [(name, wire[name]) for name in _OWN]
    top = list(wire.items())
    if features:
        aliases = [(f.alias, f.wire_type) for f in features if f.alias]
        declared = pa.struct([*((f.name, f.wire_type) for f in features), *aliases])
        own.append(("features", declared))
        top.append(("features", declared))
        wire |= {f.column: declared.field(f.name).type for f in features}
    json = pa.schema([*top, (_PAGE, pa.list_(pa.struct(own)))])
    required = ("id", "ts_ms", "session", "source", "vendor", "item")
    return Shape(True, features, wire, required, impression_schema(features), _parse_options(json))


@lru_cache(maxsize=1)
def click_shape() -> Shape:
    """What a click looks like, in JSON and in Arrow."""
    text = dict.fromkeys(("id", "session", "source", "vendor"), pa.string())
    wire = {**text, "ts_ms": pa.int64()}
    json = pa.schema(list(wire.items()))
    return Shape(False, (), wire, ("id", "ts_ms", "session"), click_schema(), _parse_options(json))


@lru_cache(maxsize=1)
def activity_shape() -> Shape:
    """An impression as far as counting needs it (F1): who saw whose, when, and which one it was."""
    text = dict.fromkeys(("id", "session", "source", "vendor"), pa.string())
    wire = {**text, "ts_ms": pa.int64()}
    own = pa.list_(pa.struct([("id", pa.string()), ("vendor", pa.string())]))
    json = pa.schema([*wire.items(), (_PAGE, own)])
    required = ("id", "ts_ms", "session", "source", "vendor")
    return Shape(True, (), wire, required, click_schema(), _parse_options(json))


def _parse_options(schema: pa.Schema) -> pj.ParseOptions:
    """Types are given, never inferred, so that they cannot depend on which records are read
    together."""
    return pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")


def flatten_json(table: pa.Table, shape: Shape) -> tuple[Columns, I64]:
    """Flat columns of parsed objects, a page view giving one row for each of its impressions, and
    for every row the index of its object (rising)."""
    top = {name: _one_chunk(table.column(name)) for name in table.column_names}
    pages = top.pop(_PAGE, None)
    flat = _with_features(top, shape)
    if pages is None or pages.null_count == len(pages):
        return flat, np.arange(table.num_rows)
    nested = dict(zip(pages.type.value_type.names, pages.flatten().flatten(), strict=True))
    own = _with_features(nested, shape)
    counts = pages.value_lengths().fill_null(-1).to_numpy(False)
    is_page = counts >= 0
    object_of_row = np.repeat(np.arange(len(counts)), np.where(is_page, counts, 1))
    pick = _rows_of(object_of_row, is_page, len(own["id"]))
    rows = pa.array(object_of_row)
    shared = {*_SHARED, *(f.column for f in shape.features)}
    columns: Columns = {}
    for name in shape.wire:
        if name not in own:
            columns[name] = flat[name].take(rows)
            continue
        columns[name] = pa.concat_arrays([own[name], flat[name]]).take(pick)
        if name in shared and flat[name].null_count < len(flat[name]):
            columns[name] = pc.coalesce(columns[name], flat[name].take(rows))
    return columns, object_of_row


def expansion(table: pa.Table, shape: Shape) -> tuple[I64, I64]:
    """How many rows each parsed object gives, and at most how many bytes of memory more than the
    object itself: what a page view says once stands in each of its rows. Both int64 (n,)."""
    rows = np.ones(table.num_rows, np.int64)
    if _PAGE not in table.column_names:
        return rows, rows * shape.row_bytes
    pages = _one_chunk(table.column(_PAGE))
    if pages.null_count == len(pages):
        return rows, rows * shape.row_bytes
    counts = pages.value_lengths().fill_null(-1).to_numpy(False).astype(np.int64)
    rows = np.where(counts >= 0, counts, 1)
    said_once = np.zeros(table.num_rows, np.int64)
    top = {name: _one_chunk(table.column(name)) for name in table.column_names if name != _PAGE}
    for column in _with_features(top, shape).values():
        said_once += memory_of(column)
    return rows, rows * (shape.row_bytes + np.where(counts >= 0, said_once, 0))


def rows_at_most(table: pa.Table) -> int:
    """As many rows as these parsed objects give, or more."""
    pages = table.column(_PAGE).chunks if _PAGE in table.column_names else ()
    return int(table.num_rows) + sum(len(chunk.values) for chunk in pages)


def memory_of(column: pa.Array) -> I64:
    """Bytes of each row's strings, or of its list, int64 (n,); 0 of numbers."""
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        sized: I64 = pc.binary_length(column).fill_null(0).to_numpy(False).astype(np.int64)
        return sized
    if not pa.types.is_list(column.type):
        return np.zeros(len(column), np.int64)
    lengths = list_lengths(column)
    through = np.append(0, np.cumsum(lengths))
    of_values = np.append(0, np.cumsum(memory_of(column.flatten()) + _VALUE_BYTES))
    in_list: I64 = of_values[through[1:]] - of_values[through[:-1]]
    return in_list


def _rows_of(object_of_row: I64, is_page: npt.NDArray[np.bool_], nested: int) -> pa.Array:
    """Where each row's own fields are in (all nested impressions, then all objects)."""
    in_page = is_page[object_of_row]
    pick = np.where(in_page, np.cumsum(in_page) - 1, nested + object_of_row)
    return pa.array(pick)


def _with_features(columns: Columns, shape: Shape) -> Columns:
    """The struct `features` taken apart into a column each."""
    flat = {name: column for name, column in columns.items() if name != "features"}
    if shape.features:
        given = columns["features"]
        apart = dict(zip((f.name for f in given.type), given.flatten(), strict=True))
        for feature in shape.features:
            own = apart[feature.name]
            flat[feature.column] = pc.coalesce(own, apart[feature.alias]) if feature.alias else own
    return flat


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
