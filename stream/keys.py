"""From strings to numbers: where a key is placed (T5), 64-bit hashes of identifiers, and pseudonyms.

Hashes are computed over Arrow's string buffers without making Python strings. They stand in no file by themselves,
but batches, tables and checkpoints are keyed by them: changing one is a change of format.
"""

import base64
import hashlib
import re
from collections.abc import Sequence

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.kernel import kernel
from stream.placed import Placed, placed, pointer

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]

SECRET_BYTES_MIN = 16
_NO_BYTES = np.zeros(0, np.uint8)
_U32 = np.uint32
_U64 = np.uint64


# --- murmur2: Kafka's placement of keys -------------------------------------------------------------------------


@kernel
def _murmur2(data: Bytes, start: int, end: int) -> np.int64:
    """Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`) of `data[start:end]`, made positive."""
    m = _U32(0x5BD1E995)
    length = end - start
    h = _U32(0x9747B28C) ^ _U32(length)
    at = start
    while end - at >= 4:
        k = (
            _U32(data[at])
            | _U32(data[at + 1]) << _U32(8)
            | _U32(data[at + 2]) << _U32(16)
            | _U32(data[at + 3]) << _U32(24)
        )
        k = _U32(k * m)
        k ^= k >> _U32(24)
        k = _U32(k * m)
        h = _U32(h * m) ^ k
        at += 4
    left = end - at
    if left == 3:
        h ^= _U32(data[at + 2]) << _U32(16)
    if left >= 2:
        h ^= _U32(data[at + 1]) << _U32(8)
    if left >= 1:
        h ^= _U32(data[at])
        h = _U32(h * m)
    h ^= h >> _U32(13)
    h = _U32(h * m)
    h ^= h >> _U32(15)
    return np.int64(h & _U32(0x7FFFFFFF))


@kernel
def _murmur2_all(data: Bytes, offsets: I32, partitions: int, out: I32) -> None:
    for i in range(len(out)):
        out[i] = _murmur2(data, offsets[i], offsets[i + 1]) % partitions


