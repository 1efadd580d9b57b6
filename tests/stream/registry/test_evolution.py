"""Schemas that change, and schemas that no event has."""

import json
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from registered_events import (
    CONFIG,
    IMPRESSION,
    PROTO,
    TS,
    avro,
    avro_schema,
    decode,
    framed,
    impression,
    message_class,
    proto,
    proto_schema,
    reasons,
)

from stream.registry import protobuf_reader
from stream.registry.schema import AVRO, PROTOBUF, RegisteredSchema


def with_field(name: str, **changed: Any) -> dict[str, Any]:
    """The schema with one field changed, added, or renamed."""
    kept = [f for f in IMPRESSION["fields"] if name != "features" or f["name"] != "impressions"]
    fields = [{"name": name, **changed} if f["name"] == name else f for f in kept]
    if fields == kept:
        fields = [*fields, {"name": name, **changed}]
    return dict(IMPRESSION, fields=fields)


def test_a_field_that_is_added_changes_nothing_else():
    newer = with_field("shelf_mark", type="string")
    rows, bad = decode(
        avro(IMPRESSION, impression(id="old"), 1),
        avro(newer, impression(id="new", shelf_mark="x"), 2),
        schemas=(avro_schema(IMPRESSION, 1), avro_schema(newer, 2)),
    )
    assert not bad
    assert rows.table["id"].to_pylist() == ["old", "new"]


def test_a_field_that_is_renamed_by_an_alias_is_found():
    features = {"type": "record", "name": "Features", "fields": [
        {"name": "user_id", "type": "string", "aliases": ["user"]},
    ]}  # fmt: skip
    newer = dict(IMPRESSION, fields=[
        *(f for f in IMPRESSION["fields"] if f["name"] not in ("features", "impressions", "item")),
        {"name": "product", "type": "string", "aliases": ["item"]},
        {"name": "features", "type": features},
    ])  # fmt: skip
    event = {k: v for k, v in impression().items() if k != "item"}
    event |= {"product": "lamp", "features": {"user_id": "ann"}}
    rows, bad = decode(avro(newer, event), schemas=(avro_schema(newer),))
    assert not bad
    assert (rows.table["item"].to_pylist(), rows.table["f_user"].to_pylist()) == (["lamp"], ["ann"])


def test_a_message_field_that_is_renamed_keeps_its_json_name():
    newer = proto_schema(
        PROTO.replace("optional string user = 1;", 'optional string uid = 1 [json_name = "user"];')
    )
    older = message_class(proto_schema(), "shop.events.Impression")
    rows, bad = decode(proto(older, impression(features={"user": "ann"})), schemas=(newer,))
    assert not bad
    assert rows.table["f_user"].to_pylist() == ["ann"]


@pytest.mark.parametrize(
    ("schema", "field", "says"),
    [
        (with_field("ts_ms", type="int"), "ts_ms", "is an int in schema 1; send a long"),
        (
            with_field("ts_ms", type={"type": "long", "logicalType": "timestamp-micros"}),
            "ts_ms",
            "is long (timestamp-micros)",
        ),
        (with_field("session", type="long"), "session", "is a long in schema 1; send a string"),
        (with_field("session", type="bytes"), "session", "is a bytes"),
        (with_field("position", type="float"), "position", "is a float in schema 1"),
        (with_field("prediction", type="boolean"), "prediction", "is a boolean"),
        (with_field("features", type="string"), "features", "is a string in schema 1; send a rec"),
        (
            with_field("features", type={"type": "record", "name": "F", "fields": [
                {"name": "tags", "type": "string"}]}),
            "features.tags",
            "is a string in schema 1; send a list, each of its values a string",
        ),
    ],
)  # fmt: skip
def test_a_schema_that_narrows_a_type_is_said_by_name(schema: Any, field: str, says: str):
    """Its records are bad before any is read; those of the older schema stay good."""
    rows, bad = decode(
        framed(1, b"whatever"), avro(IMPRESSION, impression(), 2),
        schemas=(avro_schema(schema), avro_schema(IMPRESSION, 2)),
    )  # fmt: skip
    assert len(rows) == 1
    ((name, reason),) = reasons(bad)
    assert name == field
    assert says in reason


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("int64 ts_ms = 2", "int32 ts_ms = 2", "ts_ms", "is int32 in schema 2; send int64"),
        ("string session = 3", "bytes session = 3", "session", "is bytes in schema 2"),
        ("double price = 2", "string price = 2", "features.price", "is string in schema 2"),
        ("repeated string tags = 3", "optional string tags = 3", "features.tags", "send a list"),
        ("string session = 3", "repeated string session = 3", "session", "is repeated string"),
        ("string session = 3", "Other session = 3", "session", "is shop.events.Other"),
        (
            "optional Features features = 10",
            "google.protobuf.Struct features = 10",
            "features",
            "is google.protobuf.Struct in schema 2; send a record",
        ),
    ],
)
def test_a_message_that_narrows_a_type_is_said_by_name(old: str, new: str, field: str, says: str):
    changed = PROTO.replace(old, new)
    if "google" in new:
        changed = changed.replace("package", 'import "google/protobuf/struct.proto"; package')
    ((name, reason),) = reasons(decode(framed(2, b"\x02\x04"), schemas=(proto_schema(changed),))[1])
    assert name == field
    assert says in reason


