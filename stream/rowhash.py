"""The hash by which shards and audit know that they saw the same rows (S7).

h = the sum over rows of H(row) mod 2^128, where H covers every column of an examples row, its position first. A sum
does not depend on order, batch boundaries, splits or trims; a row missing, repeated or altered changes it.
"""

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.keys import fold_twice, hash_string, mix, string_buffers

U64 = npt.NDArray[np.uint64]

HASH_MODULUS = 1 << 128
_LOW = np.uint64(0x9E3779B97F4A7C15)  # odd constants of splitmix64 and xxh64, one per lane
_HIGH = np.uint64(0xC2B2AE3D27D4EB4F)
_NAN_BITS = np.uint64(0x7FC00000)


def row_hashes(batch: pa.RecordBatch) -> tuple[U64, U64]:
    """H of every row as (low, high) 64-bit halves, each (n,). Columns are int64, int32, int8, float32 or string."""
    rows, schema = batch.num_rows, batch.schema
    seed = np.uint64(hash_string(",".join(schema.names)))
    low, high = np.full(rows, seed, np.uint64), np.full(rows, ~seed, np.uint64)
    for i in range(len(schema)):
        array = batch.column(i)
        if pa.types.is_string(array.type) or pa.types.is_dictionary(array.type):
            _fold_strings(*string_buffers(array), low, high)
        elif pa.types.is_float32(array.type):
            _fold(_float_bits(array.to_numpy()), low, high)
        else:
            _fold(array.to_numpy().astype(np.int64).view(np.uint64), low, high)
    return low, high


def hash_sum(low: U64, high: U64) -> int:
    """The sum of 128-bit numbers mod 2^128, given as halves."""
    total_low, total_high, carries = _sums(low, high)
    return (int(total_low) + ((int(total_high) + int(carries)) << 64)) % HASH_MODULUS


def row_hash_sum(batch: pa.RecordBatch) -> int:
    """h of these rows (S7)."""
    return hash_sum(*row_hashes(batch))


def _float_bits(values: npt.NDArray[np.float32]) -> U64:
    """One bit pattern for all NaN."""
    bits = values.view(np.uint32).astype(np.uint64)
    bits[np.isnan(values)] = _NAN_BITS
    return bits


@numba.njit(cache=True, nogil=True)
def _fold(values: U64, low: U64, high: U64) -> None:
    for i in range(len(values)):
        low[i] = mix((low[i] ^ values[i]) * _LOW)
    for i in range(len(values)):
        high[i] = mix((high[i] + values[i]) * _HIGH)


@numba.njit(cache=True, nogil=True)
def _fold_strings(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], low: U64, high: U64) -> None:
    first, second = np.empty(len(low), np.uint64), np.empty(len(low), np.uint64)
    fold_twice(data, offsets, _LOW, _HIGH, first, second)
    for i in range(len(low)):
        low[i] = mix(low[i] ^ mix(first[i]))
    for i in range(len(low)):
        high[i] = mix(high[i] + mix(second[i]))


@numba.njit(cache=True, nogil=True)
def _sums(low: U64, high: U64) -> tuple[np.uint64, np.uint64, np.uint64]:
    total_low, total_high, carries = np.uint64(0), np.uint64(0), np.uint64(0)
    for i in range(len(low)):
        total_low += low[i]
        if total_low < low[i]:
            carries += np.uint64(1)
        total_high += high[i]
    return total_low, total_high, carries
