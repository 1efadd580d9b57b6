"""Odd values with the id of a schema in front, which fits, has changed, or is none."""

import io
import json
import random
from typing import Any

import fastavro
from events_made import PICTURE, TS, event, json_value
from schemas_made import FITTING_AVRO, FULL, MIXED, PROTOBUF_FILES, RENAMED, avro, no_schemas

from stream.registry import JSON, PROTOBUF, AbsentSchema, RegisteredSchema

_IN_JSON = 7
_BY_ID = {id: avro(id, one) for id, one in enumerate(FITTING_AVRO, 1)}
_BY_ID |= {
    4 + i: RegisteredSchema(4 + i, PROTOBUF, files=(f,)) for i, f in enumerate(PROTOBUF_FILES)
}
_BY_ID |= {_IN_JSON: RegisteredSchema(_IN_JSON, JSON, "{}")}
_BY_ID |= {one.id: one for one in no_schemas(_IN_JSON + 1)}
_MADE_BY = (1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7)


class AnySchema:
    """Knows these schemas, and that there are no others."""

    def find(self, ids: Any) -> dict[int, Any]:
        return {id: _BY_ID.get(id, AbsentSchema(id)) for id in ids}

    def wait(self, timeout_ms: int) -> None:
        return


def registered_value(rng: random.Random) -> bytes:
    id = rng.choice(_MADE_BY) if rng.random() < 0.8 else rng.randrange(max(_BY_ID) + 2)
    return b"\0" + id.to_bytes(4) + _payload(id, rng)


def _payload(id: int, rng: random.Random) -> bytes:
    kind = _BY_ID[id].kind if id in _BY_ID else ""
    if kind == PROTOBUF:
        place = rng.choice((b"\0", b"\x02\x04", b"\x02\x04", b"\x02\x04", b"\x02\x09", b"\x80"))
        place = place if rng.random() < 0.95 else rng.choice((b"\x00", b"\x01", b"\x7e" * 99))
        return place + _message(rng, id)
    if kind == JSON:
        return json_value(rng) if rng.random() < 0.7 else json.dumps(event(rng)).encode()
    fitting = {2: (MIXED, _mixed), 3: (RENAMED, _renamed)}
    schema, make = fitting.get(id, (FULL, _fitting))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), make(rng))
    made = out.getvalue()
    return made.replace(b"\x0aextra", b"\x08user") if rng.random() < 0.5 else made


def _fitting(rng: random.Random) -> dict[str, Any]:
    bag: dict[str, Any] = {"user": rng.choice(("", "ann", "x" * 1025))}
    bag |= {"price": rng.choice((0.0, 1.5, 1e300, float("nan")))} if rng.random() < 0.5 else {}
    bag |= {"seen": [2**53 + 1]} if rng.random() < 0.2 else {}
    own = {"id": rng.choice(("i", "", "j")), "item": "x", "vendor": rng.choice(("v", None))}
    own |= {"position": rng.choice((None, 0, -1))}
    made = {"ts_ms": rng.choice((TS, TS, TS, 17, -1)), "session": rng.choice(("s", "s", None))}
    made |= {"source": "u", **own, "features": bag}
    if rng.random() < 0.3:
        made["impressions"] = [{**own, "features": None}] * rng.choice((0, 1, 5, 300))
    return made


def _mixed(rng: random.Random) -> dict[str, Any]:
    made = _fitting(rng)
    made["features"] = rng.choice(({}, {"user": "ann", "extra": 1.5}, {"price": "x"}))
    made["features"] |= rng.choice(({}, {"price": 2**60}, {"shelf": 3}))
    made["item"] = rng.choice(("x", "x", 5, True))
    made.pop("impressions", None)
    if rng.random() < 0.5:
        bags = (None, {"user": "a", "extra": "b"}, {}, "text")
        own = {name: made[name] for name in ("id", "vendor", "position")} | {"item": "x"}
        made["impressions"] = [
            own | {"features": rng.choice(bags)} for _ in range(rng.randrange(4))
        ]
    return made


def _renamed(rng: random.Random) -> dict[str, Any]:
    bag = {"user_id": "ann", "photo": rng.choice((None, PICTURE.encode(), b"x"))}
    bag |= {"seen": rng.choice((None, [1, 2], [1, "x"]))}
    made = {"ts_ms": TS, "session": "s", "source": "u", "id": "i", "vendor": rng.choice("vw")}
    made |= {"product": "p", "item": "x", "hash": b"ab", "again": b"cd", "shop": "v"}
    return made | {"many": {"a": "v"}, "wide": [[1.0]], "features": rng.choice((None, bag, bag))}


def _field(number: int, payload: bytes) -> bytes:
    size, out = len(payload), bytearray([number << 3 | 2])
    while size > 0x7F:
        out.append(0x80 | (size & 0x7F))
        size >>= 7
    return bytes(out) + bytes([size]) + payload


def _message(rng: random.Random, id: int) -> bytes:
    own = b"".join(_field(n, rng.choice((b"i", b"i", b"", b"\xff", b"x" * 300))) for n in (1, 2))
    vendor = _field(3, b"v") if id != 6 else bytes([3 << 3, rng.randrange(2)])
    entry = _field(1, b"user") + (_field(2, b"a") if id == 5 else b"\x11" + bytes(8))
    bag = _field(1, b"ann") + _field(3, b"tag") * rng.randrange(3) + _field(4, b"\x01\x02")
    bag += b"\x11" + b"\0\0\0\0\0\0\xf0\x3f" if rng.random() < 0.5 else b""
    in_map = b"\x09"[:0] + _field(1, b"price") + b"\x11" + bytes(8)
    whole = (
        own + vendor + _field(6, in_map if id == 5 else bag) + b"\x38" + b"\x80\xd0\x95\xff\xbc\x31"
    )
    part = own + _field(3, b"v") + _field(6, entry if id == 5 else bag)
    whole += _field(8, part) * rng.choice((0, 0, 1, 40))
    return whole + _field(9, b"s") + _field(10, b"u")


def long_registered() -> list[bytes]:
    """A value for each schema, and ones that are too long for what they may become."""
    rng = random.Random(3)
    made = [
        b"\0" + id.to_bytes(4) + _payload(id, rng)
        for id in range(max(_BY_ID) + 2)
        for _ in range(8)
    ]
    for count in (20_000, 70_000):
        event = _fitting(rng) | {"session": "s", "ts_ms": TS, "features": {"other": b"x" * count}}
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(FULL), event)
        made.append(b"\0\0\0\0\1" + out.getvalue())
    large = {**_mixed(rng), "features": {"price": 2**60, "user": "ann"}, "item": "x"}
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(MIXED), large)
    parts = _field(8, b"") * 70_000
    return [*made, b"\0\0\0\0\2" + out.getvalue(), b"\0\0\0\0\4\x02\x04" + parts, b"\0\0", b"\0"]
