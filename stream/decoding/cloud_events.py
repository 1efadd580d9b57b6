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
from stream.kernels import I64, Bytes, kernel
from stream.log import Entries, RecordColumns
from stream.registry import HEADER_BYTES, JSON, RegisteredSchema, framed, schema_ids

_MARK = np.frombuffer(b'"specversion"', np.uint8)
_MISSING = fault("data", "is missing; send the event in it (CloudEvents, structured mode)")
_PACKED = fault("data", "is missing, and data_base64 is given; send the event as JSON in data")


class _Envelope(msgspec.Struct):
    specversion: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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
    try:
        if value.lstrip()[:1] != b"[":
            inner = _event_of(value)
            return value if inner is None else inner
        parts = [bytes(one) for one in _MANY.decode(value)]
        events = [_event_of(one) for one in parts]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return value  # who reads JSON says what is wrong with it
    if all(one is None for one in events):
        return value
    pairs = zip(parts, events, strict=True)
    return b"[" + b",".join(part if event is None else event for part, event in pairs) + b"]"


def _event_of(value: bytes) -> bytes | None:
    """None where this is no envelope. Raises NoEvent, msgspec.DecodeError."""
    envelope = _ONE.decode(value)
    if envelope.specversion is msgspec.UNSET:
        return None
    version = msgspec.json.decode(envelope.specversion)
    if not isinstance(version, str) or not version.startswith("1."):
        raise NoEvent(*_version_fault(version))
    if envelope.data is msgspec.UNSET or (data := bytes(envelope.data)) == b"null":
        raise NoEvent(*(_MISSING if envelope.data_base64 is msgspec.UNSET else _PACKED))
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
