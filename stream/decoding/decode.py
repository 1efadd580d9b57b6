"""From records to columns: JSON (one event, a page view, an array of either), Arrow IPC, and Avro
and Protobuf with schemas of a registry, whole polls at once.

Which rows come out, and which records are bad, is a function of each record alone, however records
were polled together (I7). A bad record is bad as a whole: it is quarantined with its bytes, counted
as one.

No record makes this raise, and none costs more than its bytes allow: a value holds at most
`record_bytes_max` bytes, and its rows take at most `decoded_bytes_max`, which is known before the
memory is taken.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.columns import Clicks, Fault, Impressions, fault, floats, positions, strings
from stream.config import StreamConfig
from stream.decoding.arrow_values import read_arrow
from stream.decoding.cloud_events import unwrapped
from stream.decoding.event_faults import Bad, Reason
from stream.decoding.json_values import read_json
from stream.decoding.registered_values import SchemaLacking, read_registered
from stream.decoding.row_checks import filled, judge, with_too_many_pixels
from stream.decoding.schema import (
    Rows,
    Shape,
    activity_shape,
    click_shape,
    impression_shape,
    in_log_order,
    without,
)
from stream.hashing import HashKey, hash_pair, hash_strings
from stream.kernels import I64, U64, Bytes, kernel
from stream.log import Entries, RecordColumns, batch_fault
from stream.record import ROW_BITS, Record

#: What a record's value is. An Arrow IPC stream begins with four bytes FF, which no JSON text does.
#: One with the id of a schema begins with a byte 0, which neither does.
_CONTROL, _EMPTY, _ARROW, _JSON, _LARGE, _BROKEN, _REGISTERED = 0, 1, 2, 3, 4, 5, 6
_EMPTY_VALUE = fault(
    "value", "is empty; send a JSON object, a JSON array of objects, or an Arrow IPC stream"
)
_GOOD = b'{"id":"i","ts_ms":1700000000000,"session":"s","source":"u","vendor":"v","item":"x"}'


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
    if rows is None:
        return Impressions.empty(config.features), _explained(laid_out, bad)
    columns = _numpy_columns(rows, laid_out, arrival_ms, config.hash_key)
    return Impressions(*columns, _travelling(rows, shape)), _explained(laid_out, bad)


def decode_clicks(
    records: Sequence[Record], partition: int, arrival_ms: I64, config: StreamConfig
) -> tuple[Clicks, list[BadRecord]]:
    """The clicks of records of `clicks[partition]`; else as `decode_impressions`."""
    laid_out, shape = RecordColumns.of(records), click_shape()
    rows, bad = _decode(laid_out, partition, shape, config)
    if rows is None:
        return Clicks.empty(), _explained(laid_out, bad)
    columns = _numpy_columns(rows, laid_out, arrival_ms, config.hash_key)
    return Clicks(*columns, _travelling(rows, shape)), _explained(laid_out, bad)


class DecodedActivity(NamedTuple):
    """Events of some records of one input, in log order. `position`, `ts_ms`, `arrival_ms` are
    int64 (n,); `source` and `vendor` Arrow string arrays without nulls, `""` where not given; `id`
    is that of the impression, uint64 (n,). `unknown` holds the offset of each record that could not
    be read, rising."""

    position: I64
    ts_ms: I64
    arrival_ms: I64
    source: pa.Array
    vendor: pa.Array
    id: U64
    unknown: I64


def decode_activity(
    records: Sequence[Record], partition: int, arrival_ms: I64, is_click: bool, config: StreamConfig
) -> DecodedActivity:
    """What counting needs of records of `impressions[partition]` or `clicks[partition]` (F1); the
    rest of an event is passed over unread. Heartbeats are nobody's activity."""
    laid_out = RecordColumns.of(records)
    rows, bad = _decode(
        laid_out, partition, click_shape() if is_click else activity_shape(), config
    )
    unknown = laid_out.offset[np.array(sorted(bad), np.int64)]
    if rows is None:
        nothing, no_names = np.zeros(0, np.int64), pa.array([], pa.string())
        return DecodedActivity(
            nothing, nothing, nothing, no_names, no_names, nothing.astype(np.uint64), unknown
        )
    source, vendor = (filled(rows.columns[name], "") for name in ("source", "vendor"))
    arrived = np.asarray(arrival_ms, np.int64)[rows.record]
    id = hash_pair(rows.columns["session"], rows.columns["id"], config.hash_key)
    ts_ms = rows.columns["ts_ms"].to_numpy(False)
    return DecodedActivity(_positions(rows, laid_out), ts_ms, arrived, source, vendor, id, unknown)


# --- one decoder for all of them
# --------------------------------------------------------------------------------


def _decode(
    records: RecordColumns, partition: int, shape: Shape, config: StreamConfig
) -> tuple[Rows | None, Bad]:
    """The good rows (None without any), and the bad records, each with what is wrong.

    The guard: where reading raises all the same, records are divided until one stands alone; that
    one is bad.
    """
    try:
        return _decode_together(records, partition, shape, config)
    except (MemoryError, SchemaLacking):
        raise
    except Exception as error:
        if len(records) <= 1:
            _check_decoder(error, shape, config)
            return None, dict.fromkeys(range(len(records)), _unforeseen("cannot be read", error))
    middle = len(records) // 2
    low, low_bad = _decode(records[:middle], partition, shape, config)
    high, high_bad = _decode(records[middle:], partition, shape, config)
    parts = [
        part
        for part in (low, high and Rows(high.columns, high.record + middle))
        if part is not None
    ]
    return in_log_order(parts), low_bad | {i + middle: why for i, why in high_bad.items()}


