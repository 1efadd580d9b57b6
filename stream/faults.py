"""What is wrong with one record, in words: field, value and fix (for quarantine and `events check`).

`decode` decides by columns which records are bad; this looks at a bad one alone and says why.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from stream.config import StreamConfig
from stream.events import NUMERIC, STRING_BYTES_MAX, TS_MS_MAX, TS_MS_MIN
from stream.frames import DEPTH_MAX
from stream.keys import partition_of_key
from stream.record import ROWS_PER_RECORD_MAX, Record

#: A field of the record and what is wrong with it.
Fault = tuple[str, str]

ARROW_STREAM = b"\xff\xff\xff\xff"  # an Arrow IPC stream begins so, and no JSON text does
PRODUCER = "producer"  # header: who sent it (T5)
SHOWN_MAX = 2**31 - 1
FLOAT32_MAX = 3.4028234e38


def find_fault(record: Record, is_click: bool, partition: int, config: StreamConfig) -> Fault:
    """The first thing wrong with a record that could not be decoded."""
    value = record.value
    if not value:
        return "value", "is empty; send a JSON object, a JSON array of objects, or an Arrow IPC stream"
    try:
        rows = _arrow_rows(value) if value.startswith(ARROW_STREAM) else _json_rows(value)
        for row in _impressions(rows) if not is_click else rows:
            for fault in row_faults(row, is_click, config):
                return fault
            for fault in _key_faults(row.get("session"), record, partition, config):
                return fault
    except _Unreadable as error:
        return error.args
    return "value", f"cannot be read as {'clicks' if is_click else 'impressions'}; see the schemas in docs/events.md"


class _Unreadable(Exception):
    """Carries a Fault."""


def _arrow_rows(value: bytes) -> list[dict[str, Any]]:
    """Rows of an IPC value; feature columns are put where JSON has them."""
    try:
        table = pa.ipc.open_stream(value).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _Unreadable("value", f"is not an Arrow IPC stream ({error})") from error
    if table.num_rows > ROWS_PER_RECORD_MAX:
        raise _Unreadable("value", f"has {table.num_rows} rows; send at most {ROWS_PER_RECORD_MAX} a record")
    rows = table.to_pylist()
    for row in rows:
        row["features"] = {name.removeprefix("f_"): row[name] for name in row if name.startswith("f_")}
    return list(rows)


def _json_rows(value: bytes) -> list[dict[str, Any]]:
    try:
        parsed = json.loads(value.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise _Unreadable("value", f"is not UTF-8: {error.reason} at byte {error.start}; send UTF-8") from error
    except json.JSONDecodeError as error:
        raise _Unreadable("value", f"is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise _Unreadable("value", f"is nested too deep; allowed are {DEPTH_MAX} levels") from error
    rows = parsed if isinstance(parsed, list) else [parsed]
    for row in rows:
        if not isinstance(row, dict):
            raise _Unreadable("value", f"holds {_shown(row)}; send objects")
    return rows


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise _Unreadable(name, "is given twice in one object; send it once")
    return dict(pairs)


def _impressions(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Page views taken apart: each impression with what it shares with the others (and its place, as `in`)."""
    for row in rows:
        parts = row.get("impressions")
        if parts is None:
            yield row
            continue
        if not isinstance(parts, list):
            raise _Unreadable("impressions", f"is {_shown(parts)}; send an array of objects")
        shared = {k: v for k, v in row.items() if k in ("ts_ms", "session", "source", "vendor", "model_version")}
        for i, part in enumerate(parts):
            if not isinstance(part, dict):
                raise _Unreadable(f"impressions[{i}]", f"is {_shown(part)}; send an object")
            features = part.get("features") or {}
            if isinstance(features, dict) and isinstance(row.get("features"), dict):
                features = {**row["features"], **{k: v for k, v in features.items() if v is not None}}
            given = {k: v for k, v in part.items() if v is not None and k not in ("ts_ms", "session", "source")}
            yield {**shared, **given, "features": features}


