"""A record of `counts`: totals and sequences as of the end of a bucket of arrival (J2, J3, J6).

Value: Arrow IPC, one row a key whose totals, or whose clicks, are said. A bucket of many keys comes
in parts: those of totals, then those of sequences. A *quiet* record has no value: nothing was
counted up to its bucket since the last number.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stream.columns.counters import KeySequences, KeyTotals
from stream.internal_topics.malformed import HeaderFields, MalformedRecord, read_rows, shown
from stream.internal_topics.row_sizes import cuts, row_bytes
from stream.internal_topics.sequence_rows import SEQUENCE_SCHEMA, sequences_batch, sequences_of
from stream.kernels import I64
from stream.log import Headers
from stream.record import Record

COUNT_SCHEMA = pa.schema(
    [
        pa.field("counted", pa.int32(), nullable=False),  # index into the header `counted`
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("negatives", pa.float64(), nullable=False),
        pa.field("clicks", pa.float64(), nullable=False),
        pa.field("bucket", pa.int64(), nullable=False),
    ]
)
#: Of a record's bytes so many are left for headers.
HEADER_BYTES = 65_536
_TOPIC, _FORMAT = "counts", "1"
_NONE = 1 << 62


class ReadPoint(NamedTuple):
    """Where to read a partition of `examples` on from, and what stood there: the arrival up to
    which it was labelled, and the ends of its chains (-1 = none yet)."""

    offset: int
    arrival_ms: int = 0
    label: int = -1
    late: int = -1
    retract: int = -1


@dataclass(frozen=True)
class CountRecord:
    """What one bucket says, all its parts together."""

    number: int  # of buckets with anything in them: 1, 2, ...; of a quiet one the last, or 0
    bucket: int  # of arrival: [bucket * bucket_ms, (bucket + 1) * bucket_ms)
    bucket_ms: int
    slices: int
    rows: Mapping[str, KeyTotals] = field(default_factory=dict)  # by name of what is counted
    points: Mapping[int, ReadPoint] = field(default_factory=dict)  # by partition of `examples`
    quiet: bool = False
    sequences: Mapping[str, KeySequences] = field(default_factory=dict)  # by name of what is kept


@dataclass(frozen=True)
class CountPart:
    """One record of the log."""

    record: CountRecord
    part: int
    parts: int


def encode_counts(record: CountRecord, bytes_max: int) -> list[tuple[bytes, Headers]]:
    """Value and headers of each part, in order."""
    totals = totals_batch([record.rows[name] for name in sorted(record.rows)])
    values = [totals.slice(0, 0)] if record.quiet else _cut(totals, bytes_max)
    if record.sequences and not record.quiet:
        kept = sequences_batch([record.sequences[name] for name in sorted(record.sequences)])
        values = (values if record.rows else []) + _cut(kept, bytes_max)
    return [
        (b"" if record.quiet else _value(value), _headers(record, part, len(values)))
        for part, value in enumerate(values)
    ]


def _cut(batch: pa.RecordBatch, bytes_max: int) -> list[pa.RecordBatch]:
    """One at least, none with more bytes than a record may have unless it is one row."""
    sizes = row_bytes(batch.columns, batch.num_rows)
    at = cuts(sizes, batch.num_rows, max(1, bytes_max - HEADER_BYTES)) if len(sizes) else [0, 0]
    return [batch.slice(first, end - first) for first, end in pairwise(at)]


def totals_batch(rows: list[KeyTotals]) -> pa.RecordBatch:
    """Totals of several things that are counted, as COUNT_SCHEMA, by their place in the list."""
    batches = [
        pa.RecordBatch.from_arrays(
            [pa.array(column) for column in (np.full(len(one.keys), i, np.int32), *one)],
            schema=COUNT_SCHEMA,
        )
        for i, one in enumerate(rows)
    ]
    return _one_batch(pa.Table.from_batches(batches, COUNT_SCHEMA))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    arrays = [
        column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        for column in table.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=COUNT_SCHEMA)


def _value(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _headers(record: CountRecord, part: int, parts: int) -> Headers:
    points = ",".join(f"{p}={':'.join(map(str, at))}" for p, at in sorted(record.points.items()))
    numbers = {"number": record.number, "bucket": record.bucket, "bucket_ms": record.bucket_ms}
    numbers |= {"slices": record.slices, "part": part, "parts": parts}
    numbers |= {"quiet": int(record.quiet)}
    kept = (("kept", ",".join(sorted(record.sequences)).encode()),) if record.sequences else ()
    return (
        ("format", _FORMAT.encode()),
        *((name, str(value).encode()) for name, value in numbers.items()),
        ("counted", ",".join(sorted(record.rows)).encode()),
        *kept,
        ("points", points.encode()),
    )


def decode_counts(record: Record) -> CountPart:
    """Raises MalformedRecord naming what cannot be read."""
    read = HeaderFields(_TOPIC, record.headers)
    if (found := read.text("format", "")) != _FORMAT:
        read.wrong("format", f"{shown(found)}, this version reads {_FORMAT!r}")
    names, kept = (
        [name for name in read.text(header, default).split(",") if name]
        for header, default in (("counted", None), ("kept", ""))
    )
    pairs = [_point(read, part) for part in read.text("points").split(",") if part]
    points = dict(pairs)
    of_each: dict[str, list[Any]] = {
        "counted": names,
        "kept": kept,
        "points": [partition for partition, _ in pairs],
    }
    for header, said_of in of_each.items():
        if len(set(said_of)) < len(said_of):
            read.wrong(header, "one stands there twice")
    numbers = {name: read.integer(name, high=_NONE) for name in ("number", "bucket")}
    sizes = {name: read.integer(name, low=1, high=_NONE) for name in ("bucket_ms", "slices")}
    parts = read.integer("parts", low=1, high=1 << 31)
    part, quiet = read.integer("part", high=parts - 1), bool(read.integer("quiet", high=1))
    rows, clicks = {}, {}
    if not quiet:
        batch = read_rows(_TOPIC, record.value, COUNT_SCHEMA, SEQUENCE_SCHEMA)
        is_totals = batch.schema.equals(COUNT_SCHEMA)
        rows = totals_of(batch if is_totals else _no_rows(COUNT_SCHEMA), names)
        clicks = sequences_of(_no_rows(SEQUENCE_SCHEMA) if is_totals else batch, kept)
    said = CountRecord(**numbers, **sizes, rows=rows, points=points, quiet=quiet, sequences=clicks)
    return CountPart(said, part, parts)


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema)


def totals_of(batch: pa.RecordBatch, names: Sequence[str]) -> dict[str, KeyTotals]:
    """The same back, by name. Raises MalformedRecord."""
    if not batch.schema.equals(COUNT_SCHEMA):
        raise MalformedRecord(_TOPIC, "columns", f"expected {COUNT_SCHEMA.names}")
    columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
    of: I64 = columns[0].astype(np.int64)
    if batch.num_rows and not (of.min() >= 0 and of.max() < len(names)):
        raise MalformedRecord(_TOPIC, "counted", f"an index outside [0, {len(names)})")
    for name, column in zip(("negatives", "clicks"), columns[2:4], strict=True):
        if not (np.isfinite(column) & (column >= 0)).all():
            raise MalformedRecord(_TOPIC, name, "a number that is not finite, or below 0")
    if batch.num_rows and not (columns[4].min() >= 0 and columns[4].max() <= _NONE):
        raise MalformedRecord(_TOPIC, "bucket", f"a number outside [0, {_NONE}]")
    found = {}
    for i, name in enumerate(names):
        mine = KeyTotals(*(column[of == i] for column in columns[1:]))
        if not (mine.keys[1:] > mine.keys[:-1]).all():
            raise MalformedRecord(_TOPIC, "key", "keys that do not rise")
        found[name] = mine
    return found


_POINT = re.compile(r"([0-9]{1,9})=([0-9]{1,18}):([0-9]{1,18})((?::(?:-1|[0-9]{1,18})){3})")


def _point(read: HeaderFields, part: str) -> tuple[int, ReadPoint]:
    found = _POINT.fullmatch(part)
    if found is None:
        read.wrong(
            "points",
            f"{shown(part)}, expected '<partition>=<offset>:<arrival_ms>:<label>:<late>:<retract>'",
        )
    return int(found[1]), ReadPoint(
        int(found[2]), int(found[3]), *map(int, found[4][1:].split(":"))
    )