def _decode_together(
    records: RecordColumns, partition: int, shape: Shape, config: StreamConfig
) -> tuple[Rows | None, Bad]:
    bad: Bad = {}
    records, in_envelope = unwrapped(records, config.record_bytes_max, bad)
    kinds = np.empty(len(records), np.int8)
    has_schemas = len(records.schemas) > 0
    _kinds(records.data, records.entries, config.record_bytes_max, has_schemas, kinds)
    kinds[list(bad)] = _CONTROL  # nothing is left to be read of them
    inner = np.array(sorted(in_envelope), np.int64)  # in an envelope stands no schema's id
    kinds[inner] = np.where(kinds[inner] == _REGISTERED, _JSON, kinds[inner])
    bad |= dict.fromkeys(np.flatnonzero(kinds == _EMPTY).tolist(), _EMPTY_VALUE)
    bad |= dict.fromkeys(np.flatnonzero(kinds == _BROKEN).tolist(), batch_fault)
    for i in np.flatnonzero(kinds == _LARGE).tolist():
        size, allowed = int(records.entries[i]["value_bytes"]), config.record_bytes_max
        bad[i] = fault(
            "value", f"has {size} bytes; send at most {allowed} a record (record_bytes_max)"
        )
    parts = read_arrow(records, np.flatnonzero(kinds == _ARROW).tolist(), shape, config, bad)
    parts += read_json(records, np.flatnonzero(kinds == _JSON), shape, partition, config, bad)
    registered = np.flatnonzero(kinds == _REGISTERED)
    parts += read_registered(records, registered, shape, partition, config, bad)
    rows = in_log_order(parts)
    if rows is not None and (heavy := with_too_many_pixels(rows, shape)):
        rows, bad = without(rows, heavy), bad | heavy
    if rows is not None:
        wrong = judge(rows, records, shape, partition, config)
        rows, bad = without(rows, wrong), bad | wrong
    for i in in_envelope & bad.keys():
        bad[i] = _of_inner(bad[i], records[i])
    return rows, bad


def _of_inner(why: Fault | Reason, inner: Record) -> Fault | Reason:
    """What is wrong with a record is what is wrong with the event in its envelope."""
    return why if isinstance(why, tuple) else lambda _: why(inner)


def _check_decoder(error: Exception, shape: Shape, config: StreamConfig) -> None:
    """If a good event cannot be read either, it is the decoder that is broken and no record:
    that error is raised."""
    good = RecordColumns.of([Record(0, 0, None, _GOOD)])
    try:
        rows, _ = _decode_together(good, 0, shape, replace(config, partitions=1))
    except Exception:
        raise error from None
    if rows is None:
        raise error


def _explained(records: RecordColumns, bad: Bad) -> list[BadRecord]:
    return [
        BadRecord(record, *_reason(record, bad[i]))
        for i, record in ((i, records[i]) for i in sorted(bad))
    ]


def _reason(record: Record, why: Fault | Reason) -> Fault:
    if isinstance(why, tuple):
        return why
    try:
        return fault(*why(record))
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # the record is bad already: that nobody can say why makes nothing worse
        return _unforeseen("cannot be used, and why cannot be said", error)


def _unforeseen(what: str, error: Exception) -> Fault:
    return fault(
        "value", f"{what} ({type(error).__name__}: {error}); please report it, with the record"
    )


@kernel
def _kinds(
    data: Bytes,
    entries: Entries,
    bytes_max: int,
    has_schemas: bool,
    kinds: npt.NDArray[np.int8],
) -> None:
    for i in range(len(kinds)):
        entry = entries[i]
        at = entry.value
        if entry.batch_fault:
            kinds[i] = _BROKEN
        elif entry.heartbeat:
            kinds[i] = _CONTROL
        elif entry.value_bytes <= 0:
            kinds[i] = _EMPTY
        elif entry.value_bytes > bytes_max:
            kinds[i] = _LARGE
        elif (
            entry.value_bytes >= 4
            and data[at] == 255
            and data[at + 1] == 255
            and data[at + 2] == 255
            and data[at + 3] == 255
        ):
            kinds[i] = _ARROW
        elif has_schemas and data[at] == 0:
            kinds[i] = _REGISTERED
        else:
            kinds[i] = _JSON


# --- writing columns
# --------------------------------------------------------------------------------------------


def _numpy_columns(
    rows: Rows, records: RecordColumns, arrival_ms: I64, key: HashKey
) -> tuple[I64, I64, I64, U64, U64, U64]:
    """position, arrival_ms, ts_ms, id, source_hash, vendor_hash."""
    columns = rows.columns
    return (
        _positions(rows, records),
        np.asarray(arrival_ms, np.int64)[rows.record],
        columns["ts_ms"].to_numpy(False),
        hash_pair(columns["session"], columns["id"], key),
        hash_strings(filled(columns["source"], ""), key),
        hash_strings(filled(columns["vendor"], ""), key),
    )


def _positions(rows: Rows, records: RecordColumns) -> I64:
    """T4."""
    record = rows.record
    row = np.arange(len(record)) - np.searchsorted(record, record)  # they rise
    return (records.offset[record] << ROW_BITS) | row


def _travelling(rows: Rows, shape: Shape) -> pa.Table:
    """The table of what only travels on: no nulls, in the schema's types."""
    arrays = []
    features = {feature.column: feature for feature in shape.features}
    for field in shape.schema:
        column = rows.columns["position" if field.name == "shown_at" else field.name]
        if field.name in features:
            arrays.append(features[field.name].column_of(column))
        elif pa.types.is_string(field.type):
            arrays.append(strings(column))
        elif pa.types.is_float32(field.type):
            arrays.append(pa.array(floats(column)))
        else:
            arrays.append(positions(column))
    return pa.table(arrays, schema=shape.schema)
