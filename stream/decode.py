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

from stream.arrow_values import read_arrow
from stream.config import StreamConfig
from stream.events import CATEGORICAL, STRING_BYTES_MAX, TS_MS_MAX, TS_MS_MIN, Clicks, Impressions
from stream.faults import SHOWN_MAX, find_fault
from stream.frames import Lines, frame
from stream.kernel import kernel
from stream.keys import hash_pair, hash_strings, partitions_of_keys, string_buffers
from stream.record import ROW_BITS, ROWS_PER_RECORD_MAX, Record
from stream.record_columns import Bytes, Entries, RecordColumns
from stream.secret import HashKey
from stream.shape import Columns, Shape, activity_shape, click_shape, flatten_json, impression_shape
from stream.values import floats, positions, strings

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

#: What a record's value is. `ARROW_STREAM` in `faults` says how one begins.
_CONTROL, _EMPTY, _ARROW, _JSON = 0, 1, 2, 3


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
    laid_out, shape = RecordColumns.of(records), impression_shape(config.features)
    rows, bad = _decode(laid_out, partition, shape, config)
    events = Impressions.empty(config.features)
    if rows is not None:
        events = Impressions(
            *_numpy_columns(rows, laid_out, arrival_ms, config.hash_key), _travelling(rows.columns, shape)
        )
    return events, _explain(laid_out, bad, False, partition, config)


def decode_clicks(
    records: Sequence[Record], partition: int, arrival_ms: I64, config: StreamConfig
) -> tuple[Clicks, list[BadRecord]]:
    """The clicks of records of `clicks[partition]`; else as `decode_impressions`."""
    laid_out, shape = RecordColumns.of(records), click_shape()
    rows, bad = _decode(laid_out, partition, shape, config)
    events = Clicks.empty()
    if rows is not None:
        events = Clicks(*_numpy_columns(rows, laid_out, arrival_ms, config.hash_key), _travelling(rows.columns, shape))
    return events, _explain(laid_out, bad, True, partition, config)


class Activity(NamedTuple):
    """Events of some records of one input, in log order. `position`, `ts_ms`, `arrival_ms` are int64 (n,); `source`
    and `vendor` Arrow string arrays without nulls, `""` where not given; `id` is that of the impression, uint64 (n,).
    `unknown` holds the offset of each record that could not be read, rising."""

    position: I64
    ts_ms: I64
    arrival_ms: I64
    source: pa.Array
    vendor: pa.Array
    id: U64
    unknown: I64


def decode_activity(
    records: Sequence[Record], partition: int, arrival_ms: I64, is_click: bool, config: StreamConfig
) -> Activity:
    """What counting needs of records of `impressions[partition]` or `clicks[partition]` (F1); the rest of an event is
    passed over unread. Heartbeats are nobody's activity."""
    laid_out = RecordColumns.of(records)
    rows, bad = _decode(laid_out, partition, click_shape() if is_click else activity_shape(), config)
    unknown = laid_out.offset[np.array(sorted(bad), np.int64)]
    if rows is None:
        nothing, no_names = np.zeros(0, np.int64), pa.array([], pa.string())
        return Activity(nothing, nothing, nothing, no_names, no_names, nothing.astype(np.uint64), unknown)
    source, vendor = (_filled(rows.columns[name], "") for name in ("source", "vendor"))
    arrived = np.asarray(arrival_ms, np.int64)[rows.record]
    id = hash_pair(rows.columns["session"], rows.columns["id"], config.hash_key)
    ts_ms = rows.columns["ts_ms"].to_numpy(False)
    return Activity(_positions(rows, laid_out), ts_ms, arrived, source, vendor, id, unknown)


class _Rows(NamedTuple):
    """Flat columns with the index of the record that each row came from, rising."""

    columns: Columns
    record: I64


def _explain(
    records: RecordColumns, bad: Iterable[int], is_click: bool, partition: int, config: StreamConfig
) -> list[BadRecord]:
    return [BadRecord(one, *find_fault(one, is_click, partition, config)) for one in (records[i] for i in sorted(bad))]


