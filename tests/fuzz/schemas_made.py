"""Schemas of a registry for the fuzzer: of events in Avro and Protobuf, some of them odd, and ones
that are none."""

import json
from typing import Any

from google.protobuf import descriptor_pb2

from stream.registry import AVRO, PROTOBUF, RegisteredSchema


def maybe(kind: Any) -> list[Any]:
    return ["null", kind]


def record(name: str, **fields: Any) -> dict[str, Any]:
    made = [
        {
            "name": field,
            **(kind if isinstance(kind, dict) and "aliases" in kind else {"type": kind}),
        }
        for field, kind in fields.items()
    ]
    return {"type": "record", "name": name, "fields": made}


BAG = record(
    "Bag",
    user=maybe("string"),
    price=maybe("double"),
    tags=maybe({"type": "array", "items": "string"}),
    seen=maybe({"type": "array", "items": "long"}),
    picture=maybe({"type": "array", "items": "float"}),
    made=maybe("long"),
    other=maybe("bytes"),
)
OWN = {
    "id": maybe("string"),
    "item": maybe("string"),
    "vendor": maybe("string"),
    "position": maybe("int"),
    "prediction": maybe("double"),
    "model_version": maybe("string"),
}
TOP = {"ts_ms": "long", "session": maybe("string"), "source": maybe("string"), **OWN}
PART = record("Part", **OWN, features=maybe("Bag"))
FULL = record(
    "Full", **TOP, features=maybe(BAG), impressions=maybe({"type": "array", "items": PART})
)
_MAP = {"type": "map", "values": ["null", "string", "long", "double"]}
#: Branches that fit no event, of which a value may be, and features in maps.
MIXED = record(
    "Mixed",
    **(TOP | {"item": ["null", "string", "long", "boolean"]}),
    features=_MAP,
    impressions=maybe(
        {"type": "array", "items": record("MapPart", **OWN, features=["null", "string", _MAP])}
    ),
)
#: Enums, fixed, logical types, namespaces, names of others, and aliases.
RENAMED = {
    "namespace": "shop",
    **record(
        "Renamed",
        **TOP
        | {
            "ts_ms": {"type": "long", "logicalType": "timestamp-millis"},
            "vendor": {"type": "enum", "name": "Vendor", "symbols": ["v", "w"]},
            "product": {"type": "string", "aliases": ["item", "id"]},
            "item": {"type": {"type": "string"}, "aliases": ["source"]},
            "hash": {"type": "fixed", "name": "a.b.Hash", "size": 2},
            "again": "a.b.Hash",
            "shop": "shop.Vendor",
            "many": {"type": "map", "values": "Vendor"},
            "wide": {"type": "array", "items": {"type": "array", "items": "float"}},
        },
        features=maybe(
            record(
                "Names",
                user_id={"type": maybe("string"), "aliases": ["user"]},
                photo=maybe("bytes"),
                seen=maybe({"type": "array", "items": ["null", "long", "string"]}),
            )
        ),
    ),
}
_nested: Any = "long"
for _ in range(40):
    _nested = {"type": "array", "items": _nested}
_doubled: Any = "long"
for _i in range(14):
    _doubled = record(f"D{_i}", a=_doubled, b=f"D{_i - 1}" if _i else "long")
_wide = record("W", **{f"n{i}": "null" for i in range(3_000)})
#: What no value is read by.
_NONE = (
    record("Narrow", **(TOP | {"ts_ms": "int"})),
    record("Empty", **TOP, x={"type": "array", "items": "null"}),
    record("Loop", **TOP, next=["null", "Loop"]),
    record("Text", **(TOP | {"session": "long"})),
    record("Enumerated", **(TOP | {"id": ["long", {"type": "bytes", "logicalType": "decimal"}]})),
    record("List", **TOP, features=record("L", tags="string", picture=_nested)),
    record("Bytes", **TOP, features=record("B", photo="long", price="string")),
    record("Parts", **TOP, impressions="string"),
    record("Deep", **TOP, x=_nested),
    record("Many", **TOP, x=_doubled),
    record("Expanding", **TOP, x={"type": "array", "items": ["null", _wide]}),
    record("Union", **TOP, x=[]),
    record("Within", **TOP, x=[["null"]]),
    record("Unknown", **TOP, x="Nowhere"),
    record("Number", **TOP, x=17),
    record("Kind", **TOP, x={"type": 17}),
    record("Symbols", **TOP, x={"type": "enum", "name": "E"}),
    record("Fixed", **TOP, x={"type": "fixed", "name": "F", "size": -1}),
    record("Bare", **TOP, x={"type": "record", "name": "R"}),
    record("Features", **TOP, features="string"),
    {"type": "record", "name": "Twice", "fields": [{"name": "a", "type": "int"}] * 2},
    {"type": "record", "name": "Unnamed", "fields": [{"type": "int"}]},
    {"type": "error", "name": "Bad name", "fields": [{"name": "ts ms", "type": "long"}]},
    {"type": "enum", "name": "E", "symbols": ["a"]},
    {"type": "array", "items": "long"},
    {"type": "long", "logicalType": "date"},
    "string",
)

