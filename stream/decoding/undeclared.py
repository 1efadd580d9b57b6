"""Features in events that nobody declared, or that the pipeline itself keeps: a misspelled one is
ignored like any other, so it is counted by name."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from stream.columns import FEATURE_PREFIX, FIELD_CHARS_MAX, MalformedStream, measure
from stream.config import StreamConfig
from stream.decoding.cloud_events import NoEvent, unwrapped_value
from stream.decoding.registered_values import Readers, SchemaLacking
from stream.decoding.schema import Shape, impression_shape
from stream.log import RecordColumns
from stream.record import Record
from stream.registry import HEADER_BYTES, JSON, MAGIC, RegisteredSchema, SchemaFault, Schemas

#: Names that are remembered; junk under ever new names takes no more room than this.
NAMES_MAX = 100
ARROW_STREAM = b"\xff\xff\xff\xff"


def count_undeclared(found: Counter[str], records: Iterable[Record], config: StreamConfig) -> None:
    """Add to `found` how many of these records hold a feature of each name that is ignored.
    Records that cannot be read are passed over: `decode` says what is wrong with them."""
    declared = {f.name for f in config.features} | {f.alias for f in config.features}
    # what is retired may still be sent, and what the pipeline keeps is sent by nobody
    declared |= {name for name, one in config.declared.items() if not one.kept_by}
    laid_out, shape = RecordColumns.of(records), impression_shape(config.features)
    for record in laid_out:
        value = record.value or b""
        if not value or len(value) > config.record_bytes_max:
            continue
        if value.startswith(ARROW_STREAM):
            names = _arrow_names(value)
        elif laid_out.schemas and value[0] == MAGIC:
            names = _registered_names(laid_out.schemas, value, shape)
        else:
            names = _json_names(value)
        for name in names - declared:
            name = name[:FIELD_CHARS_MAX].encode("utf-8", "backslashreplace").decode()
            if name in found or len(found) < NAMES_MAX:
                found[name] += 1


def _arrow_names(value: bytes) -> set[str]:
    try:
        measure(value)
        with pa.ipc.open_stream(value) as reader:
            names = reader.schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError, MalformedStream):
        return set()
    return {name.removeprefix(FEATURE_PREFIX) for name in names if name.startswith(FEATURE_PREFIX)}


def _registered_names(schemas: Schemas, value: bytes, shape: Shape) -> set[str]:
    id, payload = int.from_bytes(value[1:HEADER_BYTES]), value[HEADER_BYTES:]
    schema = schemas.get(id)
    if isinstance(schema, RegisteredSchema) and schema.kind == JSON:
        return _json_names(payload)
    try:
        reader, payload = Readers(schemas, shape).of(id, payload)
        return reader.feature_names(payload)
    except (SchemaFault, SchemaLacking):
        return set()


def _json_names(value: bytes) -> set[str]:
    try:
        parsed = json.loads(unwrapped_value(value))
    except (ValueError, RecursionError, NoEvent):
        return set()
    names: set[str] = set()
    for event in parsed if isinstance(parsed, list) else [parsed]:
        if isinstance(event, dict):
            parts = event.get("impressions")
            for one in (event, *(parts if isinstance(parts, list) else ())):
                names |= _feature_names(one)
    return names


def _feature_names(event: Any) -> set[str]:
    features = event.get("features") if isinstance(event, dict) else None
    return set(features) if isinstance(features, dict) else set()
