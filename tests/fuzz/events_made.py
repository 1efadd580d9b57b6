"""Odd events, made by their structure: what is nearly right goes deeper into a decoder than what
is not."""

import json
import random
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import pictures_made
import pyarrow as pa

TS = 1_700_000_000_000
FIELDS = (
    "id",
    "ts_ms",
    "session",
    "source",
    "vendor",
    "item",
    "position",
    "prediction",
    "model_version",
)
#: Declared features, as Arrow IPC gives them.
FEATURES = {
    "user": pa.string(),
    "price": pa.float64(),
    "tags": pa.list_(pa.string()),
    "tags_weights": pa.list_(pa.float64()),
    "seen": pa.list_(pa.int64()),
    "title": pa.string(),
    "made": pa.int64(),
    "picture": pa.list_(pa.float64()),
    "shelf": pa.int64(),
    "quality": pa.float64(),
    "photo": pa.binary(),
    "cover": pa.binary(),
    "thumb": pa.string(),
    "name": pa.string(),
}
#: The smallest PNG, of one pixel.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
STRINGS = (
    "",
    "i",
    "s",
    "\ud800",
    "a\udfffb",
    "\0",
    "\U0001f600",
    "x" * 1024,
    "x" * 1025,
    "é",
    "e\u0301",
)
NUMBERS = (
    0,
    1,
    -1,
    0.5,
    2**31 - 1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    10**30,
    10**400,
    1e39,
    float("nan"),
    float("inf"),
    TS,
    1e308,
)


_DIGEST = "0123456789abcdef" * 4


def odd_feature(rng: random.Random, name: str) -> Any:
    """A value of a feature that its kind takes, or nearly; often any other."""
    if rng.random() < 0.4:
        return odd_value(rng)
    if name in ("photo", "cover"):
        return pictures_made.given(rng).decode("latin-1")
    if name == "thumb":
        return rng.choice((_DIGEST, _DIGEST[1:], _DIGEST + "\n", ""))
    wanted = FEATURES.get(name, pa.string())
    if pa.types.is_list(wanted):
        one = "a" if wanted.value_type == pa.string() else 1
        return [one] * rng.choice((0, 1, 2, 2, 2, 1_025))
    if pa.types.is_string(wanted):
        return rng.choice(STRINGS)
    return rng.choice((TS, 1, 1.5))


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(STRINGS)
    if kind < 5:
        return rng.choice(NUMBERS)
    if kind == 5 or depth > 3:
        return rng.choice((None, True, False))
    if kind == 6:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {
        rng.choice((*FIELDS, "a", "\ud800")): odd_value(rng, depth + 1)
        for _ in range(rng.randrange(4))
    }


def event(rng: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": "i",
        "ts_ms": TS,
        "session": "s",
        "source": "u",
        "vendor": "v",
        "item": "x",
    }
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        made[rng.choice((*FIELDS, "features", "impressions", "junk", "\udfff"))] = odd_value(rng)
    if rng.random() < 0.3:
        names = rng.choices((*FEATURES, "other"), k=rng.randrange(6))
        made["features"] = {name: odd_feature(rng, name) for name in names}
    return made


def envelope(whole: Any, rng: random.Random) -> dict[str, Any]:
    """CloudEvents, structured."""
    made = {"specversion": rng.choice(("1.0", "1.0", "1.0", "0.3", 1, None)), "id": "e"}
    for name in rng.choice(
        (("data",), ("data",), ("data_base64",), ("date",), ("data", "data_base64"))
    ):
        made[name] = whole
    if rng.random() < 0.1:
        made |= {"data_base64": None}
    return made


#: What stands in an envelope's text for what it holds once.
_AGAIN = (
    b'"data":1,"data"', b'"d\\u0061ta"', b'"specversion":"1.0","data"',
    b'"data_base64":"","data_base64":"","data"',
)  # fmt: skip


def json_value(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        whole: Any = event(rng)
    elif kind < 0.8:
        whole = {**event(rng), "impressions": [event(rng) for _ in range(rng.randrange(5))]}
    else:
        whole = [event(rng) for _ in range(rng.randrange(4))]
    is_wrapped = rng.random() < 0.15
    if is_wrapped:
        whole = envelope(whole, rng)
        if rng.random() < 0.3:
            whole = [whole, *rng.choice(([], [envelope(event(rng), rng)], [event(rng)], [5]))]
    text = json.dumps(whole, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)))
    if rng.random() < 0.1:
        text = text.replace("{", '{"id":"twice",', 1)
    value = text.encode("utf-8", "surrogatepass")
    if is_wrapped and rng.random() < 0.3:
        value = value.replace(b'"data"', rng.choice(_AGAIN), 1)
    if rng.random() < 0.02:
        value = rng.choice(
            (value.decode("utf-8", "replace").encode("utf-16"), b"\xef\xbb\xbf" + value)
        )
    return value


