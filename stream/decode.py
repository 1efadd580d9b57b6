"""From records to columns: JSON (one event, a page view, an array of either) and Arrow IPC, whole polls at once.

Which rows come out, and which records are bad, is a function of each record alone, however records were polled
together (I7): JSON is framed per record first (`frames`), parsed with a fixed schema, and where a parse fails, halved
until the bad records stand alone. A bad record is bad as a whole: it is quarantined with its bytes, counted as one.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from stream.config import StreamConfig
from stream.events import CATEGORICAL, STRING_BYTES_MAX, TS_MS_MAX, TS_MS_MIN, Clicks, Impressions
from stream.faults import ARROW_STREAM, SHOWN_MAX, find_fault
from stream.frames import Lines, frame
from stream.keys import hash_pair, hash_strings, partitions_of_keys, string_buffers
from stream.record import ROW_BITS, ROWS_PER_RECORD_MAX, Record
from stream.shape import Columns, Shape, click_shape, flatten_json, impression_shape

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class BadRecord(NamedTuple):
    """A record to quarantine: the field, and what is wrong with it and how to put it right."""

    record: Record
    field: str
    reason: str


def decode_impressions(
    records: Sequence[Record], partition: int, arrival_ms: I64, config: StreamConfig
) -> tuple[Impressions, list[BadRecord]]:
    """The impressions of records of `impressions[partition]`, in log order, and the bad records.

    `records` rise in offset; `arrival_ms` (n,) are their arrivals (T1). Heartbeats are passed over.
    """
    shape = impression_shape(config.features)
    rows, bad = _decode(records, partition, shape, config)
    events = Impressions.empty(config.features)
    if rows is not None:
        events = Impressions(*_numpy_columns(rows, records, arrival_ms), _travelling(rows.columns, shape))
    return events, _explain(records, bad, False, partition, config)


def decode_clicks(
    records: Sequence[Record], partition: int, arrival_ms: I64, config: StreamConfig
) -> tuple[Clicks, list[BadRecord]]:
    """The clicks of records of `clicks[partition]`; else as `decode_impressions`."""
    shape = click_shape()
    rows, bad = _decode(records, partition, shape, config)
    events = Clicks.empty()
    if rows is not None:
        events = Clicks(*_numpy_columns(rows, records, arrival_ms), _travelling(rows.columns, shape))
    return events, _explain(records, bad, True, partition, config)


class _Rows(NamedTuple):
    """Flat columns with the index of the record that each row came from, rising."""

    columns: Columns
    record: I64


def _explain(
    records: Sequence[Record], bad: Iterable[int], is_click: bool, partition: int, config: StreamConfig
) -> list[BadRecord]:
    return [BadRecord(records[i], *find_fault(records[i], is_click, partition, config)) for i in sorted(bad)]


def _decode(
    records: Sequence[Record], partition: int, shape: Shape, config: StreamConfig
) -> tuple[_Rows | None, set[int]]:
    """The good rows (None without any) and the indices of the bad records."""
    bad: set[int] = set()
    json: list[int] = []
    parts: list[_Rows] = []
    for i, record in enumerate(records):
        if record.headers and record.is_heartbeat:
            continue
        if not record.value:
            bad.add(i)
        elif record.value.startswith(ARROW_STREAM):
            columns = _read_arrow(record.value, shape)
            if columns is None:
                bad.add(i)
            elif len(columns["id"]):
                parts.append(_Rows(columns, np.full(len(columns["id"]), i, np.int64)))
        else:
            json.append(i)
    parts += _read_json(records, json, shape, bad)
    rows = _in_log_order(parts)
    if rows is None:
        return None, bad
    _fill_sessions(rows, records)
    wrong = _wrong_rows(rows, shape, partition, config.partitions)
    if not wrong.any():
        return rows, bad
    bad |= set(rows.record[wrong].tolist())
    keep = np.flatnonzero(~np.isin(rows.record, np.array(sorted(bad), np.int64)))
    if not len(keep):
        return None, bad
    return _Rows({name: column.take(pa.array(keep)) for name, column in rows.columns.items()}, rows.record[keep]), bad


def _in_log_order(parts: list[_Rows]) -> _Rows | None:
    if len(parts) <= 1:
        return parts[0] if parts else None
    columns = {name: pa.concat_arrays([part.columns[name] for part in parts]) for name in parts[0].columns}
    record = np.concatenate([part.record for part in parts])
    if (np.diff(record) < 0).any():  # JSON and Arrow records stand mixed in the log
        order = np.argsort(record, kind="stable")
        columns = {name: column.take(pa.array(order)) for name, column in columns.items()}
        record = record[order]
    return _Rows(columns, record)


# --- reading ----------------------------------------------------------------------------------------------------


def _read_json(records: Sequence[Record], indices: list[int], shape: Shape, bad: set[int]) -> list[_Rows]:
    """Rows of the JSON records of these indices; the unreadable ones are added to `bad`."""
    if not indices:
        return []
    lines = frame([records[i].value or b"" for i in indices])
    bad |= {indices[j] for j in np.flatnonzero(lines.objects < 0)}
    parts = []
    for table, start, end in _parse(lines, 0, len(indices), shape):
        if table is None:
            bad.add(indices[start])
            continue
        objects = np.maximum(lines.objects[start:end], 0)
        of_object = np.repeat(np.array(indices[start:end], np.int64), objects)
        columns, object_of_row = flatten_json(table, shape)
        if len(object_of_row):
            parts.append(_Rows(columns, of_object[object_of_row]))
    return parts


def _parse(lines: Lines, start: int, end: int, shape: Shape) -> list[tuple[pa.Table | None, int, int]]:
    """Tables of the values `[start, end)`, halving where a parse fails; None for a value that fails alone."""
    objects = int(np.maximum(lines.objects[start:end], 0).sum())
    if objects == 0:
        return []
    first = int(lines.ends[start - 1]) if start else 0
    text = lines.data[first : int(lines.ends[end - 1])]
    read = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)  # one block: rows never straddle two
    try:
        table = pj.read_json(pa.BufferReader(text), read, shape.parse)
        if table.num_rows == objects:
            return [(table, start, end)]
    except pa.ArrowInvalid:
        pass  # found again below, alone, and explained by `find_fault`
    if end - start == 1:
        return [(None, start, end)]
    middle = (start + end) // 2
    return _parse(lines, start, middle, shape) + _parse(lines, middle, end, shape)


def _read_arrow(value: bytes, shape: Shape) -> Columns | None:
    """Flat columns of an Arrow IPC value, or None if it is not one of this shape."""
    batches, rows = [], 0
    try:
        with pa.ipc.open_stream(value) as reader:
            for batch in reader:
                rows += batch.num_rows
                if rows > ROWS_PER_RECORD_MAX:
                    return None
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
        return {name: _column(table, name, type_) for name, type_ in shape.wire.items()}
    except (pa.ArrowException, OSError, TypeError):
        return None


def _column(table: pa.Table, name: str, wanted: pa.DataType) -> pa.Array:
    """The column, nulls if there is none. Raises TypeError for one of another kind (a number is no identifier)."""
    at = table.schema.get_field_index(name)
    if at < 0:
        return pa.nulls(table.num_rows, wanted)
    column = table.column(at)
    given = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    kinds = {
        pa.string(): (pa.types.is_string, pa.types.is_large_string),
        pa.int64(): (pa.types.is_integer,),
        pa.float64(): (pa.types.is_floating, pa.types.is_integer),
    }
    if not any(fits(given) for fits in kinds[wanted]):
        raise TypeError(f"column {name} is {column.type}, expected {wanted}")
    column = column.cast(wanted)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _fill_sessions(rows: _Rows, records: Sequence[Record]) -> None:
    """A row without a session has its record's key as session (T5)."""
    sessions = rows.columns["session"]
    if sessions.null_count == 0:
        return
    missing = sessions.is_null().to_numpy(False)
    keys: dict[int, str | None] = {}
    for i in np.unique(rows.record[missing]).tolist():
        try:
            keys[i] = (records[i].key or b"").decode() or None
        except UnicodeDecodeError:
            keys[i] = None  # stays missing: `find_fault` says so
    filled = pa.array([keys.get(i) for i in rows.record.tolist()], pa.string())
    rows.columns["session"] = pc.coalesce(sessions, filled)


