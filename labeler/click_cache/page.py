"""A page of clicks: records of one stretch of `clicks[p]` as a reader took them in, and how they
lie in a copy (C4)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from labeler.join import Read
from stream import ROW_BITS, Record
from stream.columns import Clicks
from stream.decoding import BadRecord
from stream.kernels import I32, I64, U64

#: Changes with what stands in a page, or with what a reader makes of a record: an older page is
#: then not read.
VERSION = 1
_HEADER = pa.struct([("name", pa.string()), ("value", pa.binary())])
_BAD = pa.struct(
    [
        ("offset", pa.int64()),
        ("timestamp_ms", pa.int64()),
        ("key", pa.binary()),
        ("value", pa.binary()),
        ("headers", pa.list_(_HEADER)),
        ("field", pa.string()),
        ("reason", pa.string()),
    ]
)
_NUMBERS = (
    ("version", pa.int64()),
    ("first", pa.int64()),
    ("end", pa.int64()),
    ("arrival_before_ms", pa.int64()),
)
_COLUMNS = (
    ("aside", pa.int64()),
    ("offset", pa.int64()),
    ("record_arrival_ms", pa.int64()),
    ("rows", pa.int32()),
    ("position", pa.int64()),
    ("id", pa.uint64()),
    ("ts_ms", pa.int64()),
    ("arrival_ms", pa.int64()),
    ("period", pa.int64()),
    ("at_ms", pa.int64()),
)
#: One row a page: a column of a page is a list.
SCHEMA = pa.schema(
    [
        ("config", pa.string()),
        *_NUMBERS,
        *((name, pa.list_(kind)) for name, kind in _COLUMNS),
        ("bad", pa.list_(_BAD)),
    ]
)


@dataclass(frozen=True)
class ClickPage:
    """Records `[first, end)` of `clicks[p]`, in log order. Of a record: `offset`,
    `record_arrival_ms`, `rows` (records,); of a click: `position`, `id`, `ts_ms`, `arrival_ms`
    (clicks,)."""

    first: int
    end: int
    arrival_before_ms: int  # the running maximum before `first` (T1)
    offset: I64
    record_arrival_ms: I64
    rows: I32
    position: I64
    id: U64
    ts_ms: I64
    arrival_ms: I64
    bad: Sequence[BadRecord] = ()
    barriers: Sequence[tuple[int, int]] = ()  # (period, arrival) of barrier heartbeats (E3)

    @classmethod
    def of(cls, reads: Sequence[Read[Clicks]], first: int, arrival_before_ms: int) -> "ClickPage":
        """What was read, in order; at least one record in each. `first`: where it was read from."""
        events = [read.events for read in reads]

        def joined(parts: Iterator[Any]) -> Any:
            return np.concatenate(list(parts))

        return cls(
            first,
            int(reads[-1].offset[-1]) + 1,
            arrival_before_ms,
            joined(read.offset for read in reads),
            joined(read.arrival_ms for read in reads),
            joined(read.rows for read in reads),
            joined(clicks.position for clicks in events),
            joined(clicks.id for clicks in events),
            joined(clicks.ts_ms for clicks in events),
            joined(clicks.arrival_ms for clicks in events),
            [bad for read in reads for bad in read.bad],
            [barrier for read in reads for barrier in read.barriers],
        )

    @property
    def last_arrival_ms(self) -> int:
        """The running maximum behind the page."""
        return int(self.record_arrival_ms[-1]) if len(self.offset) else self.arrival_before_ms

    def arrival_before(self, offset: int) -> int:
        """The running maximum just before this offset of the page, ms."""
        at = int(np.searchsorted(self.offset, offset))
        return int(self.record_arrival_ms[at - 1]) if at else self.arrival_before_ms

    def since(self, offset: int) -> "ClickPage":
        """The records from this offset on."""
        if offset <= self.first:
            return self
        record, click = (
            int(np.searchsorted(self.offset, offset)),
            int(np.searchsorted(self.position, offset << ROW_BITS)),
        )
        return ClickPage(
            offset, self.end, self.arrival_before(offset),
            self.offset[record:], self.record_arrival_ms[record:], self.rows[record:],
            self.position[click:], self.id[click:], self.ts_ms[click:], self.arrival_ms[click:],
            [bad for bad in self.bad if bad.record.offset >= offset],
            self.barriers,  # who was answered already knows so
        )  # fmt: skip


def encode_page(page: ClickPage, config: str, aside: Sequence[int]) -> bytes:
    """`config`: the hash of what decides labels (C4). `aside`: offsets in the page that
    operators set aside (L7)."""
    columns = {
        "aside": np.array(aside, np.int64),
        "period": np.array([period for period, _ in page.barriers], np.int64),
        "at_ms": np.array([at_ms for _, at_ms in page.barriers], np.int64),
    }
    arrays = [pa.array([config])]
    arrays += [
        pa.array([VERSION if name == "version" else getattr(page, name)], kind)
        for name, kind in _NUMBERS
    ]
    for name, kind in _COLUMNS:
        column = columns[name] if name in columns else getattr(page, name)
        arrays.append(
            pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), pa.array(column, kind))
        )
    arrays.append(pa.array([[_bad_row(bad) for bad in page.bad]], pa.list_(_BAD)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode_page(value: bytes) -> tuple[ClickPage, str, list[int]] | None:
    """The page, the hash of its config, what was set aside in it; None for one of another
    version or of no meaning."""
    try:
        batch = pa.ipc.open_stream(value).read_next_batch()
    except (pa.ArrowInvalid, StopIteration, OSError):
        return None
    if (
        batch.schema != SCHEMA
        or batch.num_rows != 1
        or batch.column("version")[0].as_py() != VERSION
    ):
        return None
    numbers = {name: batch.column(name)[0].as_py() for name, _ in _NUMBERS[1:]}
    columns = {name: batch.column(name).flatten().to_numpy() for name, _ in _COLUMNS}
    barriers = list(zip(columns.pop("period").tolist(), columns.pop("at_ms").tolist(), strict=True))
    aside = columns.pop("aside").tolist()
    bad = [_bad_record(row) for row in batch.column("bad")[0].as_py()]
    return (
        ClickPage(**numbers, **columns, bad=bad, barriers=barriers),
        batch.column("config")[0].as_py(),
        aside,
    )


def _bad_row(bad: BadRecord) -> dict[str, Any]:
    record = bad.record
    return {
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": record.key,
        "value": record.value,
        "headers": [{"name": name, "value": value} for name, value in record.headers],
        "field": bad.field,
        "reason": bad.reason,
    }


def _bad_record(row: dict[str, Any]) -> BadRecord:
    headers = tuple((header["name"], header["value"]) for header in row["headers"])
    record = Record(row["offset"], row["timestamp_ms"], row["key"], row["value"], headers)
    return BadRecord(record, row["field"], row["reason"])
