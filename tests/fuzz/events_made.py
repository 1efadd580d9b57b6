"""Odd events, made by their structure: what is nearly right goes deeper into a decoder than what
is not."""

import json
import random
from collections.abc import Callable
from typing import Any

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
        made["features"] = {
            rng.choice((*FEATURES, "other")): odd_value(rng) for _ in range(rng.randrange(3))
        }
    return made


def envelope(whole: Any, rng: random.Random) -> dict[str, Any]:
    """CloudEvents, structured."""
    made = {"specversion": rng.choice(("1.0", "1.0", "1.0", "0.3", 1, None)), "id": "e"}
    made[rng.choice(("data", "data", "data", "data_base64", "date"))] = whole
    return made


def json_value(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.6:
        whole: Any = event(rng)
    elif kind < 0.8:
        whole = {**event(rng), "impressions": [event(rng) for _ in range(rng.randrange(5))]}
    else:
        whole = [event(rng) for _ in range(rng.randrange(4))]
    if rng.random() < 0.15:
        whole = envelope(whole, rng)
    text = json.dumps(whole, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, None, 1)))
    if rng.random() < 0.1:
        text = text.replace("{", '{"id":"twice",', 1)
    return text.encode("utf-8", "surrogatepass")


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
        one = rng.choice((PICTURE, PICTURE[:40], "x")).encode()
    if pa.types.is_list(wanted):
        one = [rng.choice(STRINGS[:3]) if wanted.value_type == pa.string() else 1] * 2
    values: list[Any] = [TS if name in ("ts_ms", "f_made") else one] * rows
    if pa.types.is_string(kind) and rng.random() < 0.2:
        values = [rng.choice([s for s in STRINGS if s.isascii()]) for _ in range(rows)]
    if rng.random() < 0.15:
        values = [None if rng.random() < 0.5 else v for v in values]
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


_HEADERS = (0,) * 60 + (1,) * 20 + (2,) * 19 + (100,)


def headers(rng: random.Random) -> tuple[tuple[str, bytes], ...]:
    names = ("control", "producer", "clock_ms", "barrier", "", "x")
    values = (b"heartbeat", b"", b"1700000000000", b"9" * 5000, b"\xff", b"-1")
    return tuple((rng.choice(names), rng.choice(values)) for _ in range(rng.choice(_HEADERS)))
