"""Records of `examples`, of `counts` and of a catalogue for the fuzzer: right ones, and ones with a
column, a header or an attribute that is not.
"""

import json
import random
from typing import Any

import numpy as np
import pyarrow as pa
from events_made import odd_value

from stream import Record
from stream.columns import Feature
from stream.columns.counters import KeySequences, KeyTotals
from stream.decoding.catalogues import CatalogueColumns, RowReader
from stream.internal_topics import (
    Again,
    BatchHeader,
    CountRecord,
    ReadPoint,
    encode_counts,
    encode_examples,
    examples_schema,
)
from stream.log import Headers

DECLARED = {
    "title": Feature(kind="text", catalogue="items", alias="name"),
    "genres": Feature(kind="list", weighted=True, catalogue="items"),
    "year": Feature(kind="numeric", catalogue="items"),
    "shelf": Feature(type="integer", catalogue="items"),
    "taste": Feature(kind="vector", width=2, catalogue="items"),
    "made": Feature(kind="time", catalogue="items"),
    "photo": Feature(kind="image", store="/none", catalogue="items"),
}
ROWS: RowReader = CatalogueColumns(DECLARED, 10_000, 500).readers["items"]
_NUMBERS = (0, 1, -1, 2**31, 2**62, 2**63 - 1)
_FEATURES = (
    pa.field("f_user", pa.string(), nullable=False),
    pa.field("f_tags", pa.list_(pa.string()), nullable=False),
    pa.field("f_picture", pa.list_(pa.float32()), nullable=False),
    pa.field("f_photo", pa.binary(), nullable=False),
)
_OTHERS = (pa.int64(), pa.float64(), pa.large_string(), pa.list_(pa.int64()), pa.null())


def row(rng: random.Random) -> tuple[Headers, bytes]:
    """Of a catalogue."""
    good = {"title": "t", "genres": ["a", "b"], "genres_weights": [1, 2], "year": 1.5, "shelf": 3}
    good |= {"taste": [1, 2.5], "made": 1_700_000_000_000, "photo": "0" * 64, "other": {"a": [{}]}}
    said: Any = {name: good[name] for name in good if rng.random() < 0.6}
    for _ in range(rng.choice((0, 0, 1, 2))):
        said[rng.choice((*good, "name"))] = odd_value(rng)
    if rng.random() < 0.05:
        said = odd_value(rng)
    text = json.dumps(said)
    if rng.random() < 0.1:
        name = rng.choice(("year", "name", "other"))
        text = text.replace("{", f'{{"{name}":1,', 1)
    return (), text.encode()


def read_row(record: Record) -> None:
    """As whoever holds a catalogue reads one; by the key of the record, of bytes of its value, and
    of none."""
    keys = (record.key, (record.value or b"")[:2_000], None, b"\0heartbeat")
    key = keys[len(record.headers) % len(keys)]
    value = record.value if len(record.value or b"") % 7 else record.value or None
    fault = 3 if len(record.value or b"") % 97 == 1 else 0
    found = ROWS.read(Record(record.offset, record.timestamp_ms, key, value, record.headers, fault))
    if found is not None:
        assert len(ROWS.attributes(found.value)) == len(DECLARED) + 1


def examples(rng: random.Random) -> tuple[Headers, bytes]:
    """A batch, with headers that may say another."""
    schema = pa.schema([*examples_schema(()), *_FEATURES[: rng.randrange(5)]])
    rows = rng.choice((0, 1, 1, 3))
    columns = [_column(field, rows, rng) for field in schema]
    batch = pa.record_batch(columns, schema=schema)
    header = BatchHeader(
        rng.choice(("label/0", "late/0", "retract/0")),
        rng.randrange(3) << 20,
        rng.randrange(3, 6) << 20,
        "s",
        "c",
        watermarks=rng.choice(({}, {"impressions/0": 5, "clicks/0": 7}, {"a": 5, "b": 0})),
        topic_ids=rng.choice(({}, {"impressions": "x"})),
        again=rng.choice(("", Again({"source": ["u"]}, [3]).encode())),
        late_micro=rng.randrange(2),
    )
    value = _odd_batch(batch, rng) if rng.random() < 0.5 else encode_examples(batch)
    return header.to_headers(), value


