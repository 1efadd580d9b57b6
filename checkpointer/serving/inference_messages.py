"""The protobuf messages of the Open Inference Protocol (`open_inference_grpc.proto` of KServe; the
same as Triton's `grpc_service.proto` as far as they go), in a pool of their own: a process may hold
a client's generated ones beside them.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE, SERVICE = "inference", "inference.GRPCInferenceService"

_PARAMETERS = "map InferParameter"
#: Message -> fields (number, name, type); "*" = repeated, "|" = one of several, "map" from strings.
_MESSAGES: dict[str, tuple[tuple[int, str, str], ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ((1, "live", "bool"),),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ((1, "ready", "bool"),),
    "ModelReadyRequest": ((1, "name", "string"), (2, "version", "string")),
    "ModelReadyResponse": ((1, "ready", "bool"),),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (
        (1, "name", "string"), (2, "version", "string"), (3, "extensions", "*string"),
    ),
    "ModelMetadataRequest": ((1, "name", "string"), (2, "version", "string")),
    "TensorMetadata": ((1, "name", "string"), (2, "datatype", "string"), (3, "shape", "*int64")),
    "ModelMetadataResponse": (
        (1, "name", "string"), (2, "versions", "*string"), (3, "platform", "string"),
        (4, "inputs", "*TensorMetadata"), (5, "outputs", "*TensorMetadata"),
    ),
    "InferParameter": (
        (1, "bool_param", "|bool"), (2, "int64_param", "|int64"), (3, "string_param", "|string"),
        (4, "double_param", "|double"), (5, "uint64_param", "|uint64"),
    ),
    "InferTensorContents": (
        (1, "bool_contents", "*bool"), (2, "int_contents", "*int32"),
        (3, "int64_contents", "*int64"), (4, "uint_contents", "*uint32"),
        (5, "uint64_contents", "*uint64"), (6, "fp32_contents", "*float"),
        (7, "fp64_contents", "*double"), (8, "bytes_contents", "*bytes"),
    ),
    "InferTensor": (
        (1, "name", "string"), (2, "datatype", "string"), (3, "shape", "*int64"),
        (4, "parameters", _PARAMETERS), (5, "contents", "InferTensorContents"),
    ),
    "InferRequestedOutputTensor": ((1, "name", "string"), (2, "parameters", _PARAMETERS)),
    "ModelInferRequest": (
        (1, "model_name", "string"), (2, "model_version", "string"), (3, "id", "string"),
        (4, "parameters", _PARAMETERS), (5, "inputs", "*InferTensor"),
        (6, "outputs", "*InferRequestedOutputTensor"), (7, "raw_input_contents", "*bytes"),
    ),
    "ModelInferResponse": (
        (1, "model_name", "string"), (2, "model_version", "string"), (3, "id", "string"),
        (4, "parameters", _PARAMETERS), (5, "outputs", "*InferTensor"),
        (6, "raw_output_contents", "*bytes"),
    ),
}  # fmt: skip

_Field = descriptor_pb2.FieldDescriptorProto


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="everspun/open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind in fields:
            if kind.startswith("map "):
                entry = message.nested_type.add(
                    name="".join(part.capitalize() for part in field.split("_")) + "Entry"
                )
                entry.options.map_entry = True
                _add(entry, 1, "key", "string")
                _add(entry, 2, "value", kind.removeprefix("map "))
                added = message.field.add(name=field, number=number, type=_Field.TYPE_MESSAGE)
                added.label = _Field.LABEL_REPEATED
                added.type_name = f".{PACKAGE}.{name}.{entry.name}"
            else:
                _add(message, number, field, kind)
    return file


def _add(message: descriptor_pb2.DescriptorProto, number: int, name: str, kind: str) -> None:
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if kind.startswith("*") else _Field.LABEL_OPTIONAL
    if kind.startswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    plain = kind.lstrip("*|")
    if plain in _MESSAGES:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{plain}"
    else:
        field.type = getattr(_Field, f"TYPE_{plain.upper()}")


def _made() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_described().SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


#: Name -> class.
MESSAGES = _made()
