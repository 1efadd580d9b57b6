"""SipHash-1-3 of strings in Arrow's buffers (Aumasson and Bernstein, "SipHash: a fast short-input
PRF", 2012).

Why this one. Whoever sends events chooses the strings that are hashed, and may know the algorithm
and the length of its key. Of a pseudorandom function that is all there is to know: without the key
no two strings collide more often than by chance. Hashes that only mix a seed in have no such
promise: MurmurHash and its like have strings that collide for *every* seed (Aumasson, Bernstein and
Bosslet 2012), because what they do to a block does not depend on it. One round a word and three at
the end is what Rust, CPython and Ruby take for the same purpose; the best collision known of it has
a chance of 2^-167 (Dobraunig, Mendel and Schlaeffer, "Differential cryptanalysis of SipHash",
2014), and a 64-bit result is met by guessing at 2^-64.
"""

from typing import TypeAlias

import numba
import numpy as np

from stream.columns import Placed, pointer
from stream.kernels import I32, U64, Bytes, kernel

State: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_U64 = np.uint64
#: Rows of all columns that are hashed before the next: what is written stays in the processor's
#: first caches.
_BLOCK = 256


# Places in the bytes are unsigned: of a signed one the compiler asks for each byte whether it
# counts from the end.


@kernel(inline="always")
def eight(data: Bytes, at: np.uint64) -> np.uint64:
    """Eight bytes as a little-endian number; the compiler makes one load of it."""
    k = _U64(data[at])
    for b in range(1, 8):
        k |= _U64(data[at + _U64(b)]) << _U64(8 * b)
    return k


@kernel(inline="always")
def tail(data: Bytes, at: np.uint64, end: np.uint64) -> np.uint64:
    """The last one to seven bytes. No branch by their number, which would be mispredicted for
    most strings."""
    if at + _U64(8) <= _U64(len(data)):
        whole: np.uint64 = eight(data, at) & ((_U64(1) << (_U64(8) * (end - at))) - _U64(1))
        return whole
    left = _U64(0)
    for b in range(end - at):
        left |= _U64(data[at + _U64(b)]) << _U64(8 * b)
    return left


@kernel(inline="always")
def _round(v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64) -> State:
    v0 += v1
    v2 += v3
    v1 = ((v1 << _U64(13)) | (v1 >> _U64(51))) ^ v0
    v3 = ((v3 << _U64(16)) | (v3 >> _U64(48))) ^ v2
    v0 = (v0 << _U64(32)) | (v0 >> _U64(32))
    v2 += v1
    v0 += v3
    v1 = ((v1 << _U64(17)) | (v1 >> _U64(47))) ^ v2
    v3 = ((v3 << _U64(21)) | (v3 >> _U64(43))) ^ v0
    v2 = (v2 << _U64(32)) | (v2 >> _U64(32))
    return v0, v1, v2, v3


@kernel(inline="always")
def _begun(low: np.uint64, high: np.uint64) -> State:
    """The state of a key's two words."""
    return (
        low ^ _U64(0x736F6D6570736575),
        high ^ _U64(0x646F72616E646F6D),
        low ^ _U64(0x6C7967656E657261),
        high ^ _U64(0x7465646279746573),
    )


@kernel(inline="always")
def _ended(
    v0: np.uint64,
    v1: np.uint64,
    v2: np.uint64,
    v3: np.uint64,
    data: Bytes,
    at: np.uint64,
    stop: np.uint64,
    length: np.uint64,
) -> np.uint64:
    """The rest of the bytes, the length of all, and the last three rounds."""
    while stop - at >= _U64(8):
        m = eight(data, at)
        v3 ^= m
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= m
        at += _U64(8)
    m = length << _U64(56)
    if at < stop:
        m |= tail(data, at, stop)
    v3 ^= m
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0 ^= m
    v2 ^= _U64(0xFF)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3  # type: ignore[no-any-return]


@kernel(inline="always")
def hash_of(
    data: Bytes, at: np.uint64, stop: np.uint64, low: np.uint64, high: np.uint64
) -> np.uint64:
    """The hash of `data[at:stop]` with the key of these two words: what every other one here, and
    every hash of a request, comes down to."""
    v0, v1, v2, v3 = _begun(low, high)
    return _ended(v0, v1, v2, v3, data, at, stop, stop - at)


@kernel
def hash_all(data: Bytes, offsets: I32, low: np.uint64, high: np.uint64, out: U64) -> None:
    """The hash of every string with the key of these two words."""
    for i in range(len(out)):
        out[i] = hash_of(data, _U64(offsets[i]), _U64(offsets[i + 1]), low, high)


@kernel
def hash_behind(
    data: Bytes, offsets: I32, first: U64, low: np.uint64, high: np.uint64, out: U64
) -> None:
    """The hash of every string behind a word of its own."""
    for i in range(len(out)):
        at, stop = _U64(offsets[i]), _U64(offsets[i + 1])
        v0, v1, v2, v3 = _begun(low, high)
        v3 ^= first[i]
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= first[i]
        out[i] = _ended(v0, v1, v2, v3, data, at, stop, stop - at + _U64(8))


@kernel
def hash_all_columns(columns: Placed, low: U64, high: U64, out: U64) -> None:
    """`hash_all` of columns of strings, each with a key of its own, into (n, columns)."""
    hashed = np.empty(_BLOCK, np.uint64)
    for first in range(0, len(out), _BLOCK):
        rows = min(_BLOCK, len(out) - first)
        for c in range(len(columns)):
            data = numba.carray(pointer(columns[c, 2]), columns[c, 3], np.uint8)
            offsets = numba.carray(pointer(columns[c, 1]), len(out) + 1, np.int32)
            hash_all(data, offsets[first:], low[c], high[c], hashed[:rows])
            for i in range(rows):
                out[first + i, c] = hashed[i]
