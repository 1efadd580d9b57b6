"""Totals and sequences as bytes, a value for each key: how they lie on disk."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.columns.counters.key_sequences import KeySequences
from stream.columns.counters.totals import KeyTotals
from stream.kernels import I64, U64

Bytes = npt.NDArray[np.uint8]
Rows = TypeVar("Rows", KeyTotals, KeySequences)

_TOTALS = np.dtype([("negatives", "<f8"), ("clicks", "<f8"), ("bucket", "<i8")])
#: Of a sequence: its bucket and how many clicks; of each click its time and its value's length.
_HEAD = np.dtype([("bucket", "<i8"), ("clicks", "<i4")])
_TIME_BYTES, _LENGTH_BYTES = 8, 4


class RowBytes(Protocol[Rows]):
    """How one kind of row is written."""

    def encoded(self, rows: Rows) -> list[bytes]:
        """(n,) a value for each key."""

    def decoded(self, keys: U64, values: Sequence[bytes]) -> Rows:
        """The same back, of these keys; of b"" what a key has that was never counted."""


class TotalsBytes:
    """See `RowBytes`: 24 bytes a key."""

    def encoded(self, rows: KeyTotals) -> list[bytes]:
        table = np.empty(len(rows.keys), _TOTALS)
        for name in _TOTALS.names or ():
            table[name] = getattr(rows, name)
        return table.view(f"V{_TOTALS.itemsize}").tolist()  # type: ignore[no-any-return]

    def decoded(self, keys: U64, values: Sequence[bytes]) -> KeyTotals:
        there = _sizes(values) > 0
        table = np.zeros(len(keys), _TOTALS)
        table[there] = np.frombuffer(b"".join(values), _TOTALS)
        return KeyTotals(keys, *(table[name].copy() for name in _TOTALS.names or ()))


class SequencesBytes:
    """See `RowBytes`: 12 bytes a key, and 12 a click beside its value."""

    def encoded(self, rows: KeySequences) -> list[bytes]:
        lengths, values = rows.lengths, rows.values
        offsets, data = _strings(values)
        sizes = np.diff(offsets)
        chars: I64 = np.diff(offsets[rows.ends])
        heads = np.empty(len(rows.keys), _HEAD)
        heads["bucket"], heads["clicks"] = rows.bucket, lengths
        click_bytes = _TIME_BYTES + _LENGTH_BYTES
        ends = np.cumsum(_HEAD.itemsize + lengths * click_bytes + chars)
        starts = ends - _HEAD.itemsize - lengths * click_bytes - chars
        out = np.empty(ends[-1] if len(ends) else 0, np.uint8)
        places = _Places(starts, lengths)
        _set(out, starts, heads)
        _set(out, places.times, rows.times.astype("<i8"))
        _set(out, places.lengths, sizes.astype("<i4"))
        first = places.chars - offsets[rows.ends[:-1]]
        out[np.arange(len(data)) + np.repeat(first, chars)] = data
        raw = out.tobytes()
        return [raw[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    def decoded(self, keys: U64, values: Sequence[bytes]) -> KeySequences:
        sizes = _sizes(values)
        data = np.frombuffer(b"".join(values), np.uint8)
        there = np.flatnonzero(sizes)
        starts = (np.cumsum(sizes) - sizes)[there]
        heads = np.zeros(len(keys), _HEAD)
        heads[there] = _get(data, starts, _HEAD)
        lengths = heads["clicks"].astype(np.int64)
        places = _Places(starts, lengths[there])
        times: I64 = _get(data, places.times, np.dtype("<i8")).astype(np.int64)
        value_sizes = _get(data, places.lengths, np.dtype("<i4")).astype(np.int64)
        chars = np.diff(np.append(0, np.cumsum(value_sizes))[np.append(0, lengths[there].cumsum())])
        ends = np.append(0, np.cumsum(chars))
        flat = data[np.arange(ends[-1]) + np.repeat(places.chars - ends[:-1], chars)]
        offsets = np.append(0, np.cumsum(value_sizes)).astype(np.int32)
        strings = pa.StringArray.from_buffers(
            len(value_sizes), pa.py_buffer(offsets), pa.py_buffer(flat)
        )
        every = np.append(0, np.cumsum(lengths)).astype(np.int64)
        return KeySequences(keys, heads["bucket"].astype(np.int64), every, times, strings)


class _Places:
    """Where the parts of rows stand that begin at these places and have so many clicks."""

    def __init__(self, starts: I64, clicks: I64) -> None:
        nth = np.arange(clicks.sum()) - np.repeat(np.cumsum(clicks) - clicks, clicks)
        first = starts + _HEAD.itemsize
        self.times = np.repeat(first, clicks) + nth * _TIME_BYTES
        first = first + clicks * _TIME_BYTES
        self.lengths = np.repeat(first, clicks) + nth * _LENGTH_BYTES
        self.chars = first + clicks * _LENGTH_BYTES


def _sizes(values: Sequence[bytes]) -> I64:
    return np.fromiter(map(len, values), np.int64, len(values))


def _set(out: Bytes, starts: I64, items: npt.NDArray[np.generic]) -> None:
    size = items.dtype.itemsize
    out[starts[:, None] + np.arange(size)] = items.view(np.uint8).reshape(len(items), size)


def _get(data: Bytes, starts: I64, dtype: "np.dtype[np.generic]") -> "npt.NDArray[np.generic]":
    found = data[starts[:, None] + np.arange(dtype.itemsize)]
    return np.ascontiguousarray(found).view(dtype).reshape(len(starts))


def _strings(values: pa.Array) -> tuple[I64, Bytes]:
    """(n + 1,) where each string begins and ends, and their bytes."""
    if values.offset or not len(values):
        values = pa.concat_arrays([pa.array([], values.type), values])
    _, offsets, data = values.buffers()
    if not len(values):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32)[: len(values) + 1].astype(np.int64)
    chars = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return ends - ends[0], chars[ends[0] : ends[-1]]
