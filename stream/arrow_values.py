"""Arrow IPC values of many records read into one set of flat columns."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.record import ROWS_PER_RECORD_MAX
from stream.record_columns import RecordColumns
from stream.shape import Columns, Shape

I64 = npt.NDArray[np.int64]

_FITS = {
    pa.string(): (pa.types.is_string, pa.types.is_large_string),
    pa.int64(): (pa.types.is_integer,),
    pa.float64(): (pa.types.is_floating, pa.types.is_integer),
}


def read_arrow(
    records: RecordColumns, indices: Sequence[int], shape: Shape, bad: set[int]
) -> list[tuple[Columns, I64]]:
    """Flat columns of the records of these indices, with the index of the record of each row; the unreadable ones are
    added to `bad`. Values that follow each other with one schema are read as one table."""
    parts: list[tuple[Columns, I64]] = []
    group: list[pa.RecordBatch] = []
    owners: list[int] = []
    for i in indices:
        batches = _batches(records.value(i).tobytes(), shape)
        if batches is None:
            bad.add(i)
            continue
        if group and batches and batches[0].schema != group[0].schema:
            parts += _columns(group, owners, shape, bad)
            group, owners = [], []
        group += batches
        owners += [i] * len(batches)
    return parts + _columns(group, owners, shape, bad)


def _batches(value: bytes, shape: Shape) -> list[pa.RecordBatch] | None:
    """What of the value's batches this shape reads, checked in full; None if it is no Arrow IPC stream of a size that
    is allowed. Batches without rows are left out."""
    batches: list[pa.RecordBatch] = []
    rows = 0
    try:
        with pa.ipc.open_stream(value) as reader:
            schema = reader.schema
            wanted = [i for i, name in enumerate(schema.names) if name in shape.wire]
            if len({schema.names[i] for i in wanted}) < len(wanted):
                return None  # a column twice: nobody can say which one is meant
            for batch in reader:
                rows += batch.num_rows
                if rows > ROWS_PER_RECORD_MAX:
                    return None
                batch = batch if len(wanted) == len(schema) else batch.select(wanted)
                batch.validate(full=True)
                if batch.num_rows or not batches:
                    batches.append(batch)
    except (pa.ArrowException, OSError):
        return None
    return batches


def _columns(group: list[pa.RecordBatch], owners: list[int], shape: Shape, bad: set[int]) -> list[tuple[Columns, I64]]:
    """The flat columns of batches of one schema; where a value does not fit, each record is read by itself."""
    rows = np.array([batch.num_rows for batch in group], np.int64)
    if not group:
        return []
    record = np.repeat(np.array(owners, np.int64), rows)
    try:
        table = pa.Table.from_batches(group)
        columns = {name: _column(table, name, type_) for name, type_ in shape.wire.items()}
    except (pa.ArrowException, TypeError):
        if len(set(owners)) == 1:
            bad.add(owners[0])
            return []
        parts = []
        for i in dict.fromkeys(owners):
            mine = [batch for batch, owner in zip(group, owners, strict=True) if owner == i]
            parts += _columns(mine, [i] * len(mine), shape, bad)
        return parts
    return [(columns, record)] if len(record) else []


def _column(table: pa.Table, name: str, wanted: pa.DataType) -> pa.Array:
    """The column, nulls if there is none. Raises TypeError for one of another kind (a number is no identifier)."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return pa.nulls(table.num_rows, wanted)
    column = table.column(at)
    given = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not any(fits(given) for fits in _FITS[wanted]):
        raise TypeError(f"column {name} is {column.type}, expected {wanted}")
    column = column if column.type == wanted else column.cast(wanted)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
