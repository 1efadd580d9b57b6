"""Which rows are wrong: a field missing or out of range, a record misplaced (T4, T5). By
columns, many rows at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns import (
    FEATURE_PREFIX,
    IMAGE,
    STRING_BYTES_MAX,
    TS_MS_MAX,
    TS_MS_MIN,
    WEIGHTS,
    Fault,
    Features,
    unequal_lengths,
)
from stream.config import StreamConfig
from stream.decoding.event_faults import (
    SHOWN_MAX,
    Bad,
    row_faults,
    session_faults,
    too_many_pixels,
)
from stream.decoding.record_faults import find_empty_part
from stream.decoding.schema import Columns, Rows, Shape
from stream.hashing import partitions_of_keys, string_buffers
from stream.kernels import Bools
from stream.log import RecordColumns
from stream.record import Record


def judge(
    rows: Rows, records: RecordColumns, shape: Shape, partition: int, config: StreamConfig
) -> Bad:
    """The records that hold a wrong row, each with what is wrong with its first. Rows without a
    session get their record's key first (T5), in place."""
    _fill_sessions(rows, records)
    wrong = np.flatnonzero(_wrong_rows(rows, shape, partition, config.partitions))
    owners, first = np.unique(rows.record[wrong], return_index=True)
    return {
        int(owner): _reason(rows.columns, int(row), shape, partition, config)
        for owner, row in zip(owners, wrong[first], strict=True)
    }


def with_too_many_pixels(rows: Rows, shape: Shape) -> Bad:
    """The records whose pictures together take too long to decode: a few thousand bytes can be
    millions of pixels. Nothing is decoded for it."""
    files: dict[int, dict[bytes, None]] = {}
    for feature in [f for f in shape.features if f.kind == IMAGE and not f.stored]:
        given = rows.columns[feature.column]
        there = np.flatnonzero(given.is_valid().to_numpy(False))
        owners = rows.record[there].tolist()
        for at, owner in zip(there.tolist(), owners, strict=True):
            files.setdefault(owner, {})[given[at].as_py()] = None
    found = {owner: too_many_pixels(pictures, "record") for owner, pictures in files.items()}
    return {owner: why for owner, why in found.items() if why is not None}


def _reason(
    columns: Columns, row: int, shape: Shape, partition: int, config: StreamConfig
) -> Callable[[Record], Fault]:
    def find(record: Record) -> Fault:
        event: dict[str, Any] = {name: column[row].as_py() for name, column in columns.items()}
        event["features"] = {f.name: event[f.column] for f in shape.features}
        is_click = not shape.is_impression
        if not is_click and event["id"] is None and (empty := find_empty_part(record)) is not None:
            return f"impressions[{empty}]", "is null; send an object"
        for one in row_faults(event, is_click, config):
            return one
        for one in session_faults(event["session"], record, partition, config):
            return one
        raise AssertionError("a row is wrong by columns and right by itself")

    return find


def _fill_sessions(rows: Rows, records: RecordColumns) -> None:
    sessions = rows.columns["session"]
    if sessions.null_count == 0:
        return
    owners, owner_of_row = np.unique(rows.record, return_inverse=True)
    has_missing = np.zeros(len(owners), np.bool_)
    has_missing[owner_of_row[sessions.is_null().to_numpy(False)]] = True
    keys = [
        _key(records[int(i)]) if missing else None
        for i, missing in zip(owners, has_missing, strict=True)
    ]
    rows.columns["session"] = pc.coalesce(
        sessions, pa.array(keys, pa.string()).take(pa.array(owner_of_row))
    )


def _key(record: Record) -> str | None:
    try:
        return (record.key or b"").decode() or None
    except UnicodeDecodeError:
        return None  # stays missing: `session_faults` says so


def _wrong_rows(rows: Rows, shape: Shape, partition: int, partitions: int) -> Bools:
    columns = rows.columns
    wrong = np.zeros(len(rows.record), np.bool_)
    for name in shape.required:
        if columns[name].null_count:
            wrong |= columns[name].is_null().to_numpy(False)
    for name, column in columns.items():
        if pa.types.is_string(column.type) and not name.startswith(FEATURE_PREFIX):
            wrong |= _wrong_lengths(column, 1 if name in ("id", "session") else 0)
    ts_ms = filled(columns["ts_ms"], 0).to_numpy(False)
    wrong |= (ts_ms < TS_MS_MIN) | (ts_ms >= TS_MS_MAX)
    if "prediction" in shape.wire:
        wrong |= _wrong_numbers(columns, shape)
    wrong |= partitions_of_keys(filled(columns["session"], ""), partitions) != partition
    return wrong


def _wrong_lengths(column: pa.Array, bytes_min: int) -> Bools:
    """Strings shorter or longer than allowed; a null counts as neither."""
    _, offsets = string_buffers(filled(column, "-"))
    if bytes_min == 0 and offsets[-1] - offsets[0] <= STRING_BYTES_MAX:
        return np.zeros(len(column), np.bool_)  # none is longer than all together
    lengths = offsets[1:] - offsets[:-1]
    return (lengths < bytes_min) | (lengths > STRING_BYTES_MAX)


def _wrong_numbers(columns: Columns, shape: Shape) -> Bools:
    place = filled(columns["position"], 0).to_numpy(False)
    prediction = filled(columns["prediction"], 0.0).to_numpy(False)
    wrong: Bools = (place < 0) | (place > SHOWN_MAX) | (prediction < 0) | (prediction > 1)
    return wrong | wrong_features(columns, shape.features)


def wrong_features(columns: Columns, features: Features) -> Bools:
    """Which rows, (n,), give one of the features what it cannot be; columns as they were given, by
    `FeatureColumn.column`."""
    wrong: Bools = np.zeros(len(next(iter(columns.values()))), np.bool_)
    for feature in features:
        given = columns[feature.column]
        wrong |= feature.wrong(given)
        if feature.kind == WEIGHTS:
            wrong |= unequal_lengths(columns[feature.weighted_column], given)
    return wrong


def filled(column: pa.Array, value: object) -> pa.Array:
    return column.fill_null(value) if column.null_count else column