def test_one_branch_of_a_union_may_be_of_another_type_and_its_values_are_named():
    newer = with_field("item", type=["null", "string", "long"])
    rows, bad = decode(
        avro(newer, impression()), avro(newer, impression(item=7)), schemas=(avro_schema(newer),)
    )
    assert len(rows) == 1
    assert reasons(bad) == [("item", "is the number 7; send it as a string")]


def test_features_in_a_map_are_read_by_name():
    union = ["string", "double", "boolean"]
    newer = dict(IMPRESSION, fields=[
        *IMPRESSION["fields"][:9],
        {"name": "features", "type": {"type": "map", "values": union}},
    ])  # fmt: skip
    rows, bad = decode(
        avro(newer, impression(features={"user": "ann", "price": 2.0, "other": True})),
        avro(newer, impression(features={"user": 1.0})),
        schemas=(avro_schema(newer),),
    )
    assert rows.table["f_user"].to_pylist() == ["ann"]
    assert rows.table["f_price"].to_pylist() == [2.0]
    assert reasons(bad) == [("features.user", "is the number 1.0; send it as a string")]
    text = PROTO.replace("optional Features features = 10", "map<string, string> features = 10")
    schema = proto_schema(text)
    made = message_class(schema, "shop.events.Impression")
    rows, bad = decode(
        proto(made, impression(features={"user": "ann"})),
        proto(made, impression(features={"price": "2"})),
        schemas=(schema,),
    )
    assert rows.table["f_user"].to_pylist() == ["ann"]
    assert reasons(bad)[0][0] == "features.price"


def test_an_enum_is_its_symbol():
    newer = with_field("vendor", type={"type": "enum", "name": "V", "symbols": ["a", "b"]})
    rows, _ = decode(avro(newer, impression(vendor="b")), schemas=(avro_schema(newer),))
    assert rows.table["vendor"].to_pylist() == ["b"]
    text = PROTO.replace("optional string vendor = 5", "Vendor vendor = 5") + (
        "enum Vendor { NOBODY = 0; ANN = 1; }"
    )
    schema = proto_schema(text)
    made = message_class(schema, "shop.events.Impression")
    unknown = made(id="i", ts_ms=TS, session="s", source="u", vendor=9, item="x")
    rows, bad = decode(
        proto(made, impression(vendor="ANN")),
        framed(2, b"\x02\x04" + unknown.SerializeToString()),
        schemas=(schema,),
    )
    assert rows.table["vendor"].to_pylist() == ["ANN"]
    assert reasons(bad) == [("vendor", "is the number 9; send it as a string")]


def test_a_field_without_presence_stands_as_it_is():
    text = PROTO.replace("optional ", "")
    schema = proto_schema(text)
    made = message_class(schema, "shop.events.Impression")
    page = {"ts_ms": TS, "session": "s", "source": "u", "vendor": "w", "impressions": [
        {"id": "a", "item": "x"}, {"id": "b", "item": "y", "vendor": "own"},
    ]}  # fmt: skip
    rows, bad = decode(proto(made, impression()), proto(made, page), schemas=(schema,))
    assert not bad
    assert rows.table["shown_at"].to_pylist() == [0, 0, 0]
    assert rows.table["vendor"].to_pylist() == ["v", "w", "own"]


