"""Arrow IPC values of many records read into one set of flat columns.

A value is measured before it is unpacked (`arrow_messages`), and of what it holds only the columns
that somebody reads are looked at; those are checked in full. A column may come as any type that
becomes the wanted one at the cost of a copy: other widths of numbers, the three kinds of strings,
and dictionaries of them.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns import MalformedStream, StreamSize, fault, measure
from stream.config import StreamConfig
from stream.decoding.event_faults import Bad
from stream.decoding.json_values import too_large
from stream.decoding.schema import Rows, Shape
from stream.kernels import I64
from stream.log import RecordColumns
from stream.record import ROWS_PER_RECORD_MAX

#: What may hold the bytes of a picture, or its base64.
_BYTES = (
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
)
#: A string view's 16 bytes begin with its length (Arrow columnar format, "Variable-size Binary View
#: Layout").
_VIEW_INTS = 4


class _Unfit(Exception):
    """Carries a Fault."""


def read_arrow(
    records: RecordColumns, indices: Sequence[int], shape: Shape, config: StreamConfig, bad: Bad
) -> list[Rows]:
    """Rows of the records of these indices; the unreadable ones are added to `bad`. Values that
    follow each other with the same columns are read as one table."""
    parts: list[Rows] = []
    group: list[pa.RecordBatch] = []
    owners: list[int] = []
    for i in indices:
        try:
            batches = _batches(records.value(i).tobytes(), shape, config)
        except _Unfit as error:
            bad[i] = fault(*error.args)
            continue
        if group and batches and not batches[0].schema.equals(group[0].schema):
            parts += _columns(group, owners, shape)
            group, owners = [], []
        group += batches
        owners += [i] * len(batches)
    return parts + _columns(group, owners, shape)


def _batches(value: bytes, shape: Shape, config: StreamConfig) -> list[pa.RecordBatch]:
    """What of the value's batches this shape reads, in the wanted types. Raises _Unfit."""
    try:
        size = measure(value)
        if size.bytes_behind:
            text = (
                f"has {size.bytes_behind} bytes behind the end of its Arrow IPC stream; send "
                f"one stream a record"
            )
            raise _Unfit("value", text)
        if size.rows > ROWS_PER_RECORD_MAX or size.unpacked_bytes > config.decoded_bytes_max:
            raise _Unfit(*too_large(size.rows, size.unpacked_bytes, config))
        with pa.ipc.open_stream(value) as reader:
            wanted = _wanted(reader.schema, shape)
            batches = [batch.select(wanted) for batch in reader if batch.num_rows]
        for batch in batches:
            batch.validate(full=True)
        if batches and _may_be_too_large(size, batches[0].schema, shape, config):
            taken = size.rows * shape.row_bytes
            taken += sum(_string_bytes(column) for batch in batches for column in batch.columns)
            if taken > config.decoded_bytes_max:
                raise _Unfit(*too_large(size.rows, taken, config))
        plain = [_renamed(batch, shape) for batch in _plain(batches, shape)]
    except UnicodeDecodeError as error:
        raise _Unfit(
            "value", f"has a column whose name is not UTF-8 ({error.reason}); name it in UTF-8"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise _Unfit("value", f"is not an Arrow IPC stream that can be read ({error})") from error
    except MalformedStream as error:
        raise _Unfit("value", str(error)) from error
    return plain


def _renamed(batch: pa.RecordBatch, shape: Shape) -> pa.RecordBatch:
    """Each feature by its name; a row that has no value of that has the one by the name before."""
    former = {f.alias_column: f.column for f in shape.features if f.alias}
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    if former.keys().isdisjoint(columns):
        return batch
    for alias in [name for name in batch.schema.names if name in former]:
        name, values = former[alias], columns.pop(alias)
        columns[name] = pc.coalesce(columns[name], values) if name in columns else values
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _wanted(schema: pa.Schema, shape: Shape) -> list[int]:
    """The places of the columns that are read. Raises _Unfit for one that is there twice,
    missing, or no such thing."""
    names_of_all, columns = schema.names, shape.columns
    wanted = [i for i, name in enumerate(names_of_all) if name in columns]
    names = [names_of_all[i] for i in wanted]
    for i, name in zip(wanted, names, strict=True):
        if names.count(name) > 1:  # at most a few names: all are columns of the shape
            raise _Unfit(name, "is given as two columns; send it once")
        _check_type(name, schema.field(i).type, columns[name])
    for name in shape.required:
        if name not in names and name != "session":
            raise _Unfit(name, f"is missing; send it as a column of {shape.wire[name]}")
    return wanted


def _check_type(name: str, given: pa.DataType, wanted: pa.DataType) -> None:
    if pa.types.is_dictionary(given) and not pa.types.is_list(wanted):
        given = given.value_type
    if pa.types.is_null(given) or given == wanted:
        return
    if pa.types.is_list(wanted):
        if not _is_list(given):
            raise _Unfit(name, f"is a column of {given}; send a column of {wanted}")
        return _check_type(name, given.value_type, wanted.value_type)
    if pa.types.is_string(wanted):
        fits = pa.types.is_large_string(given) or pa.types.is_string_view(given)
    elif pa.types.is_binary(wanted):
        fits = any(is_kind(given) for is_kind in _BYTES)
    elif pa.types.is_integer(wanted):
        fits = pa.types.is_integer(given)
    else:
        fits = pa.types.is_floating(given) or pa.types.is_integer(given)
    if not fits:
        integer = " (an integer, milliseconds since 1970)" if name == "ts_ms" else ""
        raise _Unfit(
            name, f"is a column of {given}; cast it to {wanted}{integer} before it is written"
        )


# --- converting
# --------------------------------------------------------------------------------------------------


def _may_be_too_large(
    size: StreamSize, schema: pa.Schema, shape: Shape, config: StreamConfig
) -> bool:
    """Whether rows of these columns may take more than they are allowed, so that they must be
    added up: a string of a dictionary, or behind a view, stands in any number of rows, and a list
    may hold numbers of one byte; of other columns none holds more than the stream's bytes."""
    spreads = (pa.types.is_dictionary, _is_view, _is_list)
    if any(may_spread(t) for t in schema.types for may_spread in spreads):
        return True
    most = size.rows * shape.row_bytes + size.unpacked_bytes * len(schema)
    return bool(most > config.decoded_bytes_max)


def _is_view(given: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(given) or pa.types.is_binary_view(given))


def _is_list(given: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(given) for is_kind in kinds)


def _string_bytes(column: pa.Array) -> int:
    """Bytes of a column's strings and lists once each row has its own; 0 for numbers."""
    if _is_list(column.type):
        values = column.flatten()
        return 8 * len(values) + _string_bytes(values)
    if pa.types.is_dictionary(column.type):
        lengths = _lengths(column.dictionary)
        if lengths is None or not len(lengths):
            return 0
        rows = column.indices.drop_null().to_numpy(False)
        return int(lengths[rows].sum())
    found = _lengths(column)
    return 0 if found is None else int(found.sum())


def _lengths(column: pa.Array) -> I64 | None:
    """Bytes of each string or picture, int64 (n,), 0 for nulls; None if these are none."""
    if _is_view(column.type):
        views = np.frombuffer(column.buffers()[1] or b"", np.int32)
        start = column.offset * _VIEW_INTS
        lengths = views[start : start + len(column) * _VIEW_INTS : _VIEW_INTS].astype(np.int64)
        return np.where(column.is_valid().to_numpy(False), lengths, 0)
    if any(is_kind(column.type) for is_kind in (pa.types.is_binary, *_BYTES)):
        sized: I64 = pc.binary_length(column).fill_null(0).to_numpy(False).astype(np.int64)
        return sized
    return None


def _plain(batches: list[pa.RecordBatch], shape: Shape) -> list[pa.RecordBatch]:
    """The same in the wanted types; themselves if they are. Raises _Unfit for a number that does
    not fit."""
    if not batches:
        return []
    schema = batches[0].schema
    names = schema.names
    wire = shape.columns
    if all(given == wire[name] for name, given in zip(names, schema.types, strict=True)):
        return batches
    return [
        pa.RecordBatch.from_arrays(
            [
                _cast(name, column, wire[name])
                for name, column in zip(names, batch.columns, strict=True)
            ],
            names=names,
        )
        for batch in batches
    ]


def _cast(name: str, column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if column.type == wanted:
        return column
    if pa.types.is_dictionary(column.type):
        return _cast(name, column.dictionary, wanted).take(column.indices)
    is_list = pa.types.is_list(wanted)
    if is_list and _is_list(column.type) and pa.types.is_dictionary(column.type.value_type):
        column = _plain_list(name, column, wanted)
    one = wanted.value_type if is_list else wanted
    try:  # a large integer is rounded where a float is wanted, as the same number in JSON is
        return column.cast(wanted, safe=not pa.types.is_floating(one))
    except pa.ArrowInvalid as error:
        raise _Unfit(
            name, f"is a column of {column.type} with a value that {wanted} does not hold ({error})"
        ) from error


def _plain_list(name: str, column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """A list of a dictionary's strings as a list of strings; of a null an empty one, which says the
    same."""
    values = _cast(name, column.flatten(), wanted.value_type)
    lengths = column.value_lengths().fill_null(0).to_numpy(False)
    offsets = pa.array(np.append(0, np.cumsum(lengths)).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, values)


def _columns(group: list[pa.RecordBatch], owners: list[int], shape: Shape) -> list[Rows]:
    """The flat columns of batches with the same columns; nulls for what they lack."""
    if not group:
        return []
    record = np.repeat(np.array(owners, np.int64), [batch.num_rows for batch in group])
    given = {
        name: [batch.column(i) for batch in group] for i, name in enumerate(group[0].schema.names)
    }
    columns = {}
    for name, type_ in shape.wire.items():
        arrays = given.get(name)
        columns[name] = pa.nulls(len(record), type_) if arrays is None else _joined(arrays)
    return [Rows(columns, record)]


def _joined(arrays: list[pa.Array]) -> pa.Array:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
