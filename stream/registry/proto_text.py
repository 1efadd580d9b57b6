"""The text of .proto files as descriptors (shell), for registries that give nothing else.

Confluent's registry and Redpanda's give a Protobuf schema as a serialized descriptor where they are
asked to, and then this is not needed. It takes protoc, which comes with the extra `protobuf`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from google.protobuf import descriptor_pb2

from stream.registry.protobuf_reader import WELL_KNOWN
from stream.registry.schema import SchemaFault


def can_read_text() -> bool:
    """Whether protoc is installed."""
    try:
        import grpc_tools.protoc  # noqa: F401
    except ImportError:
        return False
    return True


def descriptors_of(texts: Mapping[str, str]) -> tuple[bytes, ...]:
    """FileDescriptorProtos of these files by name, those first that others import; the last of
    `texts` is the last. Raises SchemaFault."""
    from grpc_tools import _proto, protoc

    known = Path(next(iter(_proto.__path__)))
    with tempfile.TemporaryDirectory() as folder:
        for name, text in texts.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise SchemaFault("value", f"has a schema that imports {name!r}: no such file")
            (place := Path(folder, path)).parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        made = Path(folder, "made.bin")
        options = [f"-I{folder}", f"-I{known}", "--include_imports", f"--descriptor_set_out={made}"]
        own = list(texts)[-1]
        if protoc.main(["protoc", *options, own]) != 0:
            raise SchemaFault("value", f"has a schema that protoc does not read: {texts[own]!r}")
        files = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    return tuple(one.SerializeToString() for one in files if one.name not in WELL_KNOWN)
