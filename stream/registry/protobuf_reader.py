"""Protobuf messages read into events: the fields of a message found among those of an event.

A field is found by its name, or by its `json_name`, which is how a site that renames a field keeps
the old name. A field without presence that stands at its default is taken as it stands, for nothing
tells it from one that was set to it; where an impression may leave a string to its page view, an
empty one is as good as none. Declare what may be missing `optional`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from stream.registry.schema import RegisteredSchema, SchemaFault, type_named

#: Files that every compiler knows, by name.
WELL_KNOWN = {
    module.DESCRIPTOR.name: module.DESCRIPTOR
    for module in (
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )
}
_FEATURES, _PAGE = "features", "impressions"
#: What an impression of a page view may leave to the page.
_SHARED = ("impressions.vendor", "impressions.model_version")
#: Memory of a message and of a field in one, as the library holds them; of an empty one in a
#: repeated field stand two bytes.
_MESSAGE_BYTES, _FIELD_BYTES, _EMPTY_BYTES = 24, 16, 2
#: Schemas whose files stay read.
POOLS_MAX = 16
#: Impressions of a page view: each becomes a dict.
PARTS_MAX = 65_536
_INTEGERS = (
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_TYPE_NAMES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}

#: Makes a value of an event of a field's value in a message.
_Take = Callable[[Any], Any]


class ProtobufReader:
    """See `EventReader`. `index`: the message's place in the schema's file, an index a level;
    `wanted`: an event's fields, as a struct. Raises SchemaFault for one that does not fit."""

    def __init__(
        self, schema: RegisteredSchema, index: tuple[int, ...], wanted: pa.StructType
    ) -> None:
        self._id, self.is_mixed = schema.id, False
        descriptor = _message(schema, index)
        self._class = message_factory.GetMessageClass(descriptor)
        widest = max(len(one.fields) for one in _reachable(descriptor))
        self.expansion = (_MESSAGE_BYTES + _FIELD_BYTES * widest) // _EMPTY_BYTES
        self._names: set[str] = set()
        self._take = self._record(descriptor, wanted, "")
        self._map_names = self._bags(descriptor)

    def read(self, payload: bytes) -> dict[str, Any]:
        try:
            event: dict[str, Any] = self._take(self._parse(payload))
        except UnicodeDecodeError as error:  # proto2 looks at a string when it is asked for
            raise SchemaFault("value", f"holds a string that is not UTF-8 ({error})") from error
        return event

    def feature_names(self, payload: bytes) -> set[str]:
        if not self._map_names:
            return set(self._names)
        return self._names | self._map_names_of(self._parse(payload))

    def _parse(self, payload: bytes) -> Any:
        try:
            return self._class.FromString(payload)
        except (DecodeError, UnicodeDecodeError) as error:
            raise SchemaFault(
                "value",
                f"is not what schema {self._id} says ({error}); write it with the schema whose id "
                "it carries, and strings in UTF-8",
            ) from error

    # --- comparing
    # ----------------------------------------------------------------------------------------------

    def _record(self, descriptor: Descriptor, wanted: pa.StructType, path: str) -> _Take:
        takes: dict[int, tuple[str, _Take]] = {}
        defaults: dict[str, Any] = {}
        for field in wanted:
            found = _field(descriptor, field.name)
            if found is None:
                continue
            inner = f"{path}.{field.name}" if path else field.name
            takes[found.number] = (field.name, self._value(found, field.type, inner))
            if not found.has_presence and not found.is_repeated:
                is_shared = inner in _SHARED or path == f"{_PAGE}.{_FEATURES}"
                if not (is_shared and found.cpp_type == FieldDescriptor.CPPTYPE_STRING):
                    defaults[field.name] = takes[found.number][1](found.default_value)

        def take(message: Any) -> dict[str, Any]:
            event = dict(defaults)
            for field, value in message.ListFields():
                if (known := takes.get(field.number)) is not None:
                    name, one = known
                    event[name] = value if one is _same else one(value)
            return event

        return take

    def _value(self, field: FieldDescriptor, wanted: pa.DataType, path: str) -> _Take:
        """Raises SchemaFault unless values of the field can be what is wanted."""
        if pa.types.is_struct(wanted):
            if _is_map(field) and path.endswith(_FEATURES):
                return self._map(field, wanted, path)
            if field.message_type is None or field.is_repeated or _is_well_known(field):
                raise self._misfit(field, wanted, path)
            return self._record(field.message_type, wanted, path)
        if pa.types.is_list(wanted):
            if not field.is_repeated or _is_map(field):
                raise self._misfit(field, wanted, path)
            if not pa.types.is_struct(wanted.value_type):
                one = self._one(field, wanted.value_type, path)
                return list if one is None else lambda values: [one(value) for value in values]
            if field.message_type is None:
                raise self._misfit(field, wanted, path)
            part = self._record(field.message_type, wanted.value_type, path)
            return lambda parts: _parts(parts, part, path)
        if field.is_repeated:
            raise self._misfit(field, wanted, path)
        return self._one(field, wanted, path) or _same

    def _one(self, field: FieldDescriptor, wanted: pa.DataType, path: str) -> _Take | None:
        """None where a value stands for itself."""
        kind = field.cpp_type
        if pa.types.is_string(wanted):
            if field.enum_type is not None:
                names = {number: v.name for number, v in field.enum_type.values_by_number.items()}
                self.is_mixed = True  # a number that this version of the enum does not name
                return lambda number: names.get(number, number)
            fits = field.type == FieldDescriptor.TYPE_STRING
        elif pa.types.is_binary(wanted):
            fits = field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING)
        elif pa.types.is_integer(wanted):
            fits = kind in _INTEGERS
            fits = fits and (path != "ts_ms" or kind != FieldDescriptor.CPPTYPE_INT32)
        else:
            fits = kind in _FLOATS or kind in _INTEGERS
        if not fits:
            raise self._misfit(field, wanted, path)
        return None

    def _map(self, field: FieldDescriptor, wanted: pa.StructType, path: str) -> _Take:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        if key.type != FieldDescriptor.TYPE_STRING:
            raise self._misfit(field, wanted, path)
        for one in wanted:
            try:
                self._one(value, one.type, path)
            except SchemaFault:
                self.is_mixed = True
        return dict

    def _misfit(self, field: FieldDescriptor, wanted: pa.DataType, path: str) -> SchemaFault:
        kind = _TYPE_NAMES.get(field.type, "message")
        kind = field.message_type.full_name if kind == "message" else kind
        many = "repeated " if field.is_repeated and not _is_map(field) else ""
        fix = "int64, milliseconds since 1970" if path == "ts_ms" else type_named(wanted)
        return SchemaFault(path, f"is {many}{kind} in schema {self._id}; send {fix}")

    # --- names of features
    # ----------------------------------------------------------------------------------------------

    def _bags(self, descriptor: Descriptor) -> bool:
        """Notes the features that messages name. Whether some come in a map."""
        has_map = False
        page = _field(descriptor, _PAGE)
        parts = [] if page is None or page.message_type is None else [page.message_type]
        for message in (descriptor, *parts):
            bag = _field(message, _FEATURES)
            if bag is not None and _is_map(bag):
                has_map = True
            elif bag is not None and bag.message_type is not None:
                self._names |= {one.name for one in bag.message_type.fields}
        return has_map

    def _map_names_of(self, message: Any) -> set[str]:
        names: set[str] = set()
        page = _field(message.DESCRIPTOR, _PAGE)
        parts = [] if page is None or page.message_type is None else getattr(message, page.name)
        for one in (message, *(parts if page is not None and page.is_repeated else ())):
            bag = _field(one.DESCRIPTOR, _FEATURES)
            if bag is not None and _is_map(bag):
                names |= set(map(str, getattr(one, bag.name)))
        return names


