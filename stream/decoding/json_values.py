"""JSON values of many records read into flat columns.

Each value is framed first (`frames`), so that many are parsed as one text and none can swallow or
shift another. Where a parse fails, the parser says at which line; that record is parsed alone, and
what stands before and behind it together. So many bad records cost about one parse more than none.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from stream.columns import Fault, fault
from stream.config import StreamConfig
from stream.decoding.event_faults import Bad
from stream.decoding.json_frames import Lines, count_objects, frame
from stream.decoding.record_faults import explain_json
from stream.decoding.schema import Rows, Shape, expansion, flatten_json, rows_at_most
from stream.kernels import I64
from stream.log import RecordColumns
from stream.record import ROWS_PER_RECORD_MAX, Record

#: Where the parser says which line it stopped at.
_LINE = re.compile(r" in row (\d+)$")
#: An object takes two bytes of text, and a comma behind it.
_OBJECT_BYTES_MIN = 3
#: An event takes `{"id":"","ts_ms":0}` at least: of more objects than that some are none. A parse
#: takes a microsecond for each, so that a few are not counted.
_EVENT_BYTES_MIN, _OBJECTS_FREE = 20, 1 << 13


def read_json(
    records: RecordColumns,
    indices: I64,
    shape: Shape,
    partition: int,
    config: StreamConfig,
    bad: Bad,
) -> list[Rows]:
    """Rows of the records of these indices; the unreadable ones are added to `bad`."""
    if not len(indices):
        return []
    indices = _not_too_many(records, indices, shape, config, bad)
    entries = records.entries[indices]
    lines = frame(
        records.data, entries["value"].astype(np.int64), entries["value_bytes"].astype(np.int64)
    )
    is_click = not shape.is_impression
    for i in np.flatnonzero(lines.objects < 0).tolist():
        bad[int(indices[i])] = _reason("", is_click, partition, config)
    parts = []
    for parsed in _parse(lines, shape):
        if parsed.table is None:
            bad[int(indices[parsed.start])] = _reason(parsed.said, is_click, partition, config)
            continue
        objects = np.maximum(lines.objects[parsed.start : parsed.end], 0)
        of_object = np.repeat(indices[parsed.start : parsed.end], objects)
        table, of_object = without_large(parsed.table, of_object, shape, config, bad)
        columns, object_of_row = flatten_json(table, shape)
        if len(object_of_row):
            parts.append(Rows(columns, of_object[object_of_row]))
    return parts


def _reason(
    said: str, is_click: bool, partition: int, config: StreamConfig
) -> Callable[[Record], Fault]:
    return lambda record: explain_json(record, said, is_click, partition, config)


# --- bounds
# --------------------------------------------------------------------------------------------------


def _not_too_many(
    records: RecordColumns, indices: I64, shape: Shape, config: StreamConfig, bad: Bad
) -> I64:
    """The records but those with so many objects that a parse would take too much memory or time,
    however empty they are."""
    by_memory = config.decoded_bytes_max // shape.row_bytes
    keep = np.ones(len(indices), np.bool_)
    sizes = records.entries["value_bytes"][indices]
    for at in np.flatnonzero(sizes > min(by_memory, _OBJECTS_FREE) * _OBJECT_BYTES_MIN).tolist():
        i = int(indices[at])
        if (found := too_many_objects(records.value(i), by_memory)) is not None:
            keep[at] = False
            bad[i] = found
    return indices[keep]


def too_many_objects(value: bytes | memoryview, by_memory: int) -> Fault | None:
    """What is wrong with JSON that holds more objects than its bytes allow, or memory does."""
    allowed = min(by_memory, max(_OBJECTS_FREE, len(value) // _EVENT_BYTES_MIN))
    if len(value) <= allowed * _OBJECT_BYTES_MIN:
        return None
    objects = int(count_objects(np.frombuffer(value, np.uint8)))
    if objects <= allowed:
        return None
    said = f"holds {objects} objects; send at most {allowed} in {len(value)} bytes"
    return fault("value", said)


def without_large(
    table: pa.Table, of_object: I64, shape: Shape, config: StreamConfig, bad: Bad
) -> tuple[pa.Table, I64]:
    """The objects, but those of records whose rows are too many or would take too much memory."""
    rows_max = rows_at_most(table)
    bytes_max = rows_max * (shape.row_bytes + 2 * table.nbytes)  # each repeats all that stands here
    if rows_max <= ROWS_PER_RECORD_MAX and bytes_max <= config.decoded_bytes_max:
        return table, of_object  # as most polls are: seen without a look into columns
    rows, more_bytes = expansion(table, shape)
    if not _is_any_above(rows, more_bytes, config.decoded_bytes_max):
        return table, of_object
    owners, owner = np.unique(of_object, return_inverse=True)
    rows_of, bytes_of = np.zeros(len(owners), np.int64), np.zeros(len(owners), np.int64)
    np.add.at(rows_of, owner, rows)
    np.add.at(bytes_of, owner, more_bytes)
    wrong = (rows_of > ROWS_PER_RECORD_MAX) | (bytes_of > config.decoded_bytes_max)
    for i, count, size in zip(owners[wrong], rows_of[wrong], bytes_of[wrong], strict=True):
        bad[int(i)] = too_large(int(count), int(size), config)
    keep = np.flatnonzero(~wrong[owner])
    return table.take(pa.array(keep)), of_object[keep]


def _is_any_above(rows: I64, more_bytes: I64, bytes_max: int) -> bool:
    """Cheap, and true for few polls: whether all together are above what one may be."""
    return bool(int(rows.sum()) > ROWS_PER_RECORD_MAX or int(more_bytes.sum()) > bytes_max)


def too_large(rows: int, size: int, config: StreamConfig) -> Fault:
    """For a record whose rows are above one of the limits."""
    if rows > ROWS_PER_RECORD_MAX:
        return fault("value", f"has {rows} rows; send at most {ROWS_PER_RECORD_MAX} a record")
    allowed = f"at most {config.decoded_bytes_max} a record (decoded_bytes_max): divide it"
    return fault("value", f"has {rows} rows that take {size} bytes together; {allowed}")


# --- parsing
# --------------------------------------------------------------------------------------------------


class _Parsed(NamedTuple):
    """Values `[start, end)` as one table; None for a value that cannot be parsed alone, with
    what the parser said."""

    table: pa.Table | None
    start: int
    end: int
    said: str = ""


def _parse(lines: Lines, shape: Shape) -> list[_Parsed]:
    behind = np.append(0, np.cumsum(np.maximum(lines.objects, 0)))  # objects before each value
    parts: list[_Parsed] = []
    waiting = [(0, len(lines.ends))]
    while waiting:
        start, end = waiting.pop()
        objects = int(behind[end] - behind[start])
        if objects == 0:
            continue
        table, said = _parse_once(lines, start, end, objects, shape)
        if table is not None or end - start == 1:
            parts.append(_Parsed(table, start, end, said))
            continue
        stop = _LINE.search(said)
        first = int(behind[start]) + int(stop[1]) if stop else -1
        if behind[start] <= first < behind[end]:
            at = int(np.searchsorted(behind, first, "right")) - 1
            cuts = [(start, at), (at, at + 1), (at + 1, end)]
        else:
            middle = (start + end) // 2
            cuts = [(start, middle), (middle, end)]
        waiting += reversed([cut for cut in cuts if cut[0] < cut[1] and cut != (start, end)])
    return parts


def _parse_once(
    lines: Lines, start: int, end: int, objects: int, shape: Shape
) -> tuple[pa.Table | None, str]:
    first = int(lines.ends[start - 1]) if start else 0
    text = pa.py_buffer(lines.data[first : int(lines.ends[end - 1])])
    read = pj.ReadOptions(
        use_threads=False, block_size=len(text) + 1
    )  # one block: rows never straddle two
    try:
        table = pj.open_json(pa.BufferReader(text), read, shape.parse).read_all()
    except pa.ArrowInvalid as error:
        return None, str(error)
    return (
        (table, "")
        if table.num_rows == objects
        else (None, f"{table.num_rows} objects were read of {objects}")
    )
