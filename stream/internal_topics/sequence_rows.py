"""Sequences as rows of a record of `counts`, or of a file (J3, J6)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns import STRING_BYTES_MAX
from stream.columns.counters import KeySequences, no_sequences
from stream.internal_topics.malformed import MalformedRecord
from stream.kernels import I64

SEQUENCE_SCHEMA = pa.schema(
    [
        pa.field("kept", pa.int32(), nullable=False),  # index into the header `kept`
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("bucket", pa.int64(), nullable=False),
        # of the clicks, newest first: when, and the value of each
        pa.field("times", pa.list_(pa.int64()), nullable=False),
        pa.field("values", pa.list_(pa.string()), nullable=False),
    ]
)
_TOPIC, _NONE = "counts", 1 << 62


def sequences_batch(rows: list[KeySequences]) -> pa.RecordBatch:
    """Several things that are kept, as SEQUENCE_SCHEMA, by their place in the list."""
    batches = [_batch(i, one) for i, one in enumerate(rows)] or [_batch(0, no_sequences())]
    table = pa.Table.from_batches(batches, SEQUENCE_SCHEMA).combine_chunks()
    found = table.to_batches()
    return found[0] if found else pa.RecordBatch.from_pylist([], SEQUENCE_SCHEMA)


def _batch(at: int, one: KeySequences) -> pa.RecordBatch:
    ends = pa.array(one.ends.astype(np.int32))
    columns = [
        pa.array(np.full(len(one.keys), at, np.int32)),
        pa.array(one.keys),
        pa.array(one.bucket),
        pa.ListArray.from_arrays(ends, pa.array(one.times)),
        pa.ListArray.from_arrays(ends, one.values),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SEQUENCE_SCHEMA)


def sequences_of(batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, KeySequences]:
    """The same back, by name. Raises MalformedRecord."""
    if not batch.schema.equals(SEQUENCE_SCHEMA):
        raise MalformedRecord(_TOPIC, "columns", f"expected {SEQUENCE_SCHEMA.names}")
    of, keys, bucket = (column.to_numpy() for column in batch.columns[:3])
    times, values = batch.columns[3:]
    ends = _ends(times)
    if batch.num_rows and not (of.min() >= 0 and of.max() < len(names)):
        raise MalformedRecord(_TOPIC, "kept", f"an index outside [0, {len(names)})")
    if batch.num_rows and not (bucket.min() >= 0 and bucket.max() <= _NONE):
        raise MalformedRecord(_TOPIC, "bucket", f"a number outside [0, {_NONE}]")
    if not np.array_equal(ends, _ends(values)):
        raise MalformedRecord(_TOPIC, "values", "not as many as times")
    flat_times, flat = times.flatten(), values.flatten()
    if flat_times.null_count or flat.null_count:
        raise MalformedRecord(_TOPIC, "values", "nulls, allowed are none")
    clicked = flat_times.to_numpy()
    if len(clicked) and not (clicked.min() >= 0 and clicked.max() <= _NONE):
        raise MalformedRecord(_TOPIC, "times", f"a number outside [0, {_NONE}]")
    if len(clicked) and pc.max(pc.binary_length(flat)).as_py() > STRING_BYTES_MAX:
        raise MalformedRecord(_TOPIC, "values", f"one of more than {STRING_BYTES_MAX} bytes")
    whole = KeySequences(keys, bucket, ends, clicked, flat)
    found = {}
    for i, name in enumerate(names):
        mine = whole.take(of == i)
        if not (mine.keys[1:] > mine.keys[:-1]).all():
            raise MalformedRecord(_TOPIC, "key", "keys that do not rise")
        found[name] = mine
    return found


def _ends(lists: pa.ListArray) -> I64:
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return np.append(0, np.cumsum(lengths)).astype(np.int64)
