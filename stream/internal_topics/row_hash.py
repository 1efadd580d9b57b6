"""The hash by which shards and audit know that they saw the same rows (S7).

h = the sum over rows of H(row) mod 2^128, where H covers every column of an examples row, its
position first. A sum does not depend on order, batch boundaries, splits or trims; a row missing,
repeated or altered changes it. It finds what goes wrong, not what somebody forges: it has no key,
so that an audit needs none.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.columns import (
    FLOAT32,
    HASHED,
    INT32,
    INT64,
    STRING,
    Placed,
    placed,
    placed_hashes,
    pointer,
)
from stream.hashing import eight, string_buffers, tail
from stream.kernels import GOLDEN, HASH_MODULUS, I32, U64, Bytes, kernel, mix64

_U64 = np.uint64
_M = _U64(0xC6A4A7935BD1E995)

_LOW = GOLDEN  # odd constants of splitmix64 and xxh64, one per lane
_HIGH = np.uint64(0xC2B2AE3D27D4EB4F)
_NAN_BITS = np.uint64(0x7FC00000)
#: Rows that are hashed over all columns before the next: what is in work stays in the processor's
#: first cache.
_BLOCK = 256


def row_hashes(batch: pa.RecordBatch) -> tuple[U64, U64]:
    """H of every row as (low, high) 64-bit halves, each (n,). Columns are int64, int32, int8,
    float32, string or binary, or lists of such."""
    seed = _hash_names(batch.schema.names)
    low, high = np.empty(batch.num_rows, np.uint64), np.empty(batch.num_rows, np.uint64)
    if batch.num_rows:
        columns = [
            c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for c in batch.columns
        ]
        lists = {i: _list_hashes(c) for i, c in enumerate(columns) if pa.types.is_list(c.type)}
        places = [
            placed_hashes(*lists[i]) if i in lists else placed([c]) for i, c in enumerate(columns)
        ]
        _hash_rows(np.concatenate(places), seed, low, high)
    return low, high


def _list_hashes(column: pa.Array) -> tuple[U64, U64]:
    """Of each row's list, (n,) each: its length, and its values in order."""
    if column.null_count:
        raise ValueError(f"{column.null_count} of {len(column)} lists are null")
    values, offsets = column.flatten(), column.offsets.to_numpy()
    low, high = np.empty(len(column), np.uint64), np.empty(len(column), np.uint64)
    of_values = np.zeros(len(values), np.uint64), np.zeros(len(values), np.uint64)
    if len(values):
        _hash_rows(placed([values]), _U64(0), *of_values)
    _fold_lists(offsets - offsets[0], *of_values, low, high)
    return low, high


def _hash_names(names: list[str]) -> np.uint64:
    data, offsets = string_buffers(pa.array([",".join(names)]))
    folded, _ = np.empty((2, 1), np.uint64)
    fold_twice(data, offsets, _U64(0), _U64(0), folded, _)
    return np.uint64(mix64(folded[0]))  # a kernel answers an int


def hash_sum(low: U64, high: U64) -> int:
    """The sum of 128-bit numbers mod 2^128, given as halves."""
    total_low, total_high, carries = _sums(low, high)
    return (int(total_low) + ((int(total_high) + int(carries)) << 64)) % HASH_MODULUS


def row_hash_sum(batch: pa.RecordBatch) -> int:
    """h of these rows (S7)."""
    return hash_sum(*row_hashes(batch))


# Many strings are hashed in two walks: one reads bytes, the other mixes numbers, which the compiler
# makes vector instructions of. Both take a quarter of the time of a single one.