def _column(field: pa.Field, rows: int, rng: random.Random) -> pa.Array:
    if pa.types.is_list(field.type):
        one: Any = ["a"] if pa.types.is_string(field.type.value_type) else [1.5, float("nan")]
    elif pa.types.is_string(field.type) or pa.types.is_binary(field.type):
        one = rng.choice(("", "a")).encode()
    else:
        return pa.array(np.arange(rows) - rng.randrange(2), field.type)
    return pa.array([one] * rows, field.type)


def _odd_batch(batch: pa.RecordBatch, rng: random.Random) -> bytes:
    """With a column that is another, lacks, is there twice, holds nulls, or is a dictionary."""
    arrays, names = list(batch.columns), list(batch.schema.names)
    at, kind = rng.randrange(len(names)), rng.randrange(6)
    if kind == 0:
        arrays[at] = pa.nulls(len(arrays[at]), rng.choice(_OTHERS))
    elif kind == 1:
        del arrays[at], names[at]
    elif kind == 2:
        arrays, names = [*arrays, arrays[at]], [*names, names[at]]
    elif kind == 3:
        arrays[at] = pa.nulls(len(arrays[at]), arrays[at].type)
    elif not pa.types.is_list(arrays[at].type):
        arrays[at] = arrays[at].dictionary_encode()
    made = pa.RecordBatch.from_arrays(arrays, names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        for _ in range(rng.choice((1, 1, 1, 0, 2))):
            writer.write_batch(made)
    return bytes(sink.getvalue())


def counts(rng: random.Random) -> tuple[Headers, bytes]:
    """A part of a bucket's totals or sequences."""
    rows = {name: _totals(rng) for name in ("item/1", "vendor/2")[: rng.randrange(3)]}
    kept = {name: _sequences(rng) for name in ("user/item/2/3",)[: rng.randrange(2)]}
    points = {p: ReadPoint(p, 5, -1, 7, 0) for p in range(rng.randrange(3))}
    quiet = rng.random() < 0.1
    said = CountRecord(1, rng.randrange(9), 60_000, 1_024, rows, points, quiet, kept)
    value, headers = rng.choice(encode_counts(said, rng.choice((1, 1 << 20))))
    odd = (b"", b"x", b"item/1,item/1", b"0=1:2:-1:-1:-1,0=1:2:-1:-1:-1", b"0=x", b"9" * 18, b"-1")
    if rng.random() < 0.4:
        at = rng.randrange(len(headers))
        headers = (*headers[:at], (headers[at][0], rng.choice(odd)), *headers[at + 1 :])
    return headers, value


def _totals(rng: random.Random) -> KeyTotals:
    rows = rng.randrange(3)
    keys = np.arange(1, rows + 1, dtype=np.uint64)[:: rng.choice((1, 1, 1, -1))]
    odd = float(rng.choice((1, 1, 1, -1, float("nan"), float("inf"))))
    bucket = np.full(rows, rng.choice((5, 5, 5, -1, 2**63 - 1)), np.int64)
    return KeyTotals(keys, np.full(rows, odd), np.ones(rows), bucket)


def _sequences(rng: random.Random) -> KeySequences:
    rows = rng.randrange(3)
    keys = np.arange(1, rows + 1, dtype=np.uint64)[:: rng.choice((1, 1, 1, -1))]
    text = rng.choice(("a", "a", "x" * 1_025, None))
    times = np.full(2 * rows, rng.choice((5, 5, 5, -1)), np.int64)
    bucket = np.full(rows, rng.choice((5, 5, 5, -1)), np.int64)
    values = pa.array([text] * 2 * rows, pa.string())
    return KeySequences(keys, bucket, np.arange(0, 2 * rows + 1, 2), times, values)
