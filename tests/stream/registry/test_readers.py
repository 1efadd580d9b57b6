"""Avro and Protobuf give the columns that JSON gives."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    raw,
    reasons,
)

from stream.decoding import count_undeclared, given_features
from stream.log import RecordColumns
from stream.record import Record
from stream.registry.schema import JSON, AbsentSchema, RegisteredSchema

AVRO_SCHEMA, PROTO_SCHEMA = avro_schema(IMPRESSION), proto_schema()
MESSAGE = message_class(PROTO_SCHEMA, "shop.events.Impression")

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
numbers = st.floats(-1e30, 1e30)
longs = st.integers(-(2**63), 2**63 - 1)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def bags(draw: st.DrawFn, weighted: bool = True) -> dict[str, Any]:
    bag = draw(
        some(
            user=texts,
            price=numbers,
            tags=st.lists(texts, min_size=1, max_size=3),
            seen=st.lists(longs, min_size=1, max_size=3),
            title=texts,
            made=st.integers(TS - 10**9, TS),
            picture=st.lists(numbers, min_size=2, max_size=2),
            shelf=longs,
        )
    )
    if "tags" in bag and weighted and draw(st.booleans()):
        bag["tags_weights"] = [1.5] * len(bag["tags"])
    return bag


shown = {
    "position": st.integers(0, 2**31 - 1),
    "prediction": st.floats(0, 1),
    "model_version": texts,
    "features": bags(),
}
single = st.builds(
    lambda rest, **own: {"ts_ms": TS, "session": "s", **own, **rest},
    some(**shown),
    id=names,
    source=texts,
    vendor=texts,
    item=texts,
)
parts = st.builds(
    lambda rest, **own: own | rest,
    some(vendor=texts, **shown),
    id=names,
    item=texts,
)
pages = st.builds(
    lambda rest, **own: {"ts_ms": TS, "session": "s", **own, **rest},
    some(model_version=texts, features=bags(weighted=False)),
    source=texts,
    vendor=texts,
    impressions=st.lists(parts, min_size=1, max_size=4),
)


@pytest.mark.long
@given(st.lists(single | pages, min_size=1, max_size=5))
@settings(max_examples=settings.default.max_examples // 2)
def test_avro_and_protobuf_give_the_columns_of_json(events: list[dict[str, Any]]):
    wanted, bad = decode(*map(raw, events))
    assert not bad
    in_avro, bad = decode(*(avro(IMPRESSION, e) for e in events), schemas=(AVRO_SCHEMA,))
    assert not bad
    in_proto, bad = decode(*(proto(MESSAGE, e) for e in events), schemas=(PROTO_SCHEMA,))
    assert not bad
    for found in (in_avro, in_proto):
        assert found.table.equals(wanted.table) or str(found.table.to_pydict()) == str(
            wanted.table.to_pydict()
        )  # NaN is no NaN to Arrow
        for name in ("position", "ts_ms", "id", "source_hash", "vendor_hash"):
            assert (getattr(found, name) == getattr(wanted, name)).all(), name


def test_all_forms_stand_in_one_log_in_its_order():
    json = RegisteredSchema(3, JSON, "{}")
    rows, bad = decode(
        raw(impression(id="a")),
        avro(IMPRESSION, impression(id="b")),
        proto(MESSAGE, impression(id="c")),
        framed(3, raw(impression(id="d"))),
        raw({"specversion": "1.0", "id": "x", "source": "/y", "data": impression(id="e")}),
        framed(3, raw({"specversion": "1.0", "data": impression(id="f")})),
        schemas=(AVRO_SCHEMA, PROTO_SCHEMA, json),
    )
    assert not bad
    assert rows.table["id"].to_pylist() == list("abcdef")


def test_clicks_and_what_counting_reads_come_from_the_same_schemas():
    rows, bad = decode(
        avro(IMPRESSION, impression()),
        proto(MESSAGE, impression()),
        schemas=(AVRO_SCHEMA, PROTO_SCHEMA),
        clicks=True,
    )
    assert not bad
    assert rows.table.to_pylist() == [{"source": "u", "vendor": "v"}] * 2


@pytest.mark.parametrize("form", ["avro", "proto"])
@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"id": ""}, "id", "is empty"),
        ({"ts_ms": TS // 1000}, "ts_ms", "looks like seconds"),
        ({"position": -1}, "position", "send an integer from 0"),
        ({"prediction": 1.5}, "prediction", "send a number in [0, 1]"),
        ({"source": "x" * 1025}, "source", "has 1025 bytes"),
        ({"features": {"picture": [1.0]}}, "features.picture", "declared of width 2"),
        ({"features": {"price": 1e300}}, "features.price", "32-bit float"),
        ({"vendor": None}, "vendor", "is missing"),
        ({"impressions": [{"id": "", "item": "x", "vendor": "v"}]}, "id", "is empty"),
    ],
)
def test_a_wrong_value_is_named_as_in_json(
    form: str, changed: dict[str, Any], field: str, says: str
):
    event = impression(**changed)
    good = impression(id="good")
    if form == "avro":
        made = [avro(IMPRESSION, one) for one in (event, good)]
    else:
        made = [proto(MESSAGE, one) for one in (event, good)]
    rows, bad = decode(*made, schemas=(AVRO_SCHEMA, PROTO_SCHEMA))
    assert rows.table["id"].to_pylist() == ["good"]
    ((name, reason),) = reasons(bad)
    assert name == field
    assert says in reason
    assert bad[0].record.value == made[0]


def test_a_record_with_less_or_more_than_its_schema_says_is_bad():
    whole = avro(IMPRESSION, impression())
    message = proto(MESSAGE, impression())
    rows, bad = decode(
        whole[:-1], whole + b"\0", whole, message[:-1], b"\0\0\0", b"\0",
        schemas=(AVRO_SCHEMA, PROTO_SCHEMA),
    )  # fmt: skip
    assert len(rows) == 1
    assert len(bad) == 5
    said = [reason for _, reason in reasons(bad)]
    assert "is not what schema 1 says" in said[0]
    assert "1 bytes behind its end" in said[1]
    assert "is not what schema 2 says" in said[2]
    assert "ends before a schema id" in said[3] == said[4]


def test_an_id_that_the_registry_does_not_know_is_named():
    _, bad = decode(avro(IMPRESSION, impression(), 77), schemas=(AbsentSchema(77),))
    assert "names schema 77, which the registry does not know" in bad[0].reason


def test_a_schemas_id_within_json_is_no_schemas_id():
    json = RegisteredSchema(3, JSON, "{}")
    _, bad = decode(framed(3, framed(7, b"{}")), schemas=(json,))
    assert "is not JSON" in bad[0].reason


def test_without_a_registry_a_framed_value_is_named_as_such():
    _, bad = decode(avro(IMPRESSION, impression()))
    assert "set registry.url" in bad[0].reason


def test_undeclared_features_are_counted_by_name():
    schema = dict(IMPRESSION, fields=[*IMPRESSION["fields"][:9], {
        "name": "features",
        "type": {"type": "record", "name": "F", "fields": [
            {"name": "user", "type": "string"}, {"name": "colour", "type": "string"},
        ]},
    }])  # fmt: skip
    mapped = dict(IMPRESSION, fields=[
        *IMPRESSION["fields"][:9],
        {"name": "features", "type": {"type": "map", "values": "string"}},
    ])  # fmt: skip
    text = PROTO.replace("optional double price = 2;", "optional double prize = 2;")
    given = impression(features={"user": "u", "colour": "red"})
    values = [
        avro(schema, given, 5),
        avro(mapped, impression(features={"user": "u", "hue": "x"}), 6),
        proto(MESSAGE, impression(features={"price": 1.0}), 7),
        framed(8, raw(given)),
        raw({"specversion": "1.0", "data": given}),
    ]
    schemas = (avro_schema(schema, 5), avro_schema(mapped, 6), proto_schema(text, 7))
    json = RegisteredSchema(8, JSON, "{}")
    records = RecordColumns.of([Record(i, TS, b"s", v) for i, v in enumerate(values)])
    found: Counter[str] = Counter()
    count_undeclared(found, records.with_schemas({one.id: one for one in (*schemas, json)}), CONFIG)
    assert found == {"colour": 3, "hue": 1, "prize": 1}


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_an_integer_of_any_size_is_the_same_number_in_json_avro_and_a_request(numbers: list[int]):
    """Beyond 2^53 the nearest that there is."""
    longs = {"type": "array", "items": "long"}
    features = {"type": "record", "name": "F", "fields": [
        {"name": "price", "type": "long"}, {"name": "picture", "type": longs},
    ]}  # fmt: skip
    fields = [f for f in IMPRESSION["fields"] if f["name"] not in ("features", "impressions")]
    schema = dict(IMPRESSION, fields=[*fields, {"name": "features", "type": features}])
    event = impression(features={"price": numbers[0], "picture": numbers[1:]})
    rows, bad = decode(raw(event), avro(schema, event), raw(event), schemas=(avro_schema(schema),))
    assert not bad
    asked = given_features(
        CONFIG.features, {"f_price": [numbers[0]], "f_picture": [numbers[1:]]}, 1
    )
    for name in ("f_price", "f_picture"):
        column = rows.table.column(name).to_pylist()
        assert column[0] == column[1] == asked[name].to_pylist()[0]
