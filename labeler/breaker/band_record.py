"""A record of `bands`: one settled cell with the breaker's state behind it. The topic is the
breaker's memory (C2).

Value: Arrow IPC, one row a scope that was active in the cell or is withheld. Headers: the cell,
totals, and where to read each partition of `tallies` (with what stood there) and `verdicts` from to
go on. A repeat of a cell, or one below the last, changes nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from labeler.breaker.bands import GROUPS, Scope
from labeler.breaker.cells import Point
from stream import Record
from stream.internal_topics import INT64_MIN, HeaderFields, MalformedRecord, read_rows, shown
from stream.log import Headers

#: Columns of a record of `bands` (docs/contracts.md).
BAND_SCHEMA = pa.schema(
    [
        pa.field("feature", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field(
            "squares", pa.float64(), nullable=False
        ),  # how much of it is one person's: `labeler.breaker.cells`
        pa.field("deviation", pa.float64(), nullable=False),
        pa.field(
            "groups", pa.binary(), nullable=False
        ),  # impressions by group of sources, int32; empty = none
        pa.field("rule", pa.string(), nullable=False),  # "" = healthy
        pa.field(
            "since", pa.int64(), nullable=False
        ),  # first cell withheld; where it ended, the first healthy one
        pa.field("base", pa.float64(), nullable=False),  # what it is held against while withheld
        pa.field(
            "ended", pa.bool_(), nullable=False
        ),  # it recovered, or was released, with this cell
    ]
)


@dataclass(frozen=True)
class ScopeRow:
    """One scope in one cell."""

    scope: Scope
    impressions: int
    clicks: int
    squares: float = 0.0
    deviation: float = 0.0
    groups: bytes = b""
    rule: str = ""
    since: int = 0
    base: float = 0.0
    ended: bool = False


@dataclass(frozen=True)
class BandRecord:
    """One settled cell."""

    cell: int
    raw: int  # below 0 where more repeats were found in a cell than clicks were passed
    bad_clicks: int
    bad_impressions: int
    verdicts_offset: int
    points: Mapping[int, Point] = field(default_factory=dict)  # by partition of `tallies`
    rows: tuple[ScopeRow, ...] = ()

    @property
    def value(self) -> bytes:
        columns = [
            [r.scope[0] for r in self.rows],
            [r.scope[1] for r in self.rows],
            *([getattr(r, name) for r in self.rows] for name in BAND_SCHEMA.names[2:]),
        ]
        arrays = [pa.array(column, f.type) for column, f in zip(columns, BAND_SCHEMA, strict=True)]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, BAND_SCHEMA, options=_WRITE) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=BAND_SCHEMA))
        return bytes(sink.getvalue())

    @property
    def headers(self) -> Headers:
        points = ",".join(f"{p}={':'.join(map(str, at))}" for p, at in sorted(self.points.items()))
        numbers = tuple((name, str(getattr(self, name)).encode()) for name in _NUMBERS)
        return (*numbers, ("points", points.encode()))


_TOPIC = "bands"
_POINT = re.compile(r"([0-9]{1,9})=([0-9]{1,18}):(-1|[0-9]{1,18}):([0-9]{1,18})")
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_NUMBERS = ("cell", "raw", "bad_clicks", "bad_impressions", "verdicts_offset")


def decode_band(record: Record) -> BandRecord:
    """Raises MalformedRecord naming what cannot be read."""
    headers = HeaderFields(_TOPIC, record.headers)
    numbers = {
        name: headers.integer(name, low=INT64_MIN if name == "raw" else 0) for name in _NUMBERS
    }
    points = dict(_point(headers, part) for part in headers.text("points").split(",") if part)
    batch = read_rows(_TOPIC, record.value, BAND_SCHEMA)
    for name in ("squares", "deviation", "base"):
        if not np.isfinite(batch.column(name).to_numpy()).all():
            raise MalformedRecord(_TOPIC, name, "a number that is not finite")
    rows = tuple(ScopeRow((r.pop("feature"), r.pop("value")), **r) for r in batch.to_pylist())
    if wrong := {len(row.groups) for row in rows} - {0, 4 * GROUPS}:
        raise MalformedRecord(
            _TOPIC, "groups", f"{sorted(wrong)} bytes, expected 0 or {4 * GROUPS}"
        )
    return BandRecord(rows=rows, points=points, **numbers)


def _point(headers: HeaderFields, part: str) -> tuple[int, Point]:
    found = _POINT.fullmatch(part)
    if found is None:
        headers.wrong(
            "points", f"{shown(part)}, expected '<partition>=<offset>:<end>:<arrival_ms>'"
        )
    partition, offset, end, arrival_ms = map(int, found.groups())
    return partition, Point(offset, end, arrival_ms)
