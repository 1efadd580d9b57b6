"""Odd requests to a replica, for each of its ways to be asked, and their decoders.

An input's first byte chooses the way; where that has a header that counts (the length of the JSON
before binary tensors), it stands before the body, and a zero byte behind it.
"""

import contextlib
import json
import random
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pictures_made
import pyarrow as pa
from events_made import FEATURES, PICTURE, TS, odd_feature, odd_value

from checkpointer.serving import BadRequest, of_rows
from checkpointer.serving.arrow_request import read_table, write_table
from checkpointer.serving.open_inference import (
    given_of,
    metadata,
    read_infer,
    server_metadata,
    write_infer,
)
from checkpointer.serving.request import (
    count_rows,
    items_given,
    items_of,
    parse,
    request_of,
    with_times,
)
from checkpointer.serving.request_decoder import RequestDecoder
from checkpointer.serving.tensorflow_serving import read_predict, status
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
PLAIN = ModelConfig(categorical=("source", "item", "user"), numeric=("price", "shown_at"))
PLAIN_FEATURES = Encoder(PLAIN).features
FEW = RequestDecoder(TextEncoder(Encoder(PLAIN)))
HASHED = ModelConfig(categorical=("item", "user", "shown_at"))
HASHED_PLACE = RequestDecoder(TextEncoder(Encoder(HASHED)))
ANSWER = {"probabilities": np.float32([0.5]), "model_version": "7", "ignored": ("x",), "note": None}


def _bag(rng: random.Random) -> dict[str, Any]:
    good: dict[str, Any] = {
        "item": "i",
        "ts_ms": TS,
        "tags": ["a", "b"],
        "tags_weights": [1.0, 2.0],
        "picture": [0.5, 1.0],
        "photo": PICTURE,
        "cover": PICTURE,
        "user": "ann",
        "title": "a lamp",
        "made": TS,
        "seen": [1, 2],
        "price": 1.5,
        "quality": 0.5,
        "source": "u",
        "vendor": "v",
    }
    made = {name: good.get(name, 1) for name in NAMES if rng.random() < 0.4}
    for _ in range(rng.choice((0, 0, 1, 2))):
        name = rng.choice(NAMES)
        made[name] = odd_feature(rng, name)
    return made


