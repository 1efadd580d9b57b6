"""Odd requests to a replica, for each of its ways to be asked, and their decoders.

An input's first byte chooses the way; where that has a header that counts (the length of the JSON
before binary tensors), it stands before the body, and a zero byte behind it.
"""

import json
import random
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
from events_made import FEATURES, PICTURE, TS, odd_value

from checkpointer.serving import BadRequest
from checkpointer.serving.arrow_request import read_table
from checkpointer.serving.open_inference import given_of, read_infer
from checkpointer.serving.request import items_of, parse, request_of
from checkpointer.serving.tensorflow_serving import read_predict
from checkpointer.serving.typed_request import RequestDecoder
from everspun import loads
from learners import ModelConfig
from learners.models import Encoder, TextEncoder

ROWS_MAX, BYTES_MAX = 64, 1 << 22
REASON_BYTES_MAX = 4_096
NAMES = ("item", "source", "vendor", "ts_ms", "position", "shown_at", "other", *FEATURES)
TYPES = ("BYTES", "INT64", "INT32", "FP32", "FP64", "BOOL", "UINT8", "FP16", "")


#: A model that reads every kind of feature.
DECLARED = """
[features]
user = {}
price = {kind = "numeric"}
tags = {kind = "list", weighted = true}
seen = {kind = "list", type = "integer"}
title = {kind = "text"}
made = {kind = "time"}
picture = {kind = "vector", width = 2}
shelf = {type = "integer"}
quality = {kind = "component"}
photo = {kind = "image"}
cover = {kind = "image", unreadable = "missing"}

[model]
kind = "mlp"
categorical = ["source", "item", "user", "tags", "seen", "title", "made", "shelf", "user*title"]
numeric = ["price", "picture", "quality", "shown_at"]
images = ["photo", "cover"]
"""
ENCODER = Encoder(loads(DECLARED).model)
FEW = RequestDecoder(TextEncoder(Encoder(ModelConfig(categorical=("source", "item")))))


def _bag(rng: random.Random) -> dict[str, Any]:
    good: dict[str, Any] = {
        "item": "i",
        "ts_ms": TS,
        "tags": ["a", "b"],
        "tags_weights": [1.0, 2.0],
        "picture": [0.5, 1.0],
        "photo": PICTURE,
    }
    made = {name: good.get(name, 1) for name in NAMES if rng.random() < 0.4}
    for _ in range(rng.choice((0, 0, 1, 2))):
        made[rng.choice(NAMES)] = odd_value(rng)
    return made


def _text(whole: Any, rng: random.Random) -> bytes:
    text = json.dumps(whole, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _rows(rng: random.Random) -> bytes:
    body: dict[str, Any] = {"rows": [_bag(rng) for _ in range(rng.choice((0, 1, 3, 65)))]}
    if rng.random() < 0.3:
        body = {"columns": {n: [odd_value(rng)] * rng.choice((1, 2)) for n in _bag(rng)}}
    if rng.random() < 0.3:
        body["context"] = _bag(rng)
    return _text(body if rng.random() < 0.95 else odd_value(rng), rng)


def _instances(rng: random.Random) -> bytes:
    body: dict[str, Any] = {"instances": [_bag(rng) for _ in range(rng.choice((0, 1, 3)))]}
    if rng.random() < 0.4:
        raw = {"b64": rng.choice((PICTURE, "x", 1))}
        body = {"inputs": {name: [value, raw] for name, value in _bag(rng).items()}}
    if rng.random() < 0.3:
        body["context"] = _bag(rng)
    return _text(body, rng)


def _infer(rng: random.Random) -> bytes:
    tensors, binary = [], b""
    for name, value in _bag(rng).items():
        rows, kind = rng.choice((0, 1, 2)), rng.choice(TYPES)
        tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": [rows]}
        if rng.random() < 0.2:
            tensor["shape"] = rng.choice(([rows, 1], [-1], [], [1 << 40], "x", [rows, rows]))
        if rng.random() < 0.5:
            tensor["data"] = [value] * rows
        else:
            data = (b"\x01\0\0\0i" if kind == "BYTES" else b"\0" * 8) * rows
            size = len(data) if rng.random() < 0.8 else rng.choice((-1, 1 << 40, "1", None))
            tensor["parameters"] = {"binary_data_size": size}
            binary += data
        tensors.append(tensor)
    head = _text({"inputs": tensors, "id": rng.choice(("", "a", 5, None))}, rng)
    length = rng.choice((str(len(head)).encode(), b"", b"-1", "²".encode("latin-1"), b"9" * 5000))
    return length + b"\0" + head + binary


def _arrow(rng: random.Random) -> bytes:
    rows = rng.choice((0, 1, 3, 65))
    columns = {}
    for name, kind in {"item": pa.string(), "ts_ms": pa.int64(), **FEATURES}.items():
        if rng.random() < 0.4:
            odd = rng.choice((pa.int8(), pa.null(), pa.float16(), pa.list_(pa.list_(pa.int8()))))
            columns[name] = pa.nulls(rows, kind if rng.random() < 0.7 else odd)
    sink = pa.BufferOutputStream()
    table = pa.table(columns) if columns else pa.table({"item": pa.nulls(rows, pa.string())})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def request(rng: random.Random) -> bytes:
    """One that a replica takes, or nearly."""
    way = rng.randrange(len(_MADE))
    return bytes([way]) + _MADE[way](rng)


_MADE = (_rows, _rows, _instances, _infer, _arrow)


def read_requests(values: Sequence[bytes], turn: int) -> int:
    """As a replica would."""
    for value in values:
        try:
            _ask(value[0] % len(_MADE) if value else 0, value[1:])
        except BadRequest as error:
            if len(str(error).encode()) > REASON_BYTES_MAX:
                raise AssertionError("a long answer") from error
    return len(values)


def _ask(way: int, body: bytes) -> None:
    """What is answered of a request is JSON."""
    features = ENCODER.features
    if way == 0:
        items_of(body, ROWS_MAX)
        orjson.dumps(parse(body, features, ROWS_MAX, ENCODER.reads_time).ignored)
    elif way == 1:
        orjson.dumps(FEW.decode(body, ROWS_MAX).ignored)
    elif way == 2:
        asked, _ = read_predict(body, features, ROWS_MAX)
        orjson.dumps(request_of(asked, features).ignored)
    elif way == 3:
        length, _, rest = body.partition(b"\0")
        infer = read_infer(rest, length.decode("latin-1"))
        asked = given_of(infer.tensors, features, ROWS_MAX)
        orjson.dumps([request_of(asked, features).ignored, infer.id])
    else:
        asked = read_table(body, features, ROWS_MAX, BYTES_MAX)
        orjson.dumps(request_of(asked, features).ignored)
