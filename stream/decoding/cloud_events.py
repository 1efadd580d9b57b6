"""Events in an envelope: CloudEvents in structured mode, and JSON behind the id of a JSON schema.

What stands in the envelope is taken for the record's value, and read as any other. In binary mode
(`ce_` headers) the value is the event itself, and nothing is to be done. Of an envelope only
`specversion` and `data` are looked at: an event says its own `id`, `source` and `ts_ms`, by the
rules of this project (docs/events.md).
"""

import msgspec
import numpy as np
import numpy.typing as npt

from stream.columns import Fault, fault, shown
from stream.decoding.event_faults import Bad
from stream.decoding.json_extent import BACKSLASH, CLOSE, CLOSE_LIST, COLON, OPEN, OPEN_LIST, QUOTE
from stream.decoding.json_values import too_many_objects
from stream.kernels import I64, Bytes, kernel
from stream.log import Entries, RecordColumns
from stream.registry import HEADER_BYTES, JSON, RegisteredSchema, framed, schema_ids

_MARK = np.frombuffer(b'"specversion"', np.uint8)
#: What is read of an envelope. Of each the bit says that it is there, the one above that it is
#: there again.
_NAMES = ("specversion", "data", "data_base64")
_VERSION, _DATA, _BASE64 = (np.frombuffer(name.encode(), np.uint8) for name in _NAMES)
_TWICE = tuple((2 << 2 * i, fault(name, "is given twice in one object; send it once"))
               for i, name in enumerate(_NAMES))  # fmt: skip
#: A name that is written with an escape, which may be any of these.
_ESCAPED = 64
#: It may be an envelope.
_MAYBE = 1 | _ESCAPED
_MISSING = fault("data", "is missing; send the event in it (CloudEvents, structured mode)")
_PACKED = fault("data", "is missing, and data_base64 is given; send the event as JSON in data")
_BOTH = fault("data_base64", "is given beside data; send the event as JSON in data alone")
_ESCAPES = fault(
    "value",
    "has a name in its envelope that is written with an escape; CloudEvents has lower-case "
    "letters and digits (CloudEvents, 'Attribute Naming Convention')",
)


class _Envelope(msgspec.Struct):
    specversion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NONE = np.zeros(0, np.uint8)
_ONE = msgspec.json.Decoder(_Envelope)
_MANY = msgspec.json.Decoder(list[msgspec.Raw])


class NoEvent(Exception):
    """Carries a Fault."""


def unwrapped(records: RecordColumns, bytes_max: int, bad: Bad) -> tuple[RecordColumns, set[int]]:
    """The records, those in an envelope with what stands in it for their value; and which those
    are. An envelope without an event is added to `bad`."""
    json = _in_json_frames(records)
    if len(json):
        bodies = [value[HEADER_BYTES:] for value in records.values(json)]
        records = records.with_values(json.tolist(), bodies)
    changed = set(json.tolist())
    mentions = np.zeros(len(records), np.bool_)
    _mentions(records.data, records.entries, _MARK, bytes_max, mentions)
    rows: list[int] = []
    values: list[bytes] = []
    mentioning = np.flatnonzero(mentions)
    for i, value in zip(mentioning.tolist(), records.values(mentioning), strict=True):
        try:
            inner = unwrapped_value(value)
        except NoEvent as error:
            bad[i] = fault(*error.args)
            continue
        if inner is not value:
            rows.append(i)
            values.append(inner)
    return (records.with_values(rows, values) if rows else records), changed | set(rows)


def unwrapped_value(value: bytes) -> bytes:
    """What stands in the envelope, or in each of an array of them; the value itself, the same
    object, where there is none. Raises NoEvent."""
    is_list = value.lstrip()[:1] == b"["
    if is_list and (found := too_many_objects(value, len(value))) is not None:
        raise NoEvent(*found)
    given = _attributes(value, 2 if is_list else 1)
    if not (given & _MAYBE).any():
        return value
    try:
        if not is_list:
            inner = _event_of(value, int(given[0]))
            return value if inner is None else inner
        parts = [bytes(one) for one in _MANY.decode(value)]
        if len(parts) != len(given):
            return value  # some are no objects
        pairs = zip(parts, given.tolist(), strict=True)
        events = [_event_of(one, flags) if flags & _MAYBE else None for one, flags in pairs]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return value  # who reads JSON says what is wrong with it
    if all(one is None for one in events):
        return value
    both = zip(parts, events, strict=True)
    return b"[" + b",".join(part if event is None else event for part, event in both) + b"]"