@kernel
def fold_twice(
    data: Bytes, offsets: I32, seed: np.uint64, other: np.uint64, first: U64, second: U64
) -> None:
    """MurmurHash64A (Austin Appleby, 2008) of every string with each of two seeds, reading the
    bytes once; without its last step, in whose place `mix64` comes."""
    for i in range(len(first)):
        at, end = _U64(offsets[i]), _U64(offsets[i + 1])
        h, g = seed ^ ((end - at) * _M), other ^ ((end - at) * _M)
        while end - at >= _U64(8):
            k = eight(data, at) * _M
            k ^= k >> _U64(47)
            k *= _M
            h, g = (h ^ k) * _M, (g ^ k) * _M
            at += _U64(8)
        if at < end:
            k = tail(data, at, end)
            h, g = (h ^ k) * _M, (g ^ k) * _M
        first[i], second[i] = h, g


@kernel
def _fold_lists(offsets: I32, first: U64, second: U64, low: U64, high: U64) -> None:
    for i in range(len(low)):
        h = g = _U64(offsets[i + 1] - offsets[i])
        for j in range(offsets[i], offsets[i + 1]):
            h, g = mix64((h ^ first[j]) * _LOW), mix64((g + second[j]) * _HIGH)
        low[i], high[i] = h, g


@kernel
def _hash_rows(columns: Placed, seed: np.uint64, low: U64, high: U64) -> None:
    first, second = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64)
    for start in range(0, len(low), _BLOCK):
        end = min(start + _BLOCK, len(low))
        low[start:end], high[start:end] = seed, ~seed
        for c in range(len(columns)):
            if columns[c, 0] == STRING:
                offsets = numba.carray(pointer(columns[c, 1]), len(low) + 1, np.int32)
                data = numba.carray(pointer(columns[c, 2]), columns[c, 3], np.uint8)
                fold_twice(
                    data, offsets[start:], _LOW, _HIGH, first[: end - start], second[: end - start]
                )
                _fold_hashes(first, second, low[start:end], high[start:end])
            elif columns[c, 0] == HASHED:
                first[: end - start] = numba.carray(pointer(columns[c, 1]), len(low), np.uint64)[
                    start:end
                ]
                second[: end - start] = numba.carray(pointer(columns[c, 2]), len(low), np.uint64)[
                    start:end
                ]
                _fold_hashes(first, second, low[start:end], high[start:end])
            else:
                _read(columns[c], len(low), start, first[: end - start])
                _fold(first, low[start:end], high[start:end])


@kernel
def _read(column: npt.NDArray[np.int64], rows: int, start: int, out: U64) -> None:
    """The bits of numbers from row `start` on, integers as 64 bits; one bit pattern for all NaN."""
    address = pointer(column[1])
    if column[0] == FLOAT32:
        bits = numba.carray(address, rows, np.uint32)
        for i in range(len(out)):
            is_nan = bits[start + i] & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000)
            out[i] = _NAN_BITS if is_nan else np.uint64(bits[start + i])
    elif column[0] == INT64:
        out[:] = numba.carray(address, rows, np.int64)[start : start + len(out)].view(np.uint64)
    elif column[0] == INT32:
        _widen(numba.carray(address, rows, np.int32)[start:], out)
    else:
        _widen(numba.carray(address, rows, np.int8)[start:], out)


@kernel
def _widen(values: npt.NDArray[np.signedinteger[Any]], out: U64) -> None:
    for i in range(len(out)):
        out[i] = np.uint64(np.int64(values[i]))


@kernel
def _fold(values: U64, low: U64, high: U64) -> None:
    for i in range(len(low)):
        low[i] = mix64((low[i] ^ values[i]) * _LOW)
    for i in range(len(low)):
        high[i] = mix64((high[i] + values[i]) * _HIGH)


@kernel
def _fold_hashes(first: U64, second: U64, low: U64, high: U64) -> None:
    for i in range(len(low)):
        low[i] = mix64(low[i] ^ mix64(first[i]))
    for i in range(len(low)):
        high[i] = mix64(high[i] + mix64(second[i]))


@kernel
def _sums(low: U64, high: U64) -> tuple[np.uint64, np.uint64, np.uint64]:
    total_low, total_high, carries = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(len(low)):
        total_low += low[i]
        if total_low < low[i]:
            carries += np.uint64(1)
        total_high += high[i]
    return total_low, total_high, carries
