"""The Open Inference Protocol, version 2, as KServe and Triton speak it: tensors in, tensors out.

Each input is a column, by name as in `{"columns": ...}`: strings as BYTES, numbers as any number
type, of shape (n) or (n, 1). An input of shape (1) beside others of n rows is shared by all of
them, as a context is. There is one output, `probability`, FP32 (n). REST takes and gives tensors as
JSON or as bytes behind it (the binary tensor extension, which Triton's clients use by default).
"""

import re
import struct
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from checkpointer.serving.request import (
    IDENTIFIERS,
    POSITION,
    SHOWN_AT,
    BadRequest,
    Given,
    given_columns,
    with_context,
)
from stream.columns import Features

OUTPUT, BYTES = "probability", "BYTES"
PLATFORM, EXTENSIONS = "everspun", ("binary_tensor_data",)
#: Where the JSON of a request ends and its bytes begin.
HEAD_LENGTH = "Inference-Header-Content-Length"
_NUMBERS = {
    "FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
_SIZE = struct.Struct("<I")


class Tensor(NamedTuple):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | bytes | memoryview  # values, or as the binary extension has them


class Infer(NamedTuple):
    """`binary`: whether the answer's tensor is to be bytes."""

    tensors: list[Tensor]
    id: str
    binary: bool


def read_infer(body: bytes, head_length: str) -> Infer:
    """Of `POST v2/models/.../infer`. Raises BadRequest."""
    if head_length and not re.fullmatch(r"[0-9]{1,10}", head_length):
        raise BadRequest(f"{HEAD_LENGTH} = {head_length!r:.40}: send the bytes of the JSON")
    size = int(head_length) if head_length else len(body)
    if size > len(body):
        raise BadRequest(f"{HEAD_LENGTH} = {size}: the body has {len(body)} bytes")
    try:
        head = orjson.loads(body[:size])
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: not JSON ({error}); send {{'inputs': [...]}}") from error
    if not isinstance(head, dict) or not isinstance(head.get("inputs"), list):
        raise BadRequest("inputs: missing; send a list of tensors {name, shape, datatype, data}")
    tensors, at = [], size
    for number, tensor in enumerate(head["inputs"]):
        made, at = _tensor(number, tensor, memoryview(body), at)
        tensors.append(made)
    if at != len(body):
        raise BadRequest(f"body: {len(body) - at} bytes behind the last tensor; send none")
    parameters = _object(head.get("parameters"))
    outputs = head.get("outputs")
    binary = bool(parameters.get("binary_data_output", False))
    if isinstance(outputs, list) and outputs:
        output = _object(outputs[0])
        if output.get("name") != OUTPUT or len(outputs) > 1:
            names = [_object(one).get("name") for one in outputs]
            raise BadRequest(f"outputs = {names}: there is {OUTPUT!r} alone")
        binary = bool(_object(output.get("parameters")).get("binary_data", binary))
    return Infer(tensors, str(head.get("id") or ""), binary)


def given_of(tensors: Sequence[Tensor], features: Features, rows_max: int) -> Given:
    """Raises BadRequest."""
    if not tensors:
        raise BadRequest("inputs = []: send a tensor for each feature")
    columns = {tensor.name: values_of(tensor) for tensor in tensors}
    if len(columns) < len(tensors):
        names = [tensor.name for tensor in tensors]
        raise BadRequest(f"inputs = {names}: send each name once")
    rows = max(map(len, columns.values()))
    own = {name: values for name, values in columns.items() if len(values) == rows}
    shared = {name: values[0] for name, values in columns.items() if len(values) == 1 < rows}
    wrong = [name for name in columns if name not in own and name not in shared]
    if wrong:
        raise BadRequest(
            f"input {wrong[0]}: {len(columns[wrong[0]])} values, and others have {rows}; send "
            f"equally many, or one for all rows"
        )
    asked = given_columns(own, features, rows_max)
    return with_context(asked, shared, features, by_row=False) if shared else asked


def values_of(tensor: Tensor) -> list[Any]:
    """Its values as JSON would have them. Raises BadRequest."""
    name, datatype, shape, data = tensor
    if not 1 <= len(shape) <= 2 or any(size < 0 for size in shape) or shape[1:] not in ((), (1,)):
        raise BadRequest(f"input {name}, shape = {list(shape)}: send [rows] or [rows, 1]")
    if datatype != BYTES and datatype not in _NUMBERS:
        allowed = ", ".join((BYTES, *_NUMBERS))
        raise BadRequest(f"input {name}, datatype = {datatype!r}: allowed are {allowed}")
    if isinstance(data, list):
        values = [v for one in data for v in (one if isinstance(one, list) else [one])]
    elif datatype == BYTES:
        values = _strings(name, memoryview(data))
    else:
        width = np.dtype(_NUMBERS[datatype]).itemsize
        if len(data) % width:
            raise BadRequest(f"input {name}: {len(data)} bytes are no {datatype}")
        values = np.frombuffer(data, _NUMBERS[datatype]).tolist()
        values = [None if value != value else value for value in values]  # NaN is missing
    if len(values) != shape[0]:
        raise BadRequest(f"input {name}: {len(values)} values, and shape {list(shape)}")
    if datatype == BYTES:
        values = [v.decode() if isinstance(v, bytes) else v for v in values]
    return values


def inputs_of(features: Features) -> list[dict[str, Any]]:
    """The inputs that a model has, as metadata tells them."""
    names = [(name, BYTES) for name in IDENTIFIERS]
    kinds = {pa.string(): BYTES, pa.int64(): "INT64", pa.float64(): "FP32", pa.binary(): BYTES}
    names += [(f.name, kinds[f.wire_type]) for f in features if not f.is_list]
    names.append((POSITION, "INT32"))
    return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in names]