# --- judging ----------------------------------------------------------------------------------------------------


def _wrong_rows(rows: _Rows, shape: Shape, partition: int, partitions: int) -> Bools:
    """Rows with a field missing or out of range, of a record with too many rows, or misplaced (T4, T5)."""
    columns = rows.columns
    wrong = np.zeros(len(rows.record), np.bool_)
    for name in shape.required:
        if columns[name].null_count:
            wrong |= columns[name].is_null().to_numpy(False)
    for name, column in columns.items():
        if pa.types.is_string(column.type):
            wrong |= _wrong_lengths(column, 1 if name in ("id", "session") else 0)
    ts_ms = _filled(columns["ts_ms"], 0).to_numpy(False)
    wrong |= (ts_ms < TS_MS_MIN) | (ts_ms >= TS_MS_MAX)
    if shape.is_impression:
        wrong |= _wrong_numbers(columns, shape)
    wrong |= partitions_of_keys(_filled(columns["session"], ""), partitions) != partition
    if len(rows.record) > ROWS_PER_RECORD_MAX:
        wrong |= np.bincount(rows.record)[rows.record] > ROWS_PER_RECORD_MAX
    return wrong


def _wrong_lengths(column: pa.Array, bytes_min: int) -> Bools:
    """Strings shorter or longer than allowed; a null counts as neither."""
    _, offsets = string_buffers(_filled(column, "-"))
    lengths = np.diff(offsets)
    return (lengths < bytes_min) | (lengths > STRING_BYTES_MAX)


