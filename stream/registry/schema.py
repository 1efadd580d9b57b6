"""A schema as the registry gave it, and the readers that are made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

AVRO, PROTOBUF, JSON = "AVRO", "PROTOBUF", "JSON"
#: Readers kept with a schema: one for each kind of event, and for each message of a file.
READERS_MAX = 64


class SchemaFault(Exception):
    """A schema does not fit what is read by it, or a value its schema: (field, reason)."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class EventReader(Protocol):
    """Reads values of one schema as events of one type. Belongs to no thread."""

    #: how many bytes of memory a byte of a value may take while it is read
    expansion: int
    #: whether a value may be of a type that its field does not have, so that each is looked at
    is_mixed: bool

    def read(self, payload: bytes) -> dict[str, Any]:
        """The event by its fields' names. Raises SchemaFault."""

    def feature_names(self, payload: bytes) -> set[str]:
        """Names of features that it has, whoever declared them. Raises SchemaFault."""


@dataclass(frozen=True, eq=False)
class RegisteredSchema:
    """What stands under an id, which never changes."""

    id: int
    kind: str
    text: str = ""  # Avro, JSON
    references: tuple[str, ...] = ()  # Avro: texts of what it refers to, those first that are named
    files: tuple[bytes, ...] = ()  # Protobuf: FileDescriptorProtos, the schema's own last
    broken: str = ""  # why nothing can be read by it
    readers: dict[Any, EventReader | SchemaFault] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Bytes of what the registry gave."""
        return len(self.text) + sum(map(len, self.references)) + sum(map(len, self.files))


@dataclass(frozen=True)
class AbsentSchema:
    """The registry knows no schema of this id."""

    id: int


#: By id, what the records of one poll name.
Schemas = Mapping[int, RegisteredSchema | AbsentSchema]


def type_named(wanted: pa.DataType) -> str:
    """What a field must be, in words."""
    if pa.types.is_string(wanted):
        return "a string"
    if pa.types.is_binary(wanted):
        return "bytes, a picture's file"
    if pa.types.is_integer(wanted):
        return "an integer"
    if pa.types.is_floating(wanted):
        return "a number"
    if pa.types.is_list(wanted):
        return f"a list, each of its values {type_named(wanted.value_type)}"
    return "a record"
