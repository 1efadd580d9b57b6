"""Odd values with the id of a schema in front, which fits, has changed, or is none."""

import io
import json
import random
from typing import Any

import fastavro
from events_made import TS, event
from google.protobuf import descriptor_pb2

from stream.registry import AVRO, JSON, PROTOBUF, AbsentSchema, RegisteredSchema


def _maybe(kind: Any) -> list[Any]:
    return ["null", kind]


def _record(name: str, **fields: Any) -> dict[str, Any]:
    made = [{"name": field, "type": kind} for field, kind in fields.items()]
    return {"type": "record", "name": name, "fields": made}


_BAG = _record(
    "Bag",
    user=_maybe("string"),
    price=_maybe("double"),
    tags=_maybe({"type": "array", "items": "string"}),
    seen=_maybe({"type": "array", "items": "long"}),
    picture=_maybe({"type": "array", "items": "float"}),
    made=_maybe("long"),
    other=_maybe("bytes"),
)
_OWN = {
    "id": _maybe("string"),
    "item": _maybe("string"),
    "vendor": _maybe("string"),
    "position": _maybe("int"),
    "prediction": _maybe("double"),
    "model_version": _maybe("string"),
}
_TOP = {"ts_ms": "long", "session": _maybe("string"), "source": _maybe("string"), **_OWN}
_PART = _record("Part", **_OWN, features=_maybe("Bag"))
_FULL = _record(
    "Full", **_TOP, features=_maybe(_BAG), impressions=_maybe({"type": "array", "items": _PART})
)
_MIXED = _record(
    "Mixed",
    **(_TOP | {"item": ["null", "string", "long", "boolean"]}),
    features={"type": "map", "values": ["null", "string", "double", "long"]},
)
_ODD = (
    _record("Narrow", **(_TOP | {"ts_ms": "int"})),
    _record("Empty", **_TOP, x={"type": "array", "items": "null"}),
    _record("Loop", **_TOP, next=["null", "Loop"]),
    "string",
)


def _descriptor() -> bytes:
    """Of the same event, some fields without presence."""
    kinds = {"string": 9, "int64": 3, "double": 1, "message": 11, "bytes": 12}
    file = descriptor_pb2.FileDescriptorProto(name="f.proto", syntax="proto3", package="f")

    def message(name: str, **fields: tuple[str, bool, str]) -> None:
        made = file.message_type.add(name=name)
        for number, (field, (kind, many, of)) in enumerate(fields.items(), 1):
            one = made.field.add(name=field, number=number, type=kinds[kind])
            one.label = 3 if many else 1
            if of:
                one.type_name = f".f.{of}"

    message(
        "Bag",
        user=("string", False, ""),
        price=("double", False, ""),
        tags=("string", True, ""),
        seen=("int64", True, ""),
        picture=("double", True, ""),
        other=("bytes", False, ""),
    )
    own = dict.fromkeys(("id", "item", "vendor", "model_version"), ("string", False, ""))
    own |= {"position": ("int64", False, ""), "features": ("message", False, "Bag")}
    message("Part", **own)
    rest = {"ts_ms": ("int64", False, ""), "impressions": ("message", True, "Part")}
    rest |= {"session": ("string", False, ""), "source": ("string", False, "")}
    message("Event", **own, **rest)
    return file.SerializeToString()


_BY_ID = {
    1: RegisteredSchema(1, AVRO, json.dumps(_FULL)),
    2: RegisteredSchema(2, AVRO, json.dumps(_MIXED)),
    3: RegisteredSchema(3, PROTOBUF, files=(_descriptor(),)),
    4: RegisteredSchema(4, JSON, "{}"),
    5: RegisteredSchema(5, AVRO, broken="is of no use"),
} | {6 + i: RegisteredSchema(6 + i, AVRO, json.dumps(one)) for i, one in enumerate(_ODD)}
_MADE_BY = (1, 1, 1, 2, 2, 3, 3, 3, 4, *range(5, 12))


class AnySchema:
    """Knows these schemas, and that there are no others."""

    def find(self, ids: Any) -> dict[int, Any]:
        return {id: _BY_ID.get(id, AbsentSchema(id)) for id in ids}

    def wait(self, timeout_ms: int) -> None:
        return


def registered_value(rng: random.Random) -> bytes:
    id = rng.choice(_MADE_BY)
    return b"\0" + id.to_bytes(4) + _payload(id, rng)


def _payload(id: int, rng: random.Random) -> bytes:
    if id == 3:
        return rng.choice((b"\0", b"\x02\x04", b"\x02\x04", b"\x02\x09", b"\x80")) + _message(rng)
    if id == 4:
        return json.dumps(event(rng)).encode("utf-8", "replace")
    schema = {1: _FULL, 2: _MIXED}.get(id, _FULL)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), _fitting(rng))
    return out.getvalue()


def _fitting(rng: random.Random) -> dict[str, Any]:
    bag: dict[str, Any] = {"user": rng.choice(("", "ann", "x" * 1025))}
    bag |= {"price": rng.choice((0.0, 1.5, 1e300, float("nan")))} if rng.random() < 0.5 else {}
    own = {"id": rng.choice(("i", "", "j")), "item": "x", "vendor": rng.choice(("v", None))}
    own |= {"position": rng.choice((None, 0, -1))}
    made = {"ts_ms": rng.choice((TS, TS, TS, 17, -1)), "session": rng.choice(("s", "s", None))}
    made |= {"source": "u", **own, "features": bag}
    if rng.random() < 0.3:
        made["impressions"] = [{**own, "features": None}] * rng.choice((0, 1, 5, 300))
    return made


def _field(number: int, payload: bytes) -> bytes:
    size, out = len(payload), bytearray([number << 3 | 2])
    while size > 0x7F:
        out.append(0x80 | (size & 0x7F))
        size >>= 7
    return bytes(out) + bytes([size]) + payload


def _message(rng: random.Random) -> bytes:
    own = b"".join(_field(n, rng.choice((b"i", b"", b"\xff", b"x" * 300))) for n in (1, 2, 3))
    bag = _field(1, b"ann") + _field(3, b"tag") * rng.randrange(3) + _field(4, b"\x01\x02")
    whole = own + _field(6, bag) + b"\x38" + b"\x80\xd0\x95\xff\xbc\x31"
    whole += _field(8, own) * rng.choice((0, 0, 1, 40))
    return whole + _field(9, b"s") + _field(10, b"u")