def long_values() -> list[bytes]:
    """What is above one of the limits, or nearly: each costs too much to be changed and read again
    and again."""
    good = b'{"id":"i","ts_ms":1700000000000,"session":"s","source":"u","vendor":"v","item":"x"'
    page = good + b',"impressions":['
    features = good.replace(b"{", b'{"features":{"title":"' + b"x" * 16_000 + b'"},', 1)
    photos = [
        json.dumps({"id": f"p{i}", "item": "x", "features": {"photo": b64encode(file).decode()}})
        for i, file in enumerate(pictures_made.files())
    ]
    odd = (
        "\ud800",
        5,
        [],
        [None],
        ["a"] * 1_025,
        [1.0] * 1_025,
        [2**63],
        2**63,
        [1.0],
        1e39,
        {},
        "",
    )
    bags = [json.dumps({name: one}).encode() for name in FEATURES for one in odd]
    bags.append(b'{"tags":["a"],"tags_weights":[1,2]}')
    return [
        *(good + b',"features":' + bag + b"}" for bag in bags),
        *(good.replace(b'"s"', session) + b"}" for session in (b'"other"', b'"q"', b'""', b"null")),
        b'[{"specversion":"1.0","data":{}},5]',
        b'[{"specversion":"1.0","data":{}},{"specversion":"1.0"}',
        b'{"specversion":"1.0","data":{},"data_base64":""}',
        b'{"specversion":"1.0","data_base64":""}',
        good + b',"x":"' + b"x" * 600_000 + b'"}',
        good + b',"x":"' + b"x" * 270_000 + b'"',
        good + b',"features":{"photo":"' + b"A" * 349_600 + b'"}}',
        b"[" + b"{}," * 9_000 + b"{}]",
        b'[{"specversion":"1.0","data":{}}' + b",{}" * 9_000 + b"]",
        good + b',"x":' + b"[" * 40 + b"]" * 40 + b"}",
        good + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        features + b',"impressions":[' + b'{"id":"a","item":"b"},' * 2_000 + b"{}]}",
        page + b'{"id":"a","item":"b"},' * 150 + b'{"id":"a","item":7}]}',
        page + ",".join(photos).encode() + b"]}",
        page + b",".join(photos[i].encode() for i in (18, 19, 20, 21, 22)) + b"]}",
        good + b',"position":' + b"9" * 5_000 + b"}",
        good + b',"x":' + b"9" * 5_000 + b',"junk":"\\ud800"}',
    ]


_TYPES: tuple[Callable[[], pa.DataType], ...] = (
    pa.string,
    pa.large_string,
    pa.string_view,
    pa.binary,
    pa.int64,
    pa.int8,
    pa.uint64,
    pa.float64,
    pa.float32,
    pa.float16,
    pa.null,
    pa.bool_,
    pa.date32,
    lambda: pa.timestamp("ms"),
    lambda: pa.timestamp("s", "Mars/Olympus"),
    lambda: pa.list_(pa.int64()),
    lambda: pa.large_list(pa.string()),
    lambda: pa.list_(pa.dictionary(pa.int8(), pa.string())),
    pa.large_binary,
    pa.binary_view,
    lambda: pa.struct([("a", pa.string())]),
    lambda: pa.duration("s"),
    lambda: pa.decimal128(38),
)
_ARROW_FIELDS = (*FIELDS, *(f"f_{name}" for name in FEATURES), "junk", "f_other", "features")


