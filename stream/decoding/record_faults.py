"""What is wrong with one JSON record that could not be read: field, value and fix.

`decode` finds by columns which records are bad; this looks at one of them alone. Its time and
memory are linear in the record's bytes, and nothing that a record holds makes it raise.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stream.columns import DIGITS_MAX, Fault, ManyDigits, fault, shown
from stream.config import StreamConfig
from stream.decoding.event_faults import row_faults, session_faults
from stream.decoding.json_extent import extent
from stream.decoding.json_frames import DEPTH_MAX
from stream.record import Record

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
#: Of a longer record it is said what the parser of columns made of it: here every value would be a
#: Python object, of which 1 MiB holds half a million.
_LOOKED_INTO_BYTES_MAX = 1 << 18
#: Of a record in which no single value is found wrong, so many events are looked at by all rules.
_ROWS_LOOKED_AT = 100
_TEXT, _INTEGER, _NUMBER, _LIST_OF = "text", "integer", "number", "list of "
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MARK = "\ufeff"
_COLUMN = re.compile(r"Column\(([^)]*)\)")
_TWICE = re.compile(r"Column\(([^)]*)\) was specified twice")
_SHARED = ("ts_ms", "session", "source", "vendor", "model_version")


class _Unreadable(Exception):
    """Carries a Fault."""


def explain_json(
    record: Record, said: str, is_click: bool, partition: int, config: StreamConfig
) -> Fault:
    """The first thing found wrong with a JSON record that could not be read. `said`: what the
    parser made of it."""
    try:
        return fault(*_find(record, said, is_click, partition, config))
    except _Unreadable as error:
        return fault(*error.args)


def _find(record: Record, said: str, is_click: bool, partition: int, config: StreamConfig) -> Fault:
    text = _text(record.value or b"")
    if len(text) > _LOOKED_INTO_BYTES_MAX:
        return _as_parsed(said, is_click)
    return _find_in(_objects(text), record, said, is_click, (partition, config))


def explain_events(
    objects: list[dict[str, Any]],
    record: Record,
    said: str,
    is_click: bool,
    partition: int,
    config: StreamConfig,
) -> Fault:
    """The same of events that were read of a record in another way, and fit no columns."""
    try:
        return fault(*_find_in(objects, record, said, is_click, (partition, config)))
    except _Unreadable as error:
        return fault(*error.args)


def _find_in(
    objects: list[dict[str, Any]],
    record: Record,
    said: str,
    is_click: bool,
    place: tuple[int, StreamConfig],
) -> Fault:
    partition, config = place
    if twice := _TWICE.search(said):
        return twice[1].strip("/").replace("/", "."), "is given twice in one object; send it once"
    kinds = _kinds(is_click, config)
    looked = 0
    for row, is_odd in _rows(objects, kinds, is_click):
        looked += 1
        if not is_odd and looked > _ROWS_LOOKED_AT:
            continue
        for found in (
            *row_faults(row, is_click, config),
            *session_faults(row.get("session"), record, partition, config),
        ):
            return found
    return _elsewhere(objects, said, is_click)


def find_empty_part(record: Record) -> int | None:
    """The place of the first `null` among the impressions of a page view, which reads as an
    impression of nulls."""
    try:
        objects = _objects(_text(record.value or b""))
    except _Unreadable:
        return None  # an Arrow IPC stream
    for row in objects:
        parts = row.get("impressions")
        if isinstance(parts, list) and None in parts:
            return parts.index(None)
    return None


# --- the text
# --------------------------------------------------------------------------------------------------


def _text(value: bytes) -> str:
    """Raises _Unreadable for what a parser does not get to see."""
    if value[:2] in _UTF16 or (len(value) > 1 and 0 in value[:2] and not value.startswith(b"\0\0")):
        raise _Unreadable("value", "looks like UTF-16; send UTF-8")
    if value.startswith(b"\0"):
        raise _Unreadable(
            "value",
            "is not JSON: it begins with a zero byte, as a schema registry frames values; send the "
            "JSON alone, or set registry.url",
        )
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise _Unreadable(
            "value", f"is not UTF-8: {error.reason} at byte {error.start}; send UTF-8"
        ) from error
    if text.startswith(_MARK):
        raise _Unreadable(
            "value", "is not JSON alone: it begins with a byte order mark; send it without"
        )
    _, levels, *_ = extent(np.frombuffer(value, np.uint8))
    if levels > DEPTH_MAX:
        raise _Unreadable("value", f"is nested {levels} deep; allowed are {DEPTH_MAX} levels")
    return text


def _objects(text: str) -> list[dict[str, Any]]:
    """The objects of a value. Raises _Unreadable."""
    parsed = _parsed(text)
    rows = parsed if isinstance(parsed, list) else [parsed]
    for row in rows:
        if not isinstance(row, dict):
            raise _Unreadable("value", f"holds {shown(row)}; send objects")
    return rows


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _no_json(text, error) from error
    except ValueError:  # an integer of so many digits that Python makes no number of it
        try:
            return json.loads(text, parse_int=_integer)
        except json.JSONDecodeError as error:
            raise _no_json(text, error) from error


def _no_json(text: str, error: json.JSONDecodeError) -> _Unreadable:
    where = f"at character {error.pos} of {len(text)}, {text[error.pos : error.pos + 20]!r}"
    return _Unreadable("value", f"is not JSON: {error.msg} {where}")


def _integer(text: str) -> int | ManyDigits:
    return int(text) if len(text) <= DIGITS_MAX else ManyDigits(text)


# --- its events
# --------------------------------------------------------------------------------------------------


def _kinds(is_click: bool, config: StreamConfig) -> dict[str, str]:
    """What the parser wants a field to be; `f_<name>` stands for a feature."""
    kinds = dict.fromkeys(("id", "session", "source", "vendor"), _TEXT) | {"ts_ms": _INTEGER}
    if not is_click:
        kinds |= {
            "item": _TEXT,
            "model_version": _TEXT,
            "position": _INTEGER,
            "prediction": _NUMBER,
        }
        kinds |= {f.column: _kind_of(f.wire_type) for f in config.features}
    return kinds


def _kind_of(type_: pa.DataType) -> str:
    if pa.types.is_list(type_):
        return _LIST_OF + _kind_of(type_.value_type)
    if pa.types.is_string(type_):
        return _TEXT
    return _INTEGER if pa.types.is_integer(type_) else _NUMBER


def _rows(
    objects: Sequence[dict[str, Any]], kinds: dict[str, str], is_click: bool
) -> Iterator[tuple[dict[str, Any], bool]]:
    """The events: each with whether a value of it is no such thing as its field wants."""
    for row in objects:
        parts = None if is_click else row.get("impressions")
        if parts is None:
            yield row, _is_odd(row, kinds, is_click)
            continue
        if not isinstance(parts, list):
            raise _Unreadable("impressions", f"is {shown(parts)}; send an array of objects")
        shared_odd = _is_odd(row, kinds, is_click)
        for i, part in enumerate(parts):
            if not isinstance(part, dict):
                raise _Unreadable(f"impressions[{i}]", f"is {shown(part)}; send an object")
            is_odd = shared_odd or _is_odd(part, kinds, is_click)
            yield (_one(row, part) if is_odd or i < _ROWS_LOOKED_AT else part), is_odd
        if shared_odd and not parts:
            yield row, True


def _one(page: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """An impression of a page view with what it shares with the others."""
    features = part.get("features") or {}
    if isinstance(features, dict) and isinstance(page.get("features"), dict):
        features = {**page["features"], **{k: v for k, v in features.items() if v is not None}}
    elif features == {}:
        features = page.get("features")
    given = {
        k: v for k, v in part.items() if v is not None and k not in ("ts_ms", "session", "source")
    }
    return {**{k: v for k, v in page.items() if k in _SHARED}, **given, "features": features}


def _is_odd(row: dict[str, Any], kinds: dict[str, str], is_click: bool) -> bool:
    for name, value in row.items():
        kind = kinds.get(name)
        if kind is not None and value is not None and not _fits(value, kind):
            return True
    features = None if is_click else row.get("features")
    if features is None:
        return False
    if not isinstance(features, dict):
        return True
    for name, value in features.items():
        kind = kinds.get("f_" + name)
        if kind is not None and value is not None and not _fits(value, kind):
            return True
    return False


def _fits(value: Any, kind: str) -> bool:
    type_ = type(value)
    if kind.startswith(_LIST_OF):
        one = kind.removeprefix(_LIST_OF)
        return type_ is list and all(v is None or _fits(v, one) for v in value)
    if kind == _TEXT:
        return type_ is str and (value.isascii() or _is_whole(value))
    if kind == _INTEGER:
        return type_ is int and _INT64_MIN <= value <= _INT64_MAX
    return type_ is float or type_ is int


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- what no rule about an event says
# -----------------------------------------------------------------------------


def _elsewhere(objects: list[dict[str, Any]], said: str, is_click: bool) -> Fault:
    """Something that the parser does not take, in a field that nobody reads."""
    whole = json.dumps(objects, ensure_ascii=False, default=str)
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        at = error.start
        near = whole[max(0, at - 30) : at]
        name = _holder(objects, lambda text: not _is_whole(text))
        return (
            name,
            f"holds half of a character, \\u{ord(whole[at]):04x}, behind {near!r}; send it whole, "
            f"or not at all",
        )
    return _as_parsed(said, is_click)


def _as_parsed(said: str, is_click: bool) -> Fault:
    """What the parser of columns found, and in which field if it names one."""
    kind = "clicks" if is_click else "impressions"
    found = _COLUMN.search(said)
    name = found[1].strip("/").replace("/", ".") if found else "value"
    why = said or "it is not one object or one array of objects from its beginning to its end"
    return name or "value", f"cannot be read as {kind} ({why}); see docs/events.md"


def _holder(objects: list[dict[str, Any]], is_wrong: Any) -> str:
    """The field of an event whose name or string is wrong; `value` if it lies deeper."""
    for row in objects:
        for name, value in row.items():
            if is_wrong(name) or (isinstance(value, str) and is_wrong(value)):
                return name
    return "value"