def _same(value: Any) -> Any:
    return value


def _parts(parts: Sequence[Any], take: _Take, path: str) -> list[Any]:
    if len(parts) > PARTS_MAX:
        raise SchemaFault(path, f"holds {len(parts)} messages; send at most {PARTS_MAX} a record")
    return [take(one) for one in parts]


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    found = descriptor.fields_by_name.get(name)
    if found is None:
        found = next((one for one in descriptor.fields if one.json_name == name), None)
    return found


def _is_well_known(field: FieldDescriptor) -> bool:
    """Whether it is one of Protobuf's own messages, whose fields have names of their own."""
    return bool(field.message_type.file.name in WELL_KNOWN)


def _is_map(field: FieldDescriptor) -> bool:
    message = field.message_type
    return bool(message is not None and message.GetOptions().map_entry)


def _message(schema: RegisteredSchema, index: tuple[int, ...]) -> Descriptor:
    pool, own = _pool(schema)
    messages, name = own.message_type, own.package
    for at in index:
        if not 0 <= at < len(messages):
            raise SchemaFault(
                "value", f"names message {list(index)} of schema {schema.id}, which has none there"
            )
        name = f"{name}.{messages[at].name}".lstrip(".")
        messages = messages[at].nested_type
    return pool.FindMessageTypeByName(name)


@lru_cache(maxsize=POOLS_MAX)
def _pool(
    schema: RegisteredSchema,
) -> tuple[descriptor_pool.DescriptorPool, descriptor_pb2.FileDescriptorProto]:
    """All its files, and its own: made once, as whoever sends a value says which of a schema's
    messages it is. Raises SchemaFault."""
    pool = descriptor_pool.DescriptorPool()
    try:
        for one in well_known(schema.files):
            pool.AddSerializedFile(one)
        for one in schema.files:
            pool.AddSerializedFile(one)
        own = descriptor_pb2.FileDescriptorProto.FromString(schema.files[-1])
        pool.FindFileByName(own.name)
    except Exception as error:  # what a pool raises for a file that lacks another is a TypeError
        raise SchemaFault("value", f"has a schema that is no Protobuf ({error})") from error
    return pool, own


def well_known(files: tuple[bytes, ...]) -> list[bytes]:
    """Files of Protobuf's own that these refer to, those first that others refer to."""
    made: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in made or name not in WELL_KNOWN:
            return  # of others the pool says that they are missing
        for one in WELL_KNOWN[name].dependencies:
            add(one.name)
        made[name] = WELL_KNOWN[name].serialized_pb

    for one in files:
        for name in descriptor_pb2.FileDescriptorProto.FromString(one).dependency:
            add(name)
    return list(made.values())


def _reachable(descriptor: Descriptor) -> list[Descriptor]:
    found, waiting = {descriptor.full_name: descriptor}, [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            inner = field.message_type
            if inner is not None and inner.full_name not in found:
                found[inner.full_name] = inner
                waiting.append(inner)
    return list(found.values())
