"""A record of `bands`: one settled cell with the breaker's state behind it. The topic is the breaker's memory (C2).

Value: Arrow IPC, one row a scope that was active in the cell or is withheld. Headers: the cell, totals, and where to
read each partition of `tallies` (with what stood there) and `verdicts` from to go on. A repeat of a cell, or one
below the last, changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from labeler.bands import Scope
from labeler.open_cells import Point
from stream.log import Headers
from stream.record import Record

BAND_SCHEMA = pa.schema(
    [
        pa.field("feature", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field("squares", pa.float64(), nullable=False),  # how much of it is one person's: `labeler.open_cells`
        pa.field("deviation", pa.float64(), nullable=False),
        pa.field("groups", pa.binary(), nullable=False),  # impressions by group of sources, int32; empty = none
        pa.field("rule", pa.string(), nullable=False),  # "" = healthy
        pa.field("since", pa.int64(), nullable=False),  # first cell withheld; where it ended, the first healthy one
        pa.field("base", pa.float64(), nullable=False),  # what it is held against while withheld
        pa.field("ended", pa.bool_(), nullable=False),  # it recovered, or was released, with this cell
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
    raw: int
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


_WRITE = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_NUMBERS = ("cell", "raw", "bad_clicks", "bad_impressions", "verdicts_offset")


def decode_band(record: Record) -> BandRecord:
    """Raises ValueError naming what cannot be read."""
    numbers: dict[str, int] = {}
    for name in _NUMBERS:
        raw = record.header(name)
        try:
            numbers[name] = int((raw or b"").decode())
        except ValueError:
            raise ValueError(f"bands[{record.offset}]: header {name} = {raw!r}, expected a decimal number") from None
    points = {}
    for part in filter(None, (record.header("points") or b"").decode().split(",")):
        p, _, at = part.partition("=")
        points[int(p)] = Point(*map(int, at.split(":")))
    batch = pa.ipc.open_stream(record.value or b"").read_next_batch()
    if batch.schema != BAND_SCHEMA:
        raise ValueError(f"bands[{record.offset}]: columns {batch.schema.names}, expected {BAND_SCHEMA.names}")
    rows = tuple(ScopeRow((r.pop("feature"), r.pop("value")), **r) for r in batch.to_pylist())
    return BandRecord(rows=rows, points=points, **numbers)