def _event_of(value: bytes, given: int) -> bytes | None:
    """None where this is no envelope. `given`: its attributes. Raises NoEvent,
    msgspec.DecodeError."""
    envelope = _ONE.decode(value)
    if envelope.specversion is msgspec.UNSET:
        return None
    for bit, twice in _TWICE:
        if given & bit:
            raise NoEvent(*twice)
    if given & _ESCAPED:
        raise NoEvent(*_ESCAPES)
    version = msgspec.json.decode(envelope.specversion)
    if not isinstance(version, str) or not version.startswith("1."):
        raise NoEvent(*_version_fault(version))
    packed = envelope.data_base64 is not msgspec.UNSET and bytes(envelope.data_base64) != b"null"
    if envelope.data is msgspec.UNSET or (data := bytes(envelope.data)) == b"null":
        raise NoEvent(*(_PACKED if packed else _MISSING))
    if packed:
        raise NoEvent(*_BOTH)
    return data


def _version_fault(version: object) -> Fault:
    return "specversion", f"is {shown(version)}; send CloudEvents of version '1.0'"


def _in_json_frames(records: RecordColumns) -> I64:
    """Records whose schema is one of JSON."""
    json = [
        one.id
        for one in records.schemas.values()
        if isinstance(one, RegisteredSchema) and one.kind == JSON and not one.broken
    ]
    if not json:
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(framed(records))
    return rows[np.isin(schema_ids(records, rows), json)]


@kernel
def _mentions(
    data: Bytes, entries: Entries, mark: Bytes, bytes_max: int, out: npt.NDArray[np.bool_]
) -> None:
    """Which records have the mark in their value."""
    for i in range(len(out)):
        entry = entries[i]
        if entry.heartbeat or entry.batch_fault or entry.value_bytes > bytes_max:
            continue
        last = np.int64(entry.value) + np.int64(entry.value_bytes) - len(mark)
        for at in range(np.int64(entry.value), last + 1):
            if data[at] == mark[0] and data[at + 5] == mark[5] and data[at + 1] == mark[1]:
                same = True
                for k in range(len(mark)):
                    same &= data[at + k] == mark[k]
                if same:
                    out[i] = True
                    break


def _attributes(value: bytes, level: int) -> Bytes:
    """Of each object that is opened at this level, uint8, which of `_NAMES` it has."""
    text = np.frombuffer(value, np.uint8)
    out = np.zeros(int(_find_attributes(text, level, _VERSION, _DATA, _BASE64, _NONE)), np.uint8)
    _find_attributes(text, level, _VERSION, _DATA, _BASE64, out)
    return out


@kernel
def _find_attributes(
    text: Bytes, level: int, version: Bytes, data: Bytes, base64: Bytes, out: Bytes
) -> int:
    """How many objects are opened at this level; of as many as `out` takes, what they have."""
    count, at_level, quoted, escaped = 0, 0, False, False
    start = end = at = 0
    while at < len(text):
        byte = text[at]
        if quoted:
            if byte == BACKSLASH:
                escaped = True
                at += 1
            elif byte == QUOTE:
                quoted, end = False, at
        elif byte == QUOTE:
            quoted, escaped, start = True, False, at + 1
        elif byte in (OPEN, OPEN_LIST):
            at_level += 1
            count += at_level == level and byte == OPEN
        elif byte in (CLOSE, CLOSE_LIST):
            at_level -= 1
        elif byte == COLON and at_level == level and 0 < count <= len(out):
            if escaped:
                out[count - 1] |= _ESCAPED
            elif _same(text, start, end, version):
                out[count - 1] |= _bit(out[count - 1], 1)
            elif _same(text, start, end, data):
                out[count - 1] |= _bit(out[count - 1], 4)
            elif _same(text, start, end, base64):
                out[count - 1] |= _bit(out[count - 1], 16)
        at += 1
    return count


@kernel
def _bit(given: int, first: int) -> int:
    return 2 * first if given & first else first


@kernel
def _same(text: Bytes, start: int, end: int, name: Bytes) -> bool:
    same = end - start == len(name)
    for k in range(len(name) if same else 0):
        same &= text[start + k] == name[k]
    return same