def _decode(
    records: RecordColumns, partition: int, shape: Shape, config: StreamConfig
) -> tuple[_Rows | None, set[int]]:
    """The good rows (None without any) and the indices of the bad records."""
    kinds = np.empty(len(records), np.int8)
    _kinds(records.data, records.entries, kinds)
    bad: set[int] = set(np.flatnonzero(kinds == _EMPTY).tolist())
    parts = [_Rows(*part) for part in read_arrow(records, np.flatnonzero(kinds == _ARROW).tolist(), shape, bad)]
    parts += _read_json(records, np.flatnonzero(kinds == _JSON), shape, bad)
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


@kernel
def _kinds(data: Bytes, entries: Entries, kinds: npt.NDArray[np.int8]) -> None:
    for i in range(len(kinds)):
        entry = entries[i]
        at = entry.value
        if entry.heartbeat:
            kinds[i] = _CONTROL
        elif entry.value_bytes <= 0:
            kinds[i] = _EMPTY
        elif (
            entry.value_bytes >= 4
            and data[at] == 255
            and data[at + 1] == 255
            and data[at + 2] == 255
            and data[at + 3] == 255
        ):
            kinds[i] = _ARROW
        else:
            kinds[i] = _JSON


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


def _read_json(records: RecordColumns, indices: I64, shape: Shape, bad: set[int]) -> list[_Rows]:
    """Rows of the JSON records of these indices; the unreadable ones are added to `bad`."""
    if not len(indices):
        return []
    entries = records.entries[indices]
    lines = frame(records.data, entries["value"].astype(np.int64), entries["value_bytes"].astype(np.int64))
    bad |= set(indices[lines.objects < 0].tolist())
    parts = []
    for table, start, end in _parse(lines, 0, len(indices), shape):
        if table is None:
            bad.add(int(indices[start]))
            continue
        of_object = np.repeat(indices[start:end], np.maximum(lines.objects[start:end], 0))
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
    text = pa.py_buffer(lines.data[first : int(lines.ends[end - 1])])
    read = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)  # one block: rows never straddle two
    try:
        table = pj.open_json(pa.BufferReader(text), read, shape.parse).read_all()
        if table.num_rows == objects:
            return [(table, start, end)]
    except pa.ArrowInvalid:
        pass  # found again below, alone, and explained by `find_fault`
    if end - start == 1:
        return [(None, start, end)]
    middle = (start + end) // 2
    return _parse(lines, start, middle, shape) + _parse(lines, middle, end, shape)


def _fill_sessions(rows: _Rows, records: RecordColumns) -> None:
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
    if "prediction" in shape.wire:
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
            wrong |= np.isinf(floats(columns[feature.column]))
    return wrong


def _filled(column: pa.Array, value: object) -> pa.Array:
    return column.fill_null(value) if column.null_count else column


# --- writing columns --------------------------------------------------------------------------------------------


def _numpy_columns(
    rows: _Rows, records: RecordColumns, arrival_ms: I64, key: HashKey
) -> tuple[I64, I64, I64, U64, U64, U64]:
    """position, arrival_ms, ts_ms, id, source_hash, vendor_hash."""
    columns = rows.columns
    return (
        _positions(rows, records),
        np.asarray(arrival_ms, np.int64)[rows.record],
        columns["ts_ms"].to_numpy(False),
        hash_pair(columns["session"], columns["id"], key),
        hash_strings(_filled(columns["source"], ""), key),
        hash_strings(_filled(columns["vendor"], ""), key),
    )


def _positions(rows: _Rows, records: RecordColumns) -> I64:
    """T4."""
    record = rows.record
    begins = np.flatnonzero(np.append(True, np.diff(record) != 0))
    row = np.arange(len(record)) - np.repeat(begins, np.diff(begins, append=len(record)))
    return (records.offset[record] << ROW_BITS) | row


def _travelling(columns: Columns, shape: Shape) -> pa.Table:
    """The table of what only travels on: no nulls, in the schema's types."""
    arrays = []
    for field in shape.schema:
        column = columns["position" if field.name == "shown_at" else field.name]
        if pa.types.is_string(field.type):
            arrays.append(strings(column))
        elif pa.types.is_float32(field.type):
            arrays.append(pa.array(floats(column)))
        else:
            arrays.append(positions(column))
    return pa.table(arrays, schema=shape.schema)
