"""Values in Avro and Protobuf, with their schemas, read into the flat columns that JSON gives.

The libraries read a value at a time, into Python's objects. So how much of that a value may become
is known from its schema before it is read, and what was read becomes columns again as soon as it
takes a share of `decoded_bytes_max`. From there on it is JSON that was parsed: a page view becomes
rows, and a row is judged, by the same code.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from stream.columns import Fault, fault, rounded
from stream.config import StreamConfig
from stream.decoding.event_faults import Bad
from stream.decoding.json_values import without_large
from stream.decoding.record_faults import explain_events
from stream.decoding.schema import Rows, Shape, flatten_json
from stream.kernels import I64
from stream.log import RecordColumns
from stream.record import Record
from stream.registry import (
    HEADER_BYTES,
    PROTOBUF,
    READERS_MAX,
    AbsentSchema,
    AvroReader,
    EventReader,
    ProtobufReader,
    RegisteredSchema,
    SchemaFault,
    Schemas,
    message_index,
    schema_ids,
)

#: What was read becomes columns when it takes this share of `decoded_bytes_max`.
_SHARE = 4
#: A value of so few bytes is read whatever its schema says that it may take.
_FREE_BYTES = 4_096
#: A schema by which one byte may take more is refused: no other bounds its short values' time.
EXPANSION_MAX = 4_096
#: An event's own objects, bytes, beside what repeats in it.
_EVENT_BYTES = 4_096


class SchemaLacking(Exception):
    """Records came without a schema that they name: a fault of who gave them, and of no record."""


def read_registered(
    records: RecordColumns,
    indices: I64,
    shape: Shape,
    partition: int,
    config: StreamConfig,
    bad: Bad,
) -> list[Rows]:
    """Rows of the records of these indices; the unreadable ones are added to `bad`. Raises
    SchemaLacking."""
    if not len(indices):
        return []
    read, readers = _EventColumns(shape, partition, config, bad), Readers(records.schemas, shape)
    ids = schema_ids(records, indices).tolist()
    for i, id, value in zip(indices.tolist(), ids, records.values(indices), strict=True):
        try:
            read.add(i, *readers.of(id, value[HEADER_BYTES:]))
        except SchemaFault as error:
            bad[i] = fault(error.name, error.reason)
    return read.rows()


class Readers:
    """What reads the values that name these schemas, as events of one shape."""

    def __init__(self, schemas: Schemas, shape: Shape) -> None:
        self._schemas, self._shape = schemas, shape
        self._avro: dict[int, EventReader] = {}
        self._messages: dict[tuple[int, tuple[int, ...]], EventReader] = {}

    def of(self, id: int, payload: bytes) -> tuple[EventReader, bytes]:
        """What reads the value, and what of it. Raises SchemaFault, SchemaLacking."""
        if (known := self._avro.get(id)) is not None:
            return known, payload
        schema = _usable(self._schemas, id)
        if schema.kind == PROTOBUF:
            index, begin = message_index(payload)
            reader = self._messages.get((id, index))
            if reader is None:
                self._messages[id, index] = reader = _reader(schema, index, self._shape)
            return reader, payload[begin:]
        self._avro[id] = _reader(schema, (), self._shape)
        return self._avro[id], payload


def _usable(schemas: Schemas, id: int) -> RegisteredSchema:
    """Raises SchemaFault, SchemaLacking."""
    if id < 0:
        raise SchemaFault(
            "value", "begins with a zero byte and ends before a schema id of four bytes; send both"
        )
    schema = schemas.get(id)
    if schema is None:
        raise SchemaLacking(f"schema {id}")
    if isinstance(schema, AbsentSchema):
        raise SchemaFault(
            "value",
            f"names schema {id}, which the registry does not know; register the schema first, "
            "with the registry that registry.url names",
        )
    if schema.broken:
        raise SchemaFault("value", schema.broken)
    return schema


def _reader(schema: RegisteredSchema, index: tuple[int, ...], shape: Shape) -> EventReader:
    """Made once for a schema, a message and a shape. Raises SchemaFault."""
    key = (index, shape.wanted)
    known = schema.readers.get(key)
    if known is None:
        if len(schema.readers) >= READERS_MAX:
            schema.readers.clear()
        schema.readers[key] = known = _made(schema, index, shape)
    if isinstance(known, SchemaFault):
        raise SchemaFault(known.name, known.reason)
    return known


def _made(
    schema: RegisteredSchema, index: tuple[int, ...], shape: Shape
) -> EventReader | SchemaFault:
    try:
        if schema.kind == PROTOBUF:
            return ProtobufReader(schema, index, shape.wanted)
        made = AvroReader(schema, shape.wanted)
        if made.expansion > EXPANSION_MAX:
            raise SchemaFault(
                "value",
                f"has schema {schema.id}, by which a byte may take {made.expansion} in memory; "
                f"allowed are {EXPANSION_MAX}: leave out of its lists what takes no bytes",
            )
        return made
    except SchemaFault as error:  # kept without its trace, which would keep what was being read
        return SchemaFault(error.name, error.reason)


class _EventColumns:
    """Events that were read, and the columns that were made of them."""

    def __init__(self, shape: Shape, partition: int, config: StreamConfig, bad: Bad) -> None:
        self._shape, self._partition, self._config, self._bad = shape, partition, config, bad
        self._parts: list[Rows] = []
        self._events: list[dict[str, Any]] = []
        self._owners: list[int] = []
        self._bytes = 0

    def add(self, i: int, reader: EventReader, payload: bytes) -> None:
        """Read a record's event. Raises SchemaFault."""
        taken = len(payload) * reader.expansion
        allowed = max(_FREE_BYTES, self._config.decoded_bytes_max // reader.expansion)
        if len(payload) > allowed:
            raise SchemaFault(
                "value",
                f"has {len(payload)} bytes, each of which may take {reader.expansion} in memory by "
                f"its schema; send at most {allowed} a record (decoded_bytes_max): divide it",
            )
        event = reader.read(payload)
        if reader.is_mixed and not _fits(event, self._shape.wanted):
            self._bad[i] = self._explained(event, "")
            return
        self._events.append(event)
        self._owners.append(i)
        self._bytes += taken + _EVENT_BYTES
        if self._bytes > self._config.decoded_bytes_max // _SHARE:
            self._make_columns()

    def rows(self) -> list[Rows]:
        """Of all records that were added."""
        self._make_columns()
        return self._parts

    def _make_columns(self) -> None:
        events, owners = self._events, self._owners
        self._events, self._owners, self._bytes = [], [], 0
        if not events:
            return
        try:
            made = pa.array(events, self._shape.wanted)
        except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError):
            events, owners = self._sorted_out(events, owners)
            made = pa.array(events, self._shape.wanted)
        table = pa.Table.from_struct_array(made)
        of_object = np.array(owners, np.int64)
        table, of_object = without_large(table, of_object, self._shape, self._config, self._bad)
        columns, object_of_row = flatten_json(table, self._shape)
        if len(object_of_row):
            self._parts.append(Rows(columns, of_object[object_of_row]))

    def _sorted_out(
        self, events: list[dict[str, Any]], owners: list[int]
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """Without those that are no columns by themselves."""
        kept: list[int] = []
        for at, event in enumerate(events):
            try:
                events[at] = rounded(event, self._shape.wanted)
                pa.array([events[at]], self._shape.wanted)
                kept.append(at)
            except (pa.ArrowException, OverflowError, UnicodeError, TypeError, ValueError) as error:
                self._bad[owners[at]] = self._explained(event, str(error))
        return [events[at] for at in kept], [owners[at] for at in kept]

    def _explained(self, event: dict[str, Any], said: str) -> Callable[[Record], Fault]:
        is_click = not self._shape.is_impression
        place = (is_click, self._partition, self._config)
        return lambda record: explain_events([event], record, said, *place)


def _fits(value: Any, wanted: pa.DataType) -> bool:
    """Whether a value that was read is of the type that JSON would give for this one."""
    if value is None:
        return True
    if pa.types.is_struct(wanted):
        return isinstance(value, dict) and all(
            _fits(value.get(field.name), field.type) for field in wanted
        )
    if pa.types.is_list(wanted):
        return isinstance(value, list) and all(_fits(one, wanted.value_type) for one in value)
    if pa.types.is_string(wanted):
        return isinstance(value, str)
    if pa.types.is_binary(wanted):
        return isinstance(value, str | bytes)
    if isinstance(value, bool):
        return False
    return isinstance(value, int if pa.types.is_integer(wanted) else int | float)