def nested(levels: int) -> Any:
    kind: Any = "string"
    for level in range(levels):
        fields = [{"name": "a", "type": kind}]
        kind = {"type": "record", "name": f"R{level}", "fields": fields}
    return with_field("extra", type=kind)


def doubled(levels: int) -> Any:
    """Each type holds the one before twice: 2^levels types when they are written out."""
    kind: Any = "string"
    for level in range(levels):
        fields = [{"name": "a", "type": kind}]
        fields += [{"name": "b", "type": f"D{level - 1}"}] if level else []
        kind = {"type": "record", "name": f"D{level}", "namespace": "", "fields": fields}
    return with_field("extra", type=kind)


def typed(levels: int) -> Any:
    kind: Any = "string"
    for _ in range(levels):
        kind = {"type": kind}
    return with_field("extra", type=kind)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (with_field("extra", type={"type": "array", "items": "null"}), "take no bytes"),
        (with_field("extra", type={"type": "array", "items": {
            "type": "record", "name": "E", "fields": [{"name": "n", "type": "null"}]}}),
            "take no bytes"),
        (with_field("extra", type={"type": "record", "name": "L", "fields": [
            {"name": "next", "type": ["null", "L"]}]}), "holds itself"),
        (nested(40), "32 levels"),
        (doubled(20), "4096 types"),
        (with_field("extra", type="Nowhere"), "'Nowhere'"),
        (with_field("extra", type=[]), "an empty union"),
        (with_field("extra", type=[["null"]]), "a union within a union"),
        (typed(40), "32 levels"),
        (with_field("extra", type={"type": "array", "items": ["null", {
            "type": "record", "name": "W", "fields": [
                {"name": f"n{i}", "type": "null"} for i in range(3_000)]}]}),
            "leave out of its lists"),
        ("long", "is a long in schema 1; send a record"),
        ({"type": "enum", "name": "E"}, "without symbols"),
        ({"type": 17}, "no Avro"),
    ],
)  # fmt: skip
def test_a_schema_that_no_event_has_is_refused(schema: Any, says: str):
    _, bad = decode(framed(1, b"\x02" * 50), schemas=(avro_schema(schema),))
    assert says in bad[0].reason


@pytest.mark.parametrize("levels", [3, 100, 430, 470, 900])
def test_unions_within_unions_are_no_schema_however_deep(levels: int):
    text = json.dumps(with_field("extra", type="REPLACED"))
    text = text.replace('"REPLACED"', "[" * levels + '"null"' + "]" * levels)
    value = avro(IMPRESSION, impression())
    _, bad = decode(value, schemas=(RegisteredSchema(1, AVRO, text),))
    assert "has a schema that is no" in bad[0].reason


@pytest.mark.parametrize("place", [-1, -2, -3, -9, 3, 60])
def test_a_place_that_no_symbol_has_is_bad(place: int):
    """A list of Python counts from its end where it is asked for less than 0."""
    kind = {"type": "enum", "name": "V", "symbols": ["a", "b", "c"]}
    shops = with_field("vendor", type=kind)
    first = avro(shops, impression(vendor="a"))
    value = first.replace(
        b"\x02u\0", b"\x02u" + bytes([place << 1 if place >= 0 else ~(place << 1)])
    )
    assert value != first
    rows, bad = decode(value, first, schemas=(avro_schema(shops),))
    assert rows.table["vendor"].to_pylist() == ["a"]
    assert "is not what schema 1 says" in bad[0].reason


@pytest.mark.parametrize("place", [-1, -2, -3, 2, 60])
def test_a_branch_that_no_union_has_is_bad(place: int):
    first = avro(IMPRESSION, impression(vendor="v"))
    branch = bytes([place << 1 if place >= 0 else ~(place << 1)])
    value = first.replace(b"\x02u\x02\x02v", b"\x02u" + branch + b"\x02v")
    assert value != first
    rows, bad = decode(value, first, schemas=(avro_schema(IMPRESSION),))
    assert rows.table["vendor"].to_pylist() == ["v"]
    assert "is not what schema 1 says" in bad[0].reason