def outputs_of() -> list[dict[str, Any]]:
    return [{"name": OUTPUT, "datatype": "FP32", "shape": [-1]}]


def server_metadata() -> dict[str, Any]:
    """Of `GET v2`."""
    try:
        here = version(PLATFORM)
    except PackageNotFoundError:
        here = "unknown"
    return {"name": PLATFORM, "version": here, "extensions": list(EXTENSIONS)}


def metadata(model: str, versions: Sequence[str], features: Features) -> dict[str, Any]:
    """Of `GET v2/models/...`."""
    return {
        "name": model,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": inputs_of(features),
        "outputs": outputs_of(),
    }


def write_infer(model: str, asked: Infer, answer: Mapping[str, Any]) -> tuple[bytes, int]:
    """The body of the answer, and the length of its JSON, 0 = all of it."""
    probabilities = np.ascontiguousarray(answer["probabilities"], "<f4")
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": [len(probabilities)]}
    if asked.binary:
        output["parameters"] = {"binary_data_size": probabilities.nbytes}
    else:
        output["data"] = probabilities
    head = {
        "model_name": model,
        "model_version": answer["model_version"],
        "parameters": told(answer),
        "outputs": [output],
    }
    if asked.id:
        head["id"] = asked.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return (text + probabilities.tobytes(), len(text)) if asked.binary else (text, 0)


def told(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is said beside the probabilities, as parameters."""
    found = {
        name: value for name, value in answer.items() if name not in _SAID and value is not None
    }
    if "ignored" in found:
        found["ignored"] = ",".join(found["ignored"])
    return found


_SAID = frozenset({"probabilities", "model_version"})


def _tensor(number: int, tensor: Any, body: memoryview, at: int) -> tuple[Tensor, int]:
    """One input of the JSON, and where the bytes behind go on."""
    fields = _object(tensor)
    name, datatype, shape = (fields.get(key) for key in ("name", "datatype", "shape"))
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise BadRequest(f"input {number}: send name, shape, datatype, and data")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise BadRequest(f"input {name}, shape = {shape}: send [rows]")
    size = _object(fields.get("parameters")).get("binary_data_size")
    data: Any = fields.get("data")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise BadRequest(
                f"input {name}, binary_data_size = {size}: {len(body) - at} bytes are there"
            )
        data, at = body[at : at + size], at + size
    elif not isinstance(data, list):
        raise BadRequest(f"input {name}: no data; send a list of values")
    return Tensor(POSITION if name == SHOWN_AT else name, datatype, tuple(shape), data), at


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(name: str, data: memoryview) -> list[str]:
    """Each behind its length, 4 bytes little-endian."""
    found, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise BadRequest(f"input {name}: {len(data) - at} bytes behind the last string")
        (size,) = _SIZE.unpack_from(data, at)
        at += 4
        if at + size > len(data):
            raise BadRequest(f"input {name}: a string of {size} bytes, {len(data) - at} are there")
        try:
            found.append(str(data[at : at + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(f"input {name}, value {len(found)}: not UTF-8 ({error})") from error
        at += size
    return found