def _wrong_numbers(columns: Columns, shape: Shape) -> Bools:
    shown = _filled(columns["position"], 0).to_numpy(False)
    prediction = _filled(columns["prediction"], 0.0).to_numpy(False)
    wrong: Bools = (shown < 0) | (shown > SHOWN_MAX) | (prediction < 0) | (prediction > 1)
    for feature in shape.features:
        if feature.kind != CATEGORICAL:
            wrong |= np.isinf(_float32(columns[feature.column]))
    return wrong


def _filled(column: pa.Array, value: object) -> pa.Array:
    return column.fill_null(value) if column.null_count else column


def _float32(column: pa.Array) -> npt.NDArray[np.float32]:
    """Null becomes NaN, what float32 cannot hold infinite."""
    with np.errstate(over="ignore"):
        narrow: npt.NDArray[np.float32] = _filled(column, float("nan")).to_numpy(False).astype(np.float32)
    return narrow


# --- writing columns --------------------------------------------------------------------------------------------


def _numpy_columns(rows: _Rows, records: Sequence[Record], arrival_ms: I64) -> tuple[I64, I64, I64, U64, U64, U64]:
    """position, arrival_ms, ts_ms, id, source_hash, vendor_hash."""
    columns, record = rows.columns, rows.record
    offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
    first = np.searchsorted(record, record)  # index of the first row of each row's record
    return (
        (offsets[record] << ROW_BITS) | (np.arange(len(record)) - first),
        np.asarray(arrival_ms, np.int64)[record],
        columns["ts_ms"].to_numpy(False),
        hash_pair(columns["session"], columns["id"]),
        hash_strings(_filled(columns["source"], "")),
        hash_strings(_filled(columns["vendor"], "")),
    )


def _travelling(columns: Columns, shape: Shape) -> pa.Table:
    """The table of what only travels on: no nulls, in the schema's types."""
    arrays = []
    for field in shape.schema:
        column = columns["position" if field.name == "shown_at" else field.name]
        if pa.types.is_string(field.type):
            arrays.append(_filled(column, ""))
        elif pa.types.is_float32(field.type):
            arrays.append(pa.array(_float32(column)))
        else:
            arrays.append(_filled(column, -1).cast(field.type))
    return pa.table(arrays, schema=shape.schema)
