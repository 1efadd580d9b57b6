"""The early join: how many impressions of each slice find a click within minutes, counted while
labels still wait (L8).

It is the labeler's own core with a shorter window, on topic `tallies` in the place of `examples`:
the same chain, the same resume points (C1-C4), so a restarted one goes on where the log ends and no
impression is counted twice. A record holds counts in the place of rows. It awaits no verdict, so it
is always about `join_window` behind the head.

Impressions of one person are no independent evidence. So counts are kept apart by *group* of
sources, of which there are `GROUPS`, by the source's hash: how much groups differ tells how much
people do (the random groups of Mahalanobis 1946, chapter 2 of Wolter, Introduction to Variance
Estimation).
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labeler.breaker.bands import GROUPS
from labeler.breaker_config import VENDOR, BreakerConfig
from stream import StreamConfig
from stream.columns import (
    FEATURE_PREFIX,
    KEYS,
    STRING_BYTES_MAX,
    TS_MS_MAX,
    Feature,
    Impressions,
    slice_values,
)
from stream.internal_topics import BatchHeader, MalformedRecord, read_rows
from stream.kernels import I64

#: One row a (feature, value, cell of event time, group of sources); feature "" counts everything.
#: `clicks` are impressions with a click.
TALLY_SCHEMA = pa.schema(
    [
        pa.field("feature", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("cell_ms", pa.int64(), nullable=False),
        pa.field("group", pa.int64(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
    ]
)
#: Impressions of any class in one tally.
TALLY_ROWS_MAX = 8_192
#: A row of a tally without its value, about.
TALLY_BYTES = 100
#: A value, at most.
VALUE_BYTES = STRING_BYTES_MAX + 4


def tally_stream(stream: StreamConfig, breaker: BreakerConfig) -> StreamConfig:
    """What the early join reads and when it closes a range: the labels' own rules with a window
    of minutes."""
    sliced = tuple(name for name in breaker.slices if name != VENDOR)
    looked_up = _looked_up(stream, sliced)
    keys = tuple(one.key for one in looked_up.values() if one.key not in KEYS)
    sliced = tuple(dict.fromkeys((*sliced, *looked_up, *keys)))
    personal = tuple(name for name in stream.personal_features if name in sliced)
    values: dict[str, Any] = {
        "categorical_features": tuple(n for n in sliced if n not in stream.declared),
        "declared": {n: one for n, one in stream.declared.items() if n in sliced},
        "numeric_features": (),
        "personal_features": personal,
    }
    # A tally has a row for each impression and slice at most: those, and their values, fit a
    # record.
    rows_max = min(
        TALLY_ROWS_MAX,
        stream.record_bytes_max * 3 // 4 // (TALLY_BYTES * (len(breaker.slices) + 1)),
    )
    values |= {
        "window_ms": breaker.join_window_ms,
        "flush_ms": stream.signal_ms,
        "batch_rows_max": max(1, rows_max),
    }
    values |= {"record_bytes_max": max(1, stream.record_bytes_max // 4)}
    if looked_up:  # of a row its values alone stand in a tally
        longest = VALUE_BYTES * sum(name in looked_up for name in breaker.slices)
        values |= {"catalogue_row_bytes_max": min(stream.catalogue_row_bytes_max, longest)}
    # Every impression is counted, once: no second reading, no negative left out.
    values |= {
        "label_strategy": "window",
        "late_window_ms": 0,
        "late_clicks": "learn",
        "release_ms": 0,
    }
    values |= {"negative_rate": 1.0}
    return replace(stream, **values)


def _looked_up(stream: StreamConfig, sliced: tuple[str, ...]) -> dict[str, Feature]:
    """All features of the catalogues in which one of these stands: a record that is no row to the
    labeler is none here either (A1)."""
    declared = stream.catalogued
    named = {declared[name].catalogue for name in sliced if name in declared}
    return {name: one for name, one in declared.items() if one.catalogue in named}


def catalogue_stream(stream: StreamConfig, sliced: StreamConfig) -> StreamConfig:
    """By what the early join reads catalogues: what is a row to the labeler is one here (A1).
    `sliced`: `tally_stream`."""
    limits = (stream.record_bytes_max, stream.catalogue_row_bytes_max)
    return replace(sliced, record_bytes_max=limits[0], catalogue_row_bytes_max=limits[1])


class TallyEmitter:
    """Counts in `tallies`, in the place of rows in `examples`. The labeler writes what goes beside
    them, and a breaker may come to a shop that has long been open."""

    begins_at_zero = False
    writes_side_records = False

    def __init__(self, stream: StreamConfig, breaker: BreakerConfig) -> None:
        self.topic = stream.tallies
        self._slices, self._cell_ms = breaker.slices, breaker.cell_ms

    def value(
        self,
        rows: Impressions,
        label: npt.NDArray[np.int8],
        delay_ms: I64,
        late: npt.NDArray[np.bool_] | None,
    ) -> bytes:
        return encode_tally(tally(rows, label, self._slices, self._cell_ms))

    def barrier(self, header: BatchHeader, arrival_ms: int) -> BatchHeader:
        """What has its early deadline before the barrier is tallied; `ts_ms_max` is its time, for
        the judge."""
        return replace(header, ts_ms_max=arrival_ms)


def tally(
    rows: Impressions, label: npt.NDArray[np.int8], slices: tuple[str, ...], cell_ms: int
) -> pa.RecordBatch:
    """`TALLY_SCHEMA` of these impressions, in order of feature, value, cell, group. `label` is
    (n,). Needs at least one."""
    cell = rows.ts_ms // cell_ms * cell_ms
    group = (rows.source_hash % np.uint64(GROUPS)).astype(np.int64)
    parts = [_counts("", pa.array([""]), np.zeros(len(rows), np.int64), cell, group, label)]
    for name in slices:
        column = rows.table.column(
            VENDOR if name == VENDOR else FEATURE_PREFIX + name
        ).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        column = slice_values(column)
        values = pc.unique(column).sort()
        place = pc.index_in(column, values).to_numpy().astype(np.int64)
        parts.append(_counts(name, values, place, cell, group, label))
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def _counts(
    feature: str, values: pa.Array, place: I64, cell: I64, group: I64, label: npt.NDArray[np.int8]
) -> pa.RecordBatch:
    cells, at = np.unique(cell, return_inverse=True)
    row = (place * len(cells) + at) * GROUPS + group
    impressions = np.bincount(row)
    clicks = np.bincount(row, weights=label).astype(np.int64)
    seen = np.flatnonzero(impressions)
    columns = [
        pa.array([feature] * len(seen), pa.string()),
        values.take(pa.array(seen // GROUPS // len(cells))),
        pa.array(cells[seen // GROUPS % len(cells)], pa.int64()),
        pa.array(seen % GROUPS),
        pa.array(impressions[seen].astype(np.int64)),
        pa.array(clicks[seen]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=TALLY_SCHEMA)


def encode_tally(rows: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def decode_tally(value: bytes) -> pa.RecordBatch:
    """Raises MalformedRecord for what is no tally."""
    batch = read_rows("tallies", value, TALLY_SCHEMA)
    for name, limit in (
        ("cell_ms", TS_MS_MAX),
        ("group", GROUPS - 1),
        ("impressions", 1 << 40),
        ("clicks", 1 << 40),
    ):
        column = batch.column(name).to_numpy()
        if len(column) and not (int(column.min()) >= 0 and int(column.max()) <= limit):
            raise MalformedRecord("tallies", name, f"a number outside [0, {limit}]")
    return batch


def tally_settings(labeler: Any) -> Any:
    """A labeler's settings for the early join, which waits for nobody."""
    return replace(labeler, await_verdicts=False, await_breaker=False)