def partition_of_key(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives this key."""
    return int(_murmur2(np.frombuffer(key, np.uint8), 0, len(key))) % partitions


def partitions_of_keys(keys: pa.Array, partitions: int) -> I32:
    """`partition_of_key` of every string, int32 (n,). No nulls."""
    data, offsets = string_buffers(keys)
    out = np.empty(len(keys), np.int32)
    _murmur2_all(data, offsets, partitions, out)
    return out


# --- 64-bit hashes ----------------------------------------------------------------------------------------------

_M = _U64(0xC6A4A7935BD1E995)
#: Rows of all columns that are hashed before the next: what is written stays in the processor's first caches.
_BLOCK = 256


@kernel(inline="always")
def mix(h: np.uint64) -> np.uint64:
    """The finaliser of MurmurHash3 (fmix64): a bijection in which every input bit reaches every output bit."""
    h ^= h >> _U64(33)
    h *= _U64(0xFF51AFD7ED558CCD)
    h ^= h >> _U64(33)
    h *= _U64(0xC4CEB9FE1A85EC53)
    h ^= h >> _U64(33)
    return h


# Places in the bytes are unsigned: of a signed one the compiler asks for each byte whether it counts from the end.


@kernel(inline="always")
def _eight(data: Bytes, at: np.uint64) -> np.uint64:
    """Eight bytes as a little-endian number; the compiler makes one load of it."""
    k = _U64(data[at])
    for b in range(1, 8):
        k |= _U64(data[at + _U64(b)]) << _U64(8 * b)
    return k


@kernel(inline="always")
def _tail(data: Bytes, at: np.uint64, end: np.uint64) -> np.uint64:
    """The last one to seven bytes. No branch by their number, which would be mispredicted for most strings."""
    if at + _U64(8) <= _U64(len(data)):
        whole: np.uint64 = _eight(data, at) & ((_U64(1) << (_U64(8) * (end - at))) - _U64(1))
        return whole
    tail = _U64(0)
    for b in range(end - at):
        tail |= _U64(data[at + _U64(b)]) << _U64(8 * b)
    return tail


@kernel
def hash_bytes(data: Bytes, start: int, end: int, seed: np.uint64) -> np.uint64:
    """MurmurHash64A (Austin Appleby, 2008) of `data[start:end]`, finished with fmix64; the empty string gives
    `mix(seed)`, so 0 for seed 0."""
    at, stop = _U64(start), _U64(end)
    h = seed ^ ((stop - at) * _M)
    while stop - at >= _U64(8):
        k = _eight(data, at) * _M
        k ^= k >> _U64(47)
        h = (h ^ (k * _M)) * _M
        at += _U64(8)
    if at < stop:
        h = (h ^ _tail(data, at, stop)) * _M
    mixed: np.uint64 = mix(h)
    return mixed


# Many strings are hashed in two walks: one reads bytes, the other mixes numbers, which the compiler makes vector
# instructions of. Both take a quarter of the time of a single one.


@kernel
def fold_twice(data: Bytes, offsets: I32, seed: np.uint64, other: np.uint64, first: U64, second: U64) -> None:
    """What `mix` makes `hash_bytes` of: of every string, with each of two seeds, reading the bytes once."""
    for i in range(len(first)):
        at, end = _U64(offsets[i]), _U64(offsets[i + 1])
        h, g = seed ^ ((end - at) * _M), other ^ ((end - at) * _M)
        while end - at >= _U64(8):
            k = _eight(data, at) * _M
            k ^= k >> _U64(47)
            k *= _M
            h, g = (h ^ k) * _M, (g ^ k) * _M
            at += _U64(8)
        if at < end:
            k = _tail(data, at, end)
            h, g = (h ^ k) * _M, (g ^ k) * _M
        first[i], second[i] = h, g


@kernel
def _hash_all(data: Bytes, offsets: I32, seeds: U64, out: U64) -> None:
    """`hash_bytes` of every string, each with its seed."""
    for i in range(len(out)):
        at, end = _U64(offsets[i]), _U64(offsets[i + 1])
        h = seeds[i] ^ ((end - at) * _M)
        while end - at >= _U64(8):
            k = _eight(data, at) * _M
            k ^= k >> _U64(47)
            h = (h ^ (k * _M)) * _M
            at += _U64(8)
        if at < end:
            h = (h ^ _tail(data, at, end)) * _M
        out[i] = h
    for i in range(len(out)):
        out[i] = mix(out[i])


@kernel
def _hash_columns(columns: Placed, seeds: U64, out: U64) -> None:
    seed, hashed = np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.uint64)
    for first in range(0, len(out), _BLOCK):
        rows = min(_BLOCK, len(out) - first)
        for c in range(len(columns)):
            data = numba.carray(pointer(columns[c, 2]), columns[c, 3], np.uint8)
            offsets = numba.carray(pointer(columns[c, 1]), len(out) + 1, np.int32)
            seed[:] = seeds[c]
            _hash_all(data, offsets[first:], seed, hashed[:rows])
            for i in range(rows):
                out[first + i, c] = hashed[i]


def hash_columns(columns: Sequence[pa.Array], seeds: U64) -> U64:
    """`hash_strings` of columns of one length, each with its seed, uint64 (n, columns). No nulls."""
    out = np.empty((len(columns[0]) if columns else 0, len(columns)), np.uint64)
    if out.size:
        _hash_columns(placed(columns), seeds, out)
    return out


def hash_strings(strings: pa.Array | pa.ChunkedArray, seed: int = 0) -> U64:
    """64-bit hash of every string, uint64 (n,). With seed 0 the empty string gives 0. No nulls."""
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.chunk(0) if strings.num_chunks == 1 else strings.combine_chunks()
    if pa.types.is_dictionary(strings.type):
        hashed: U64 = hash_strings(strings.dictionary, seed)[strings.indices.to_numpy()]
        return hashed
    data, offsets = string_buffers(strings)
    out = np.empty(len(strings), np.uint64)
    _hash_all(data, offsets, np.full(len(out), seed, np.uint64), out)
    return out


def hash_string(string: str, seed: int = 0) -> int:
    """`hash_strings` of one."""
    raw = string.encode()
    return int(hash_bytes(np.frombuffer(raw, np.uint8), 0, len(raw), _U64(seed)))


def hash_pair(keys: pa.Array, ids: pa.Array) -> U64:
    """The `id` column of impressions and clicks: 64-bit hash of (key, id), uint64 (n,). No nulls."""
    data, offsets = string_buffers(ids)
    out = np.empty(len(ids), np.uint64)
    _hash_all(data, offsets, hash_strings(keys), out)
    return out


def string_buffers(strings: pa.Array) -> tuple[Bytes, I32]:
    """The bytes of an Arrow string array, and the n + 1 offsets into them. Raises ValueError on nulls."""
    if strings.null_count:
        raise ValueError(f"{strings.null_count} of {len(strings)} strings are null")
    if not pa.types.is_string(strings.type):
        strings = strings.cast(pa.string())
    _, offsets, data = strings.buffers()
    if offsets is None or len(strings) == 0:
        return _NO_BYTES, np.zeros(1, np.int32)
    view = np.frombuffer(offsets, np.int32, len(strings) + 1, strings.offset * 4)
    return (_NO_BYTES if data is None else np.frombuffer(data, np.uint8)), view


# --- pseudonyms -------------------------------------------------------------------------------------------------


class Pseudonymiser:
    """Replaces identifiers of people by keyed hashes `k<number>:<22 URL-safe characters>` (128 bits of BLAKE2b).

    Equal identifiers stay equal under one key and cannot be recovered without it. The number says which key was
    used, so that keys can be changed. A value that already is a pseudonym of this number, and "", stay as they are.
    """

    def __init__(self, key_number: int, secret: bytes):
        if key_number < 1:
            raise ValueError(f"pseudonym key number {key_number}: allowed is 1 or more")
        if not SECRET_BYTES_MIN <= len(secret) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(f"pseudonym secret of {len(secret)} bytes: allowed are {SECRET_BYTES_MIN} to 64 bytes")
        self._prefix = f"k{key_number}:"
        self._secret = secret
        self._done = re.compile(rf"k{key_number}:[A-Za-z0-9_-]{{22}}\Z")

    def __call__(self, identifier: str) -> str:
        if not identifier or self._done.match(identifier):
            return identifier
        digest = hashlib.blake2b(identifier.encode(), key=self._secret, digest_size=16).digest()
        return self._prefix + base64.urlsafe_b64encode(digest)[:22].decode()