def _text(whole: Any, rng: random.Random) -> bytes:
    text = json.dumps(whole, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def _row(rng: random.Random) -> dict[str, Any]:
    """With its features in `features`."""
    own: dict[str, Any] = {"source": "u", "item": "i", "position": 3, "ts_ms": TS, "id": "a"}
    row = {name: own[name] for name in own if rng.random() < 0.5}
    row["features"] = {"user": "ann", "price": rng.choice((1, 1.5, None))}
    if rng.random() < 0.4:
        row["features"] = {n: v for n, v in _bag(rng).items() if n in FEATURES or n == "other"}
    for _ in range(rng.choice((0, 0, 0, 1))):
        bag = row["features"] if rng.random() < 0.7 else row
        bag[rng.choice((*NAMES, "position"))] = odd_value(rng)
    if rng.random() < 0.1:
        row["features"] = rng.choice((None, odd_value(rng), {}))
    if rng.random() < 0.1:
        row["features"] = {"price": rng.choice((1e39, 10**400, "x")), "user": rng.choice((5, "\0"))}
    return row


def _rows(rng: random.Random) -> bytes:
    many = rng.choice((0, 1, 1, 3, 3, 65))
    body: dict[str, Any] = {"rows": [_row(rng) for _ in range(many)]}
    if rng.random() < 0.1:
        body["rows"] = odd_value(rng)
    if rng.random() < 0.3:
        count = rng.choice((1, 2, 2, 65))
        good: dict[str, Any] = {"item": ["i"], "user": ["ann"], "price": [1.5], "position": [3]}
        columns = {n: v * count for n, v in good.items() if rng.random() < 0.6}
        if rng.random() < 0.5:
            columns |= {n: [odd_value(rng)] * rng.choice((1, 2)) for n in _bag(rng)}
        body = {"columns": columns if rng.random() < 0.95 else odd_value(rng)}
    if rng.random() < 0.4:
        row = _row(rng)
        body["context"] = row if "rows" in body else row.get("features", row)
    if rng.random() < 0.03:
        body["context"] = odd_value(rng)
    return _text(body if rng.random() < 0.95 else odd_value(rng), rng)


def _instances(rng: random.Random) -> bytes:
    body: dict[str, Any] = {"instances": [_bag(rng) for _ in range(rng.choice((0, 1, 3)))]}
    if rng.random() < 0.4:
        raw = {"b64": rng.choice((PICTURE, "x", 1, "YQ==", "/w=="))}
        body = {"inputs": {name: [value, raw] for name, value in _bag(rng).items()}}
    if rng.random() < 0.1:
        body = {
            rng.choice(("instances", "inputs")): rng.choice((odd_value(rng), [{"user": ["a"]}]))
        }
    if rng.random() < 0.05:
        body["instances"] = [{}] * 65
    if rng.random() < 0.3:
        body["context"] = rng.choice((_bag(rng), {"item": {"b64": "YQ=="}}, 5))
    return _text(body, rng)


#: Of each type a value, as JSON and as bytes.
_TYPED: dict[str, tuple[Any, bytes]] = {
    "BYTES": ("i", b"\x01\0\0\0i"),
    "INT32": (3, b"\3\0\0\0"),
    "FP32": (1.5, b"\0\0\xc0\x3f"),
    "FP64": (1.5, b"\0\0\0\0\0\0\xf8\x7f"),
}
_ODD_BYTES = (b"\x01\0", b"\xff\xff\0\0i", b"\x01\0\0\0\xff", b"\0" * 3)


def _infer(rng: random.Random) -> bytes:
    tensors, binary, rows = [], b"", rng.choice((1, 1, 2, 2, 65))
    for name, value in _bag(rng).items():
        many = rows if rng.random() < 0.8 else 1
        kind = rng.choice((*_TYPED, "BYTES")) if rng.random() < 0.8 else rng.choice(TYPES)
        good, raw = _TYPED.get(kind, (value, b"\0" * 8))
        tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": [many]}
        if rng.random() < 0.1:
            tensor["shape"] = rng.choice(([many, 1], [-1], [], [1 << 40], "x", [many, many]))
        if rng.random() < 0.5:
            tensor["data"] = [rng.choice((good, good, value, [good]))] * many
        else:
            data = raw * many if rng.random() < 0.9 else rng.choice(_ODD_BYTES)
            size = len(data) if rng.random() < 0.9 else rng.choice((-1, 1 << 40, "1", None))
            tensor["parameters"] = {"binary_data_size": size}
            binary += data
        tensors.append(tensor if rng.random() < 0.97 else rng.choice((5, {}, tensor | {"name": 5})))
    asked: dict[str, Any] = {"inputs": tensors, "id": rng.choice(("", "a", 5, None))}
    if rng.random() < 0.3:
        output = {"name": rng.choice(("probability", "probability", "x"))}
        output |= {"parameters": {"binary_data": rng.choice((True, False))}}
        asked["outputs"] = [output] * rng.choice((0, 1, 1, 2))
    if rng.random() < 0.3:
        asked["parameters"] = {"binary_data_output": rng.choice((True, 0))}
    head = _text(asked, rng)
    length = str(len(head)).encode() if rng.random() < 0.9 else rng.choice(_LENGTHS)
    if not binary and rng.random() < 0.5:
        length = b""
    return length + b"\0" + head + binary + (b"x" if rng.random() < 0.03 else b"")


_LENGTHS = (b"", b"-1", "²".encode("latin-1"), b"9" * 5_000, b"99999")


_ARROW_TYPES = (
    pa.int8,
    pa.null,
    pa.float16,
    pa.bool_,
    lambda: pa.list_(pa.list_(pa.int8())),
    lambda: pa.list_(pa.dictionary(pa.int8(), pa.string())),
)


def _arrow(rng: random.Random) -> bytes:
    rows = rng.choice((0, 1, 3, 65))
    columns = {}
    for name, kind in {"item": pa.string(), "ts_ms": pa.int64(), **FEATURES}.items():
        if rng.random() < 0.4:
            one = pa.nulls(rows, kind if rng.random() < 0.8 else rng.choice(_ARROW_TYPES)())
            if pa.types.is_string(kind) and rng.random() < 0.6:
                text = "a" if rng.random() < 0.95 else "x" * 20_000
                one = pa.array([text] * rows)
                one = one.dictionary_encode() if rng.random() < 0.3 else one
            columns[name] = one
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


def _odd_bags() -> list[dict[str, Any]]:
    """Each with one feature that is wrong by itself."""
    values = (5, "text", True, 1e39, 10**400, "\ud800", "x" * 1_025, [None], [5], ["a"], [1e39], {})
    bags = [{name: value} for name in (*FEATURES, "position", "ts_ms", "item") for value in values]
    more = {"tags": ["a"] * 1_025, "tags_weights": [1.0], "seen": [2**63], "picture": [1.0]}
    return bags + [{name: value} for name, value in more.items()]


def large_requests() -> list[bytes]:
    """Bodies that are looked through before they are read, and pictures that are too many."""
    padding = b" " * (1 << 20)
    photos = [{"features": {"photo": b64encode(one).decode()}} for one in pictures_made.files()]
    heavy = {"rows": [photos[at] for at in (18, 19, 20, 21, 22)]}
    large = [
        b'{"rows": [' + b"{}," * 9_000 + b"{}]}" + padding,
        b'{"rows": ' + b"[" * 40 + b"]" * 40 + b"}" + padding,
        b'{"rows": [NaN]}' + padding,
    ]
    bodies = [
        b'{"rows": [' + b"{}," * 70 + b"{}]}",
        b'{"rows": [' + b'{"item": 5},' * 70 + b"{}]}",
        b'{"columns": {"item": [' + b"null," * 70 + b"null]}}",
        b'{"columns": {"item": [' + b"5," * 70 + b"5]}}",
        json.dumps(heavy).encode(),
        *(json.dumps({"rows": [{"features": one}]}).encode() for one in _odd_bags()),
        *(
            json.dumps({"columns": {n: [v] for n, v in one.items()}}).encode()
            for one in _odd_bags()
        ),
        *(json.dumps({"rows": [one]}).encode() for one in photos),
    ]
    text = {"name": "item", "datatype": "BYTES", "shape": [1]}
    size = {"parameters": {"binary_data_size": 3}}
    infers = [
        ([], b""),
        ([text | {"data": ["a"]}] * 2, b""),
        ([text | size], b"\1\0\0"),
        ([text | size], b"abc"),
        ([text | {"parameters": {"binary_data_size": 5}}], b"\x09\0\0\0a"),
        ([text | {"parameters": {"binary_data_size": 5}}], b"\x01\0\0\0\xff"),
        ([{"name": "price", "datatype": "FP32", "shape": [1]} | size], b"abc"),
    ]
    heads = [(json.dumps({"inputs": tensors}).encode(), more) for tensors, more in infers]
    bodies_3 = [b"\3%d\0" % len(head) + head + more for head, more in heads]
    return (
        bodies_3
        + [b"\0" + one for one in large]
        + [bytes([way]) + one for way in (0, 1) for one in bodies]
    )


def read_requests(values: Sequence[bytes], turn: int) -> int:
    """As a replica would."""
    for value in values:
        try:
            _ask(value[0] % len(_MADE) if value else 0, value[1:])
        except BadRequest as error:
            if len(str(error).encode()) > REASON_BYTES_MAX:
                raise AssertionError("a long answer") from error
    return len(values)


def _ask_again(body: bytes) -> None:
    """As rows that came without JSON, and of a model of strings and numbers alone."""
    with contextlib.suppress(ValueError):  # BadRequest, and what is no JSON
        asked = orjson.loads(body)
        rows = asked.get("rows") if isinstance(asked, dict) else None
        if isinstance(rows, list):
            of_rows([row for row in rows if isinstance(row, dict)], PLAIN_FEATURES)
    for timed in (False, True):
        with contextlib.suppress(BadRequest):
            parse(body, PLAIN_FEATURES, ROWS_MAX, timed)


def _ask(way: int, body: bytes) -> None:
    """What is answered of a request is JSON, or a table."""
    features = ENCODER.features
    if way == 0:
        items_of(body, ROWS_MAX)
        parsed = parse(body, features, ROWS_MAX, ENCODER.reads_time)
        with_times(parsed.columns, TS)
        orjson.dumps(parsed.ignored)
    elif way == 1:
        _ask_again(body)
        orjson.dumps(HASHED_PLACE.decode(body, ROWS_MAX).ignored)
        orjson.dumps(FEW.decode(body, ROWS_MAX).ignored)
        count_rows(body, ROWS_MAX)
    elif way == 2:
        asked, _ = read_predict(body, features, ROWS_MAX)
        assert len(items_given(asked, features)) == asked.rows
        orjson.dumps(request_of(asked, features).ignored)
        orjson.dumps([status(""), status("7")])
        few = read_predict(body, PLAIN_FEATURES, ROWS_MAX)[0]
        orjson.dumps(FEW.of_given(few).ignored)
    elif way == 3:
        length, _, rest = body.partition(b"\0")
        infer = read_infer(rest, length.decode("latin-1"))
        write_infer("m", infer, ANSWER)
        orjson.dumps([server_metadata(), metadata("m", [infer.id], features)])
        asked = given_of(infer.tensors, features, ROWS_MAX)
        orjson.dumps([request_of(asked, features).ignored, infer.id])
    else:
        asked = read_table(body, features, ROWS_MAX, BYTES_MAX)
        write_table(ANSWER)
        orjson.dumps(request_of(asked, features).ignored)
