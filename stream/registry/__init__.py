"""Events in Avro, Protobuf or JSON with a schema of a registry (Confluent's wire format).

A value begins with the byte 0 and the id of its schema. A reader of such a log holds records back
until their schemas are known (`schema_log`), and gives them out with these: what decodes them asks
nobody, and waits for nothing. So a registry that is away makes partitions wait, and never makes a
good record a bad one.

- `avro_nodes`: an Avro schema as a tree without names, with what a value of it may cost
- `avro_reader`: Avro values read into events
- `client`: asks the registry, within deadlines, from a thread of its own
- `config`: where the registry is, and its limits
- `http_client`: GET requests within a deadline, over HTTP or TLS, with redirects
- `known_schemas`: which schemas are known, wanted, or known to nobody
- `proto_text`: the text of a .proto file as descriptors, where a registry gives nothing else
- `protobuf_reader`: Protobuf messages read into events
- `schema`: a schema as the registry gave it
- `schema_log`: a log whose records come with their schemas
- `wire_format`: the bytes in front of a value
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.registry.avro_reader import AvroReader
    from stream.registry.client import RegistryAway, log_with_schemas, registry_client
    from stream.registry.config import RegistryConfig
    from stream.registry.known_schemas import Away
    from stream.registry.protobuf_reader import ProtobufReader
    from stream.registry.schema import (
        AVRO,
        JSON,
        PROTOBUF,
        READERS_MAX,
        AbsentSchema,
        EventReader,
        RegisteredSchema,
        SchemaFault,
        Schemas,
    )
    from stream.registry.schema_log import with_schemas
    from stream.registry.wire_format import HEADER_BYTES, MAGIC, framed, message_index, schema_ids
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "AVRO",
    "HEADER_BYTES",
    "JSON",
    "MAGIC",
    "PROTOBUF",
    "READERS_MAX",
    "AbsentSchema",
    "AvroReader",
    "Away",
    "EventReader",
    "ProtobufReader",
    "RegisteredSchema",
    "RegistryAway",
    "RegistryConfig",
    "SchemaFault",
    "Schemas",
    "framed",
    "log_with_schemas",
    "message_index",
    "registry_client",
    "schema_ids",
    "with_schemas",
]