def row_faults(row: dict[str, Any], is_click: bool, config: StreamConfig) -> Iterator[Fault]:
    """What is wrong with one impression or click as a dict of its JSON fields, apart from its session."""
    required = ("id",) if is_click else ("id", "source", "vendor", "item")
    optional = ("source", "vendor") if is_click else ("model_version",)
    for name in required:
        yield from string_faults(name, row.get(name), needed=True, filled=name == "id")
    for name in optional:
        yield from string_faults(name, row.get(name), needed=False)
    yield from _time_faults(row.get("ts_ms"))
    if not is_click:
        yield from _number_faults(row)
        yield from _feature_faults(row.get("features"), config)


def string_faults(name: str, value: Any, needed: bool, filled: bool = False) -> Iterator[Fault]:
    """What is wrong with a string field: `needed` = not null, `filled` = not empty."""
    if value is None:
        if needed:
            yield name, "is missing; send it as a string"
    elif not isinstance(value, str):
        yield name, f"is {_shown(value)}; send it as a string"
    elif filled and not value:
        yield name, "is empty; send a string that names it"
    elif (size := len(value.encode("utf-8", "surrogatepass"))) > STRING_BYTES_MAX:
        yield name, f"has {size} bytes ({_shown(value)}); allowed are {STRING_BYTES_MAX}"


def _time_faults(value: Any) -> Iterator[Fault]:
    if value is None:
        yield "ts_ms", "is missing; send the event time in milliseconds since 1970 as an integer"
    elif isinstance(value, bool) or not isinstance(value, int):
        yield "ts_ms", f"is {_shown(value)}; send milliseconds since 1970 as an integer"
    elif 0 < value < TS_MS_MIN:
        yield "ts_ms", f"is {value}, which looks like seconds; send milliseconds since 1970 ({value}000?)"
    elif not TS_MS_MIN <= value < TS_MS_MAX:
        yield "ts_ms", f"is {value}; send milliseconds since 1970, between {TS_MS_MIN} and {TS_MS_MAX}"


def _number_faults(row: dict[str, Any]) -> Iterator[Fault]:
    shown, prediction = row.get("position"), row.get("prediction")
    if shown is not None and (isinstance(shown, bool) or not isinstance(shown, int) or not 0 <= shown <= SHOWN_MAX):
        yield "position", f"is {_shown(shown)}; send an integer of 0 or more, or leave it out"
    if prediction is None or prediction != prediction:
        return
    if isinstance(prediction, bool) or not isinstance(prediction, int | float) or not 0 <= prediction <= 1:
        yield "prediction", f"is {_shown(prediction)}; send a number in [0, 1], or leave it out"


def _feature_faults(features: Any, config: StreamConfig) -> Iterator[Fault]:
    if features is None:
        return
    if not isinstance(features, dict):
        yield "features", f"is {_shown(features)}; send an object"
        return
    for declared in config.features:
        value, name = features.get(declared.name), f"features.{declared.name}"
        if declared.kind != NUMERIC:
            yield from string_faults(name, value, needed=False)
        elif value is None or value != value:
            continue
        elif isinstance(value, bool) or not isinstance(value, int | float):
            yield name, f"is {_shown(value)}; it is declared numeric: send a number"
        elif abs(value) > FLOAT32_MAX:
            yield name, f"is {_shown(value)}; send a number that a 32-bit float holds"


def _key_faults(session: Any, record: Record, partition: int, config: StreamConfig) -> Iterator[Fault]:
    if session is None and record.key:
        try:
            session = record.key.decode()
        except UnicodeDecodeError:
            yield "session", "is missing, and the record's key is not UTF-8; send the session as key and field"
            return
    yield from string_faults("session", session, needed=True, filled=True)
    if isinstance(session, str) and (right := partition_of_key(session.encode(), config.partitions)) != partition:
        raw = record.header(PRODUCER)
        who = f"producer {raw.decode(errors='replace')!r}" if raw else "the producer (no `producer` header)"
        yield (
            "partition",
            f"{partition} holds session {_shown(session)}, which belongs to partition {right} of {config.partitions}; "
            f"{who} must place keys with murmur2 (Kafka's default partitioner)",
        )


def _shown(value: Any) -> str:
    """A value for a message: what it is, cut short."""
    kind = {str: "the string", bool: "the boolean", int: "the number", float: "the number"}.get(type(value))
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    text = text if len(text) <= 60 else text[:57] + "..."
    if kind is None:
        return "null" if value is None else f"a {type(value).__name__}: {text}"
    return f"{kind} {text}"