_KINDS = {
    "string": 9, "int64": 3, "int32": 5, "double": 1, "message": 11, "bytes": 12, "enum": 14,
    "bool": 8,
}  # fmt: skip
#: A field of a message: its kind, whether it is repeated, and of which message or enum.
Field = tuple[str, bool, str]
_TEXT: Field = ("string", False, "")
_OWN: dict[str, Field] = dict.fromkeys(("id", "item", "vendor", "model_version"), _TEXT)
_OWN |= {"position": ("int64", False, ""), "features": ("message", False, ".f.Bag")}
_BAG: dict[str, Field] = {
    "user": _TEXT,
    "price": ("double", False, ""),
    "tags": ("string", True, ""),
    "seen": ("int64", True, ""),
    "picture": ("double", True, ""),
    "other": ("bytes", False, ""),
}
_EVENT: dict[str, Field] = {
    **_OWN,
    "ts_ms": ("int64", False, ""),
    "impressions": ("message", True, ".f.Part"),
    "session": _TEXT,
    "source": _TEXT,
}


def file_of(messages: dict[str, dict[str, Field]], *imports: str, syntax: str = "proto3") -> bytes:
    """A file with these messages; A kind may be that of a map, as in `map<string,double>`."""
    file = descriptor_pb2.FileDescriptorProto(name="f.proto", package="f", dependency=imports)
    file.syntax = syntax
    file.enum_type.add(name="Side").value.add(name="LEFT", number=0)
    for name, fields in messages.items():
        made = file.message_type.add(name=name)
        for number, (field, (kind, many, of)) in enumerate(fields.items(), 1):
            if kind.startswith("map"):
                key, value = kind[4:-1].split(",")
                entry = made.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=_KINDS[key], label=1)
                entry.field.add(name="value", number=2, type=_KINDS[value], label=1)
                kind, many, of = "message", True, f".f.{name}.{field.title()}Entry"
            one = made.field.add(
                name=field, number=number, type=_KINDS[kind], label=3 if many else 1
            )
            if of:
                one.type_name = of
            if field == "product":
                one.json_name = "item"
            if field == "price" and syntax == "proto3":
                made.oneof_decl.add(name="_price")
                one.proto3_optional, one.oneof_index = True, len(made.oneof_decl) - 1
    return file.SerializeToString()


def _events(**changed: Field) -> dict[str, dict[str, Field]]:
    return {"Bag": _BAG, "Part": _OWN, "Event": _EVENT | changed}


_MAPS = {
    "Part": _OWN | {"features": ("map<string,string>", True, "")},
    "Bag": _BAG,
    "Event": _EVENT | {"features": ("map<string,double>", True, "")},
}
#: `product` is called `item` in JSON, and stands where that stood.
_PRODUCT = {"id": _TEXT, "product": _TEXT, "vendor": ("enum", False, ".f.Side")}
_REST = {name: _EVENT[name] for name in _EVENT if name not in ("id", "item", "vendor")}
_OLD = {"Bag": _BAG, "Part": _OWN, "Event": _PRODUCT | _REST}
#: By these values are read.
PROTOBUF_FILES = (
    file_of(_events()),
    file_of(_MAPS),
    file_of(_OLD, syntax="proto2"),
)
_STRUCT = "google/protobuf/struct.proto"
#: By these none is.
_NO_FILES: tuple[tuple[bytes, ...], ...] = (
    (file_of(_events(features=("message", False, ".google.protobuf.Struct")), _STRUCT),),
    (file_of(_events(ts_ms=("int32", False, ""))),),
    (file_of(_events(session=("bytes", False, ""))),),
    (file_of(_events(session=("string", True, ""))),),
    (file_of(_events(features=("map<int64,string>", True, ""))),),
    (file_of(_events(features=_TEXT)),),
    (file_of(_events(impressions=("string", True, ""))),),
    (file_of(_events(impressions=("message", False, ".f.Part"))),),
    (file_of(_events(prediction=("bool", False, ""))),),
    (file_of({**_events(), "Bag": _BAG | {"tags": _TEXT}}),),
    (file_of({**_events(), "Bag": _BAG | {"seen": ("string", True, "")}}),),
    (file_of({**_events(), "Bag": _BAG | {"photo": ("int64", False, "")}}),),
    (file_of(_events(), "lacking.proto"),),
    (b"\xff\xff",),
)

FITTING_AVRO = (FULL, MIXED, RENAMED)


def avro(id: int, schema: Any, *references: Any) -> RegisteredSchema:
    return RegisteredSchema(id, AVRO, json.dumps(schema), tuple(map(json.dumps, references)))


def no_schemas(first: int) -> list[RegisteredSchema]:
    """Of these ids on, what no value is read by."""
    made = [*_NONE]
    found = [avro(first + i, one) for i, one in enumerate(made)]
    first += len(found)
    found += [
        RegisteredSchema(first, AVRO, "{"),
        RegisteredSchema(first + 1, AVRO, '"Part"', (json.dumps(PART),)),
        RegisteredSchema(first + 2, AVRO, broken="is of no use"),
    ]
    first += 3
    return found + [
        RegisteredSchema(first + i, PROTOBUF, files=files) for i, files in enumerate(_NO_FILES)
    ]
