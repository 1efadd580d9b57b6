"""The same events in JSON, Avro and Protobuf."""

import io
import json
from typing import Any

import fastavro
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from stream.columns import Feature
from stream.config import StreamConfig
from stream.decoding import decode_clicks, decode_impressions
from stream.log import RecordColumns
from stream.record import Record
from stream.registry.proto_text import descriptors_of
from stream.registry.schema import AVRO, PROTOBUF, RegisteredSchema

TS = 1_700_000_000_000
CONFIG = StreamConfig(
    partitions=1,
    categorical_features=("user",),
    numeric_features=("price",),
    declared={
        "tags": Feature("list", weighted=True),
        "seen": Feature("list", type="integer"),
        "title": Feature("text"),
        "made": Feature("time"),
        "picture": Feature("vector", width=2),
        "shelf": Feature(type="integer"),
    },
)


def _maybe(kind: Any) -> Any:
    return {"type": ["null", kind], "default": None}


FEATURES = {
    "type": "record",
    "name": "Features",
    "fields": [
        {"name": "user", **_maybe("string")},
        {"name": "price", **_maybe("double")},
        {"name": "tags", **_maybe({"type": "array", "items": "string"})},
        {"name": "tags_weights", **_maybe({"type": "array", "items": "double"})},
        {"name": "seen", **_maybe({"type": "array", "items": "long"})},
        {"name": "title", **_maybe("string")},
        {"name": "made", **_maybe({"type": "long", "logicalType": "timestamp-millis"})},
        {"name": "picture", **_maybe({"type": "array", "items": "double"})},
        {"name": "shelf", **_maybe("long")},
    ],
}
PART = {
    "type": "record",
    "name": "Part",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "item", "type": "string"},
        {"name": "vendor", **_maybe("string")},
        {"name": "position", **_maybe("int")},
        {"name": "prediction", **_maybe("double")},
        {"name": "model_version", **_maybe("string")},
        {"name": "features", **_maybe("Features")},
    ],
}
IMPRESSION: dict[str, Any] = {
    "type": "record",
    "name": "Impression",
    "namespace": "shop.events",
    "fields": [
        {"name": "id", **_maybe("string")},
        {"name": "ts_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "session", "type": "string"},
        {"name": "source", "type": "string"},
        {"name": "vendor", **_maybe("string")},
        {"name": "item", **_maybe("string")},
        {"name": "position", **_maybe("int")},
        {"name": "prediction", **_maybe("double")},
        {"name": "model_version", **_maybe("string")},
        {"name": "features", **_maybe(FEATURES)},
        {"name": "impressions", **_maybe({"type": "array", "items": PART})},
    ],
}

PROTO = """
syntax = "proto3";
package shop.events;
message Other { string x = 1; }
message Features {
  optional string user = 1;
  optional double price = 2;
  repeated string tags = 3;
  repeated double tags_weights = 4;
  repeated int64 seen = 5;
  optional string title = 6;
  optional int64 made = 7;
  repeated double picture = 8;
  optional int64 shelf = 9;
}
message Impression {
  optional string id = 1;
  int64 ts_ms = 2;
  string session = 3;
  string source = 4;
  optional string vendor = 5;
  optional string item = 6;
  optional int32 position = 7;
  optional double prediction = 8;
  optional string model_version = 9;
  optional Features features = 10;
  message Part {
    string id = 1;
    string item = 2;
    optional string vendor = 3;
    optional int32 position = 4;
    optional double prediction = 5;
    optional string model_version = 6;
    optional Features features = 7;
  }
  repeated Part impressions = 11;
}
"""
#: The place of Impression in that file.
INDEX = b"\x02\x04"


def framed(id: int, payload: bytes) -> bytes:
    return b"\0" + id.to_bytes(4) + payload


def avro(schema: Any, event: Any, id: int = 1) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), event)
    return framed(id, out.getvalue())


def avro_schema(schema: Any, id: int = 1, *references: Any) -> RegisteredSchema:
    return RegisteredSchema(id, AVRO, json.dumps(schema), tuple(map(json.dumps, references)))


def proto_schema(text: str = PROTO, id: int = 2) -> RegisteredSchema:
    return RegisteredSchema(id, PROTOBUF, files=descriptors_of({"events.proto": text}))


def message_class(schema: RegisteredSchema, name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for one in schema.files:
        pool.Add(descriptor_pb2.FileDescriptorProto.FromString(one))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def proto(made: Any, event: dict[str, Any], id: int = 2, index: bytes = INDEX) -> bytes:
    """`made`: the message's class."""
    message = json_format.ParseDict(event, made(), ignore_unknown_fields=True)
    return framed(id, index + message.SerializeToString())


def raw(event: Any) -> bytes:
    return json.dumps(event).encode()


def decode(
    *values: bytes,
    schemas: tuple[Any, ...] = (),
    config: StreamConfig = CONFIG,
    clicks: bool = False,
) -> Any:
    """(events, bad records)."""
    records = RecordColumns.of([Record(i, TS, b"s", value) for i, value in enumerate(values)])
    if schemas:
        records = records.with_schemas({one.id: one for one in schemas})
    read: Any = decode_clicks if clicks else decode_impressions
    return read(records, 0, np.full(len(values), TS), config)


def impression(**changed: Any) -> dict[str, Any]:
    fields = {"id": "i1", "ts_ms": TS, "session": "s", "source": "u", "vendor": "v", "item": "x"}
    return fields | changed


def reasons(bad: Any) -> list[tuple[str, str]]:
    return [(one.field, one.reason) for one in bad]
