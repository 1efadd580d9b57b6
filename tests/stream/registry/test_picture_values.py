"""Pictures in Avro and Protobuf: bytes as they are, or their base64 as a string."""

import base64
import io
from typing import Any

import fastavro
import pytest
from PIL import Image
from registered_events import avro_schema, decode, framed, impression, message_class, proto_schema

from stream.columns import Feature, squared
from stream.config import StreamConfig

CONFIG = StreamConfig(partitions=1, declared={"photo": Feature("image")})
_OUT = io.BytesIO()
Image.new("RGB", (9, 3), "red").save(_OUT, "PNG")
RED = _OUT.getvalue()
TEXT = base64.b64encode(RED).decode()


def avro_of(kind: Any, photo: Any) -> tuple[bytes, Any]:
    """(a value, its schema) of an impression with this picture of this Avro type."""
    strings = ["id", "session", "source", "vendor", "item"]
    bag = {"type": "record", "name": "F", "fields": [{"name": "photo", "type": kind}]}
    schema = {
        "type": "record",
        "name": "Impression",
        "fields": [
            *({"name": name, "type": "string"} for name in strings),
            {"name": "ts_ms", "type": "long"},
            {"name": "features", "type": bag},
        ],
    }
    out = io.BytesIO()
    event = impression(features={"photo": photo})
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), event)
    return framed(1, out.getvalue()), avro_schema(schema)


def proto_of(kind: str, photo: Any) -> tuple[bytes, Any]:
    schema = proto_schema(f"""
syntax = "proto3";
message Features {{ {kind} photo = 1; }}
message Impression {{
  string id = 1; int64 ts_ms = 2; string session = 3; string source = 4; string vendor = 5;
  string item = 6; Features features = 7;
}}
""")
    message = message_class(schema, "Impression")()
    for name, value in impression(features={}).items():
        if name not in ("features", "impressions") and value is not None:
            setattr(message, name, value)
    message.features.photo = photo
    return framed(2, b"\x02\x02" + message.SerializeToString()), schema


@pytest.mark.parametrize(
    "made",
    [
        avro_of("bytes", RED),
        avro_of("string", TEXT),
        avro_of(["null", "bytes", "string"], RED),
        proto_of("bytes", RED),
        proto_of("string", TEXT),
    ],
)
def test_a_picture_is_the_same_however_it_is_framed(made: tuple[bytes, Any]):
    value, schema = made
    rows, bad = decode(value, schemas=(schema,), config=CONFIG)
    assert not bad
    assert rows.table["f_photo"].to_pylist() == [squared(RED).pixels]


@pytest.mark.parametrize("made", [avro_of("bytes", b"%PDF"), proto_of("bytes", b"%PDF")])
def test_what_is_none_is_named(made: tuple[bytes, Any]):
    value, schema = made
    _, (bad,) = decode(value, schemas=(schema,), config=CONFIG)
    assert (bad.field, bad.reason[:17]) == ("features.photo", "is b'%PDF', no ba")


@pytest.mark.parametrize("made", [avro_of("long", 5), proto_of("int64", 5)])
def test_a_type_that_holds_none_is_named(made: tuple[bytes, Any]):
    value, schema = made
    _, (bad,) = decode(value, schemas=(schema,), config=CONFIG)
    assert bad.field == "features.photo"
    assert "send bytes, a picture's file" in bad.reason