def _column(rng: random.Random, name: str, rows: int) -> pa.Array:
    numbers = {"ts_ms": pa.int64(), "position": pa.int64(), "prediction": pa.float64()}
    wanted = (numbers | {f"f_{n}": t for n, t in FEATURES.items()}).get(name, pa.string())
    kind = wanted if rng.random() < 0.8 else rng.choice(_TYPES)()
    one: Any = rng.choice(("s", "i")) if wanted == pa.string() else 1
    if wanted == pa.binary():
        one = rng.choice((PICTURE.encode(), b"x", pictures_made.given(rng)))
    if pa.types.is_list(wanted):
        one = [rng.choice(STRINGS[:3]) if wanted.value_type == pa.string() else 1] * 2
    values: list[Any] = [TS if name in ("ts_ms", "f_made") else one] * rows
    if pa.types.is_string(kind) and rng.random() < 0.2:
        values = [rng.choice([s for s in STRINGS if s.isascii()]) for _ in range(rows)]
    if rng.random() < 0.15:
        values = [None if rng.random() < 0.5 else v for v in values]
    if pa.types.is_list(kind) and pa.types.is_dictionary(kind.value_type):
        ends = pa.array(np.arange(rows + 1), pa.int32())
        return pa.ListArray.from_arrays(ends, pa.array(["a"] * rows).dictionary_encode())
    try:
        column = pa.array(values, wanted).cast(kind)
    except (pa.ArrowException, OSError):
        column = pa.nulls(rows, kind)
    if rng.random() < 0.15 and not pa.types.is_nested(kind) and not pa.types.is_null(kind):
        try:
            column = column.dictionary_encode()
        except pa.ArrowException:
            return column
    return column


def arrow_value(rng: random.Random) -> bytes:
    rows = rng.choice((0, 1, 2, 7, 100))
    names = [name for name in _ARROW_FIELDS if rng.random() < (0.95 if name in FIELDS[:6] else 0.3)]
    if rng.random() < 0.05 and names:
        names.append(rng.choice(names))
    batch = pa.RecordBatch.from_arrays([_column(rng, name, rows) for name in names], names=names)
    if rng.random() < 0.1:
        batch = batch.replace_schema_metadata({"pandas": "{" * 100, "x": "y"})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, None, "zstd", "lz4")))
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        for _ in range(rng.choice((0, 1, 1, 1, 3))):
            writer.write_batch(batch)
    value = bytes(sink.getvalue())
    return value if rng.random() < 0.9 else value + value[: rng.randrange(len(value))]


def _stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    packed = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(sink, batches[0].schema, options=packed) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def large_streams() -> list[bytes]:
    """Streams that claim more than they hold, or hold it many times over."""

    def rows_of(rows: int, **changed: pa.Array) -> pa.RecordBatch:
        texts = pa.array(["s"]).dictionary_encode().take(pa.array(np.zeros(rows, np.int64)))
        columns = dict.fromkeys(("id", "session", "source", "vendor", "item"), texts)
        made = columns | {"ts_ms": pa.array(np.full(rows, TS))} | changed
        return pa.record_batch(list(made.values()), names=list(made))

    one, long = rows_of(1), pa.array(["x" * 20_000]).dictionary_encode()
    many = long.take(pa.array(np.zeros(300, np.int64)))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(301), pa.int32()), many)
    words = pa.array(["a", "b"]).dictionary_encode()
    few = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), words)
    both = {"f_title": pa.array(["a", None]), "f_name": pa.array(["b", "c"])}
    empty = _stream(one)
    schema_bytes = 8 + int.from_bytes(empty[4:8], "little")
    return [
        _stream(*[one] * 300),
        _stream(pa.record_batch([pa.nulls((1 << 20) + 1)], ["id"])),
        _stream(rows_of(2, **both)),
        _stream(rows_of(2, f_name=both["f_name"])),
        _stream(rows_of(300, f_title=many)),
        _stream(rows_of(300, f_title=many.dictionary.take(many.indices).cast(pa.string_view()))),
        _stream(rows_of(300, f_tags=lists)),
        _stream(rows_of(2, f_title=pa.array(["a", "b"]).dictionary_encode(), f_tags=few)),
        _stream(rows_of(2, f_title=pa.array(["a", "b"]).dictionary_encode(), f_price=pa.nulls(2))),
        _stream(rows_of(1, f_title=pa.array(["x" * 5_000_000])), compression="zstd"),
        _stream(rows_of(200, f_title=pa.array(["x" * 2_000] * 200))),
        _stream(rows_of(5, f_shelf=pa.array([2**64 - 1] * 5, pa.uint64()))),
        _stream(one, metadata_version=pa.ipc.MetadataVersion.V4),
        empty[:schema_bytes],
    ]


_HEADERS = (0,) * 60 + (1,) * 20 + (2,) * 19 + (100,)


def headers(rng: random.Random) -> tuple[tuple[str, bytes], ...]:
    names = ("control", "producer", "clock_ms", "barrier", "", "x")
    values = (b"heartbeat", b"", b"1700000000000", b"9" * 5000, b"\xff", b"-1")
    return tuple((rng.choice(names), rng.choice(values)) for _ in range(rng.choice(_HEADERS)))
