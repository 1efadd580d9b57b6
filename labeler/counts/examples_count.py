"""What one record of `examples` counts, by key (J1), and which clicks it says (J6)."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stream import RETRACT, kind_of
from stream.columns.counters import (
    CountedValues,
    CounterColumns,
    KeptClicks,
    KeyClicks,
    SequenceColumns,
)
from stream.internal_topics import BatchHeader, rows_of
from stream.kernels import F64, I64, U64


class RowCounts(NamedTuple):
    """KeyTotals of one record, (n,) each: what each adds to its key."""

    keys: U64  # 0 = counts for none
    negatives: F64
    clicks: F64


def counts_of(
    columns: CounterColumns,
    header: BatchHeader,
    batch: pa.RecordBatch,
    start: int,
    bucket: int,
    bucket_ms: int,
) -> dict[CountedValues, RowCounts]:
    """What the rows at or above `start` count in a bucket: what is left there of what arrived when
    they did, which is less than 1 of what was released, or is taken back."""
    sign, rows = _counting(header, batch, start)
    if not rows.num_rows or not columns.counted:
        return {}
    clicked = rows.column("label").to_numpy() > 0
    age: I64 = bucket - rows.column("arrival_ms").to_numpy() // bucket_ms
    found = {}
    for one, keys in columns.keys(rows).items():
        weight = float(sign) * columns.fading[one].weight(age)
        found[one] = RowCounts(keys, np.where(clicked, 0.0, weight), np.where(clicked, weight, 0.0))
    return found


def clicks_of(
    columns: SequenceColumns, header: BatchHeader, batch: pa.RecordBatch, start: int
) -> dict[KeptClicks, KeyClicks]:
    """The clicks that the rows at or above `start` say, or take back."""
    sign, rows = _counting(header, batch, start)
    return columns.clicks(rows, sign) if columns.kept else {}


def _counting(header: BatchHeader, batch: pa.RecordBatch, start: int) -> tuple[int, pa.RecordBatch]:
    """The rows at or above `start` that count, and 1; or those that are taken back, and -1."""
    rows = rows_of(batch, header.chain, header.end, start, header.end)
    if kind_of(header.chain) == RETRACT:
        return -1, rows.slice(0, min(header.rejected, rows.num_rows))
    return 1, rows


def summed(parts: list[RowCounts]) -> RowCounts:
    """By key, rising, none twice, without 0; in the order of the parts, which decides the last
    digit of a sum."""
    keys, negatives, clicks = (np.concatenate(column) for column in zip(*parts, strict=True))
    distinct, at = np.unique(keys, return_inverse=True)
    sums = np.zeros((2, len(distinct)))
    for total, weights in zip(sums, (negatives, clicks), strict=True):
        total[:] = np.bincount(at, weights, len(distinct))
    first = int(len(distinct) > 0 and distinct[0] == 0)
    return RowCounts(distinct[first:], sums[0, first:], sums[1, first:])