@pytest.mark.parametrize("within", ["event", "impression"])
def test_a_name_twice_in_a_map_of_features_is_bad(within: str):
    """Avro lets a writer do so, and a dict would keep the last."""
    bag = {"type": "map", "values": ["null", "string", "double"]}
    part = {"type": "record", "name": "Bare", "fields": [
        {"name": "id", "type": "string"}, {"name": "item", "type": "string"},
        {"name": "features", "type": bag}]}  # fmt: skip
    kept = [f for f in IMPRESSION["fields"] if f["name"] not in ("features", "impressions")]
    schema = dict(IMPRESSION, fields=[
        *kept, {"name": "features", "type": ["null", bag]},
        {"name": "impressions", "type": ["null", {"type": "array", "items": part}]}])  # fmt: skip
    features = {"user": "ann", "extra": "b"}
    event = impression(features=features)
    if within == "impression":
        event = impression(impressions=[{"id": "i", "item": "x", "features": features}])
    fine = avro(schema, event)
    rows, bad = decode(fine, fine.replace(b"extra", b"user"), schemas=(avro_schema(schema),))
    assert rows.table["f_user"].to_pylist() == ["ann"]
    assert "is not what schema 1 says" in bad[0].reason
    twice = fine.replace(b"\x0aextra", b"\x08user")
    rows, bad = decode(fine, twice, schemas=(avro_schema(schema),))
    assert rows.table["f_user"].to_pylist() == ["ann"]
    assert reasons(bad) == [("features.user", "is given twice in one map; send it once")]


def test_an_alias_takes_no_field_from_its_name_and_the_first_name_has_it():
    """Which of two does not depend on how a process hashes strings."""
    features = {"type": "record", "name": "Features", "fields": [
        {"name": "user", "type": "string", "aliases": ["title"]},
        {"name": "both", "type": "double", "aliases": ["shelf", "price"]},
    ]}  # fmt: skip
    newer = with_field("features", type=features)
    rows, bad = decode(
        avro(newer, impression(features={"user": "ann", "both": 2.5})),
        schemas=(avro_schema(newer),),
    )
    assert not bad
    assert rows.table["f_user"].to_pylist() == ["ann"]
    assert rows.table["f_title"].to_pylist() == [""]
    assert rows.table["f_price"].to_pylist() == [2.5]


def test_a_schemas_files_are_read_once_whatever_messages_values_name(
    monkeypatch: pytest.MonkeyPatch,
):
    pools: list[Any] = []
    make = descriptor_pool.DescriptorPool

    def counted() -> Any:
        pools.append(0)
        return make()

    monkeypatch.setattr(protobuf_reader.descriptor_pool, "DescriptorPool", counted)
    values = [framed(2, bytes([2, 2 * at])) for at in range(3, 60)]
    _, bad = decode(*values, schemas=(proto_schema(),))
    assert len(bad) == len(values)
    assert len(pools) == 1


def test_a_schema_that_is_no_protobuf_is_refused():
    for schema, index in (
        (RegisteredSchema(2, PROTOBUF, files=(b"\xff\xff",)), b"\0"),
        (RegisteredSchema(2, PROTOBUF, files=()), b"\0"),
        (proto_schema(), b"\x02\x14"),  # there is no message 10
        (proto_schema(), b"\x04\x04\x08"),
        (proto_schema(), b"\x80\x80"),
        (proto_schema(), b"\x01"),
        (proto_schema(), b"\xfe\xff\xff\xff\x0f"),
    ):
        _, bad = decode(framed(2, index), schemas=(schema,))
        assert "please report it" not in bad[0].reason
        assert bad[0].field == "value"


@pytest.mark.long
def test_a_value_is_refused_before_it_takes_more_memory_than_it_may():
    few = {"type": "array", "items": {"type": "record", "name": "P", "fields": [
        {"name": "b", "type": "boolean"}]}}  # fmt: skip
    newer = with_field("extra", type=few)
    schema = avro_schema(newer)
    event = impression(extra=[{"b": True}] * 400_000)
    rows, bad = decode(avro(newer, event), avro(newer, impression(extra=[])), schemas=(schema,))
    assert len(rows) == 1
    assert "each of which may take" in bad[0].reason
    assert CONFIG.decoded_bytes_max == 64 << 20
