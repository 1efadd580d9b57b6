"""One file of the archive: records of one partition of `examples`, as Parquet columns, that give
the same records back.

Rows stand as the record had them, in one more column `record` with the record's offset, so that any
engine reads them; offsets, timestamps, headers and a digest of every record stand in the file's
metadata. The bytes of a record are a function of its rows (C3), so those that come out are those
that went in, and the digest says so (I7).
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from checkpointer.store import Damaged, NewerFormat
from stream import Record
from stream.internal_topics import Again, decode_examples, encode_examples, schema_id

FORMAT = 1
RECORD = "record"  # the column with the record's offset
FORGOTTEN = "forgotten"  # the header of a record that rows were taken out of: how many (`forget`)
_METADATA = b"everspun"
_HOUR_MS = 3_600_000
#: offset, timestamp_ms, rows, digest of the value, key, a value that holds no rows, headers; bytes
#: in base64.
Listed = tuple[int, int, int, str, str | None, str | None, list[list[str]]]


@dataclass(frozen=True)
class ArchivedFile:
    """What a file says of itself. `ends`: chain -> (end, barrier) behind its last record;
    `next_offset`: where the next file begins to read."""

    partition: int
    first_offset: int
    next_offset: int
    ends: dict[str, tuple[int, int]]
    ts_ms_min: int
    ts_ms_max: int
    arrival_max_ms: int
    rows: int
    code_version: str = ""

    @property
    def path(self) -> str:
        """By event hour, as engines that know Hive's folders prune them."""
        return file_path(self.partition, self.first_offset, self.ts_ms_min)


def event_hour(ts_ms: int) -> int:
    return ts_ms // _HOUR_MS


def file_path(partition: int, first_offset: int, ts_ms: int) -> str:
    hour = str(np.datetime64(ts_ms, "ms").astype("datetime64[h]"))
    return f"date={hour[:10]}/hour={hour[11:13]}/p{partition}-{first_offset:020d}.parquet"


def encode_file(file: ArchivedFile, records: Sequence[Record]) -> bytes:
    """The file of these records, which are of one schema. Raises ValueError for rows that are
    not canonical."""
    batches, listed = [], []
    for record in records:
        rows = _decoded(record.value)
        raw = (
            base64.b64encode(record.value).decode()
            if rows is None and record.value is not None
            else None
        )
        count = rows.num_rows if rows is not None else 0
        digest = _digest(encode_examples(rows)) if rows is not None else ""
        headers = [[name, base64.b64encode(value).decode()] for name, value in record.headers]
        key = None if record.key is None else base64.b64encode(record.key).decode()
        listed.append([record.offset, record.timestamp_ms, count, digest, key, raw, headers])
        if rows is not None:
            offsets = pa.array(np.full(count, record.offset, np.int64))
            batches.append(
                rows.append_column(pa.field(RECORD, pa.int64(), nullable=False), offsets)
            )
    said = {
        "format": FORMAT,
        "partition": file.partition,
        "first_offset": file.first_offset,
        "next_offset": file.next_offset,
        "ends": file.ends,
        "ts_ms_min": file.ts_ms_min,
        "ts_ms_max": file.ts_ms_max,
        "arrival_max_ms": file.arrival_max_ms,
        "rows": file.rows,
        "code_version": file.code_version,
        "schema_id": schema_id(batches[0].schema.remove(len(batches[0].schema) - 1))
        if batches
        else "",
        "records": listed,
    }
    return _parquet(batches, said)


def _decoded(value: bytes | None) -> pa.RecordBatch | None:
    """The rows of a record; None for one without, or one that nobody can read, whose bytes are
    kept as they are."""
    try:
        return decode_examples(value) if value else None
    except (ValueError, pa.ArrowException):
        return None


def _parquet(batches: list[pa.RecordBatch], said: dict[str, object]) -> bytes:
    schema = (
        batches[0].schema if batches else pa.schema([pa.field(RECORD, pa.int64(), nullable=False)])
    )
    whole = said | {"digest": _said_digest(said)}
    schema = schema.with_metadata({_METADATA: json.dumps(whole, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        if batches:
            writer.write_table(
                pa.Table.from_batches(batches).replace_schema_metadata(schema.metadata)
            )
    return bytes(sink.getvalue())


def _digest(value: bytes) -> str:
    return hashlib.blake2b(value, digest_size=16).hexdigest()


def _said_digest(said: dict[str, object]) -> str:
    """Of all that the metadata says: headers count what rows do not."""
    body = {name: value for name, value in said.items() if name != "digest"}
    return _digest(json.dumps(body, sort_keys=True).encode())


def describe(data: bytes, path: str) -> ArchivedFile:
    """What a file says of itself, its rows unread. Raises Damaged."""
    return _described(_metadata(_open(data, path), path))


def record_headers(data: bytes, path: str) -> list[Record]:
    """The records without their values: offsets, timestamps and headers, no row decoded. Raises
    Damaged."""
    said = _metadata(_open(data, path), path)
    try:
        listed: list[Listed] = said["records"]  # type: ignore[assignment]
        return [
            Record(
                offset,
                timestamp_ms,
                None,
                None,
                tuple((name, base64.b64decode(h)) for name, h in headers),
            )
            for offset, timestamp_ms, _, _, _, _, headers in listed
        ]
    except _UNREADABLE as error:
        raise Damaged(
            f"archive {path}: its metadata cannot be read ({_first_line(error)})"
        ) from error


def decode_file(data: bytes, path: str) -> tuple[ArchivedFile, list[Record]]:
    """The records, as they stood in the topic. Raises Damaged, naming file and record."""
    parquet = _open(data, path)
    said = _metadata(parquet, path)
    try:
        table = parquet.read(use_threads=False).replace_schema_metadata(None)
        return _described(said), list(_records(said, table, path))
    except Damaged:
        raise
    except _UNREADABLE as error:
        raise Damaged(f"archive {path}: its rows cannot be read ({_first_line(error)})") from error


#: What Parquet and Arrow raise for flipped bytes, and what follows from columns that are other
#: ones.
_UNREADABLE = (
    pa.ArrowException,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    MemoryError,
    OverflowError,
    RecursionError,
)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _open(data: bytes, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(data))
    except _UNREADABLE as error:
        raise Damaged(
            f"archive {path}: not a whole Parquet file ({_first_line(error)}); delete it, and it "
            f"is archived again "
            "where the log still has its records"
        ) from error


def _metadata(parquet: pq.ParquetFile, path: str) -> dict[str, object]:
    try:
        raw = (parquet.schema_arrow.metadata or {}).get(_METADATA)
        said: dict[str, object] = json.loads(raw) if raw else {}
        broken = said.get("digest", _said_digest(said)) != _said_digest(said)
    except _UNREADABLE as error:
        raise Damaged(
            f"archive {path}: its metadata cannot be read ({_first_line(error)})"
        ) from error
    if broken:
        raise Damaged(f"archive {path}: its metadata does not read as it was written")
    check_format(path, said.get("format"))
    return said


def check_format(path: str, found: object) -> None:
    """Raises NewerFormat for a format that this version does not read."""
    if found != FORMAT:
        raise NewerFormat(
            f"archive {path}: format {found!r}, this version reads {FORMAT}; another version wrote "
            "it: start that one, or give archive.root another folder"
        )


def _described(said: dict[str, object]) -> ArchivedFile:
    names = (
        "partition",
        "first_offset",
        "next_offset",
        "ts_ms_min",
        "ts_ms_max",
        "arrival_max_ms",
        "rows",
    )
    ends: dict[str, list[int]] = said["ends"]  # type: ignore[assignment]
    return ArchivedFile(
        ends={chain: (end, barrier) for chain, (end, barrier) in ends.items()},
        code_version=str(said["code_version"]),
        **{name: int(said[name]) for name in names},  # type: ignore[call-overload]
    )


def _records(said: dict[str, object], table: pa.Table, path: str) -> Iterator[Record]:
    rows = table.drop_columns([RECORD])
    at = 0
    listed: Iterable[Listed] = said["records"]  # type: ignore[assignment]
    for offset, timestamp_ms, count, digest, key, raw, headers in listed:
        value = None if raw is None else base64.b64decode(raw)
        if count:
            value = encode_examples(_one_batch(rows.slice(at, count)))
            if _digest(value) != digest:
                raise Damaged(f"archive {path}: record {offset} does not read as it was written")
            at += count
        pairs = tuple((name, base64.b64decode(header)) for name, header in headers)
        yield Record(
            offset, timestamp_ms, None if key is None else base64.b64decode(key), value, pairs
        )


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    arrays = [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


def rows_of_sources(data: bytes, path: str, sources: Sequence[str]) -> int:
    """How many rows of these sources a file holds. Raises Damaged."""
    parquet = _open(data, path)
    _metadata(parquet, path)
    if "source" not in parquet.schema_arrow.names:
        return 0
    column = _read(parquet, path, ["source"]).column("source")
    return int(pc.sum(pc.is_in(column, value_set=pa.array(sources, pa.string()))).as_py() or 0)


def without_sources(data: bytes, path: str, sources: Sequence[str]) -> tuple[bytes, int]:
    """The file without all rows of these sources, and how many they were; 0 leaves the file as
    it is (`forget`). Every row is held against its digest before. Raises Damaged."""
    decode_file(data, path)
    parquet = _open(data, path)
    said = _metadata(parquet, path)
    table = _read(parquet, path)
    if "source" not in table.column_names:
        return data, 0
    keep = pc.invert(pc.is_in(table.column("source"), value_set=pa.array(sources, pa.string())))
    kept = table.filter(keep)
    gone = table.num_rows - kept.num_rows
    if not gone:
        return data, 0
    listed: list[Listed] = said["records"]  # type: ignore[assignment]
    offsets = np.repeat([one[0] for one in listed], [one[2] for one in listed])
    if not np.array_equal(table.column(RECORD).to_numpy(), offsets):  # no digest covers it
        raise Damaged(f"archive {path}: its column {RECORD} does not read as it was written")
    said |= {
        "records": [list(one) for one in _recounted(listed, kept, sources)],
        "rows": kept.num_rows,
    }
    left = kept.replace_schema_metadata(None)
    batches = left.combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=left.schema)
    ]
    return _parquet(batches, said), gone


def _read(parquet: pq.ParquetFile, path: str, columns: list[str] | None = None) -> pa.Table:
    """These columns, or all. Raises Damaged."""
    try:
        return parquet.read(columns=columns, use_threads=False)
    except _UNREADABLE as error:
        raise Damaged(f"archive {path}: its rows cannot be read ({_first_line(error)})") from error


def _recounted(listed: list[Listed], after: pa.Table, sources: Sequence[str]) -> Iterator[Listed]:
    """The list of records with what is left of each: rows, digest, and the headers that count
    them."""
    counts = _count_by_record(after)
    rows = after.replace_schema_metadata(None).drop_columns([RECORD])
    at = 0
    for offset, timestamp_ms, count, digest, key, raw, headers in listed:
        left = counts.get(offset, 0)
        mine = rows.slice(at, left)
        at += left
        if left != count:
            digest = _digest(encode_examples(_one_batch(mine))) if left else ""
            headers = _forgotten(
                _relabelled(headers, mine.column("label").to_numpy()), count - left
            )
        headers = [
            [name, _unnamed(value, sources) if name == "again" else value]
            for name, value in headers
        ]
        yield offset, timestamp_ms, left, digest, key, raw, headers


def _forgotten(headers: list[list[str]], rows: int) -> list[list[str]]:
    """The headers with how many rows of the record were taken out, so that a fold of row hashes
    knows (S7)."""
    before = sum(int(base64.b64decode(value)) for name, value in headers if name == FORGOTTEN)
    kept = [header for header in headers if header[0] != FORGOTTEN]
    return [*kept, [FORGOTTEN, base64.b64encode(str(before + rows).encode()).decode()]]


def _unnamed(value: str, sources: Sequence[str]) -> str:
    """The header of a retraction without the names of these sources."""
    again = Again.decode(base64.b64decode(value).decode("ascii")).without(sources)
    return base64.b64encode(again.encode().encode("ascii")).decode()


def _count_by_record(table: pa.Table) -> dict[int, int]:
    offsets, counts = np.unique(table.column(RECORD).to_numpy(), return_counts=True)
    return dict(zip(offsets.tolist(), counts.tolist(), strict=True))


def _relabelled(headers: list[list[str]], labels: npt.NDArray[np.int8]) -> list[list[str]]:
    """The headers of a record of which these labels are left."""
    counted = {"labelled": len(labels), "positives": int((labels > 0).sum())}
    left = {name: base64.b64encode(str(count).encode()).decode() for name, count in counted.items()}
    return [[name, left.get(name, raw)] for name, raw in headers]


def rewritten(
    data: bytes, path: str, change: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> tuple[bytes, int]:
    """The file with other columns in each of its records, and how many rows it has. `change`: of
    the rows of one record, as many and in the same order. Every row is read and held against its
    digest before. Raises Damaged, and what `change` raises."""
    said, (_, records) = _metadata(_open(data, path), path), decode_file(data, path)
    batches, listed = [], []
    for record, one in zip(records, said["records"], strict=True):  # type: ignore[call-overload]
        rows = decode_examples(record.value) if one[2] else None
        if rows is not None:
            rows = change(rows)
            if rows.num_rows != one[2]:
                raise ValueError(f"{rows.num_rows} rows of {one[2]}")
            name = base64.b64encode(schema_id(rows.schema).encode()).decode()
            headers = [[key, name if key == "schema_id" else value] for key, value in one[6]]
            one = [*one[:3], _digest(encode_examples(rows)), *one[4:6], headers]
            offsets = pa.array(np.full(rows.num_rows, record.offset, np.int64))
            batches.append(
                rows.append_column(pa.field(RECORD, pa.int64(), nullable=False), offsets)
            )
        listed.append(one)
    schema = batches[0].schema.remove(len(batches[0].schema) - 1) if batches else None
    said |= {"records": listed, "schema_id": schema_id(schema) if schema else said["schema_id"]}
    return _parquet(batches, {k: v for k, v in said.items() if k != "digest"}), int(said["rows"])  # type: ignore[call-overload]
