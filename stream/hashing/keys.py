"""From strings to numbers: where a key is placed (T5), 64-bit hashes of identifiers, and
pseudonyms.

Hashes are computed over Arrow's string buffers without making Python strings. They stand in no file
by themselves, but batches, tables and checkpoints are keyed by them: changing one, or its key, is a
change of format. They are keyed with the deployment's secret (`stream.hashing.siphash` says why):
of 64 bits that nobody can aim at, n names have a pair that share a hash with a chance of n^2 /
2^65; 3e-8 for a million, 3% for a billion.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.columns import placed
from stream.hashing.secret import NO_KEY, HashKey, derived_key
from stream.hashing.siphash import hash_all, hash_all_columns, hash_behind
from stream.kernels import I32, U64, Bytes, kernel

SECRET_BYTES_MIN = 16
_NO_BYTES = np.zeros(0, np.uint8)
_U32 = np.uint32
_U64 = np.uint64


# --- murmur2: Kafka's placement of keys
# -------------------------------------------------------------------------


@kernel
def _murmur2(data: Bytes, start: int, end: int) -> np.int64:
    """Kafka's 32-bit murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`) of
    `data[start:end]`, made positive."""
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


# --- 64-bit hashes
# ----------------------------------------------------------------------------------------------

_WORD = (1 << 64) - 1
_SESSION = _U64(0xFFFF << 48)


def _words(key: HashKey) -> tuple[np.uint64, np.uint64]:
    return _U64(key & _WORD), _U64(key >> 64)


def hash_columns(columns: Sequence[pa.Array], keys: Sequence[HashKey]) -> U64:
    """Keyed 64-bit hashes of columns of one length, each with its key, uint64 (n, columns). No
    nulls. "" is a value like any other."""
    out = np.empty((len(columns[0]) if columns else 0, len(columns)), np.uint64)
    if out.size:
        low, high = (np.array(words, np.uint64) for words in zip(*map(_words, keys), strict=True))
        hash_all_columns(placed(columns), low, high, out)
    return out


def hash_strings(strings: pa.Array | pa.ChunkedArray, key: HashKey = NO_KEY) -> U64:
    """Keyed 64-bit hash (SipHash-1-3) of every string, uint64 (n,); 0 of the empty one, which is
    "not given". No nulls."""
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.chunk(0) if strings.num_chunks == 1 else strings.combine_chunks()
    if pa.types.is_dictionary(strings.type):
        hashed: U64 = hash_strings(strings.dictionary, key)[strings.indices.to_numpy()]
        return hashed
    data, offsets = string_buffers(strings)
    out = np.empty(len(strings), np.uint64)
    hash_all(data, offsets, *_words(key), out)
    out[offsets[1:] == offsets[:-1]] = 0
    return out


def hash_string(string: str, key: HashKey = NO_KEY) -> int:
    """`hash_strings` of one."""
    return int(hash_strings(pa.array([string], pa.string()), key)[0])


def hash_pair(keys: pa.Array, ids: pa.Array, key: HashKey = NO_KEY) -> U64:
    """The `id` column of impressions and clicks: keyed 64-bit hash of (key, id), uint64 (n,). No
    nulls. Its upper 16 bits are those of the key's own hash, so that events of one session can be
    told from those of others."""
    data, offsets = string_buffers(ids)
    out, session = np.empty(len(ids), np.uint64), hash_strings(keys, key)
    hash_behind(data, offsets, session, *_words(derived_key(key, "pair")), out)
    return (session & _SESSION) | (out & ~_SESSION)


def session_of(ids: U64) -> npt.NDArray[np.int64]:
    """The session of each id, as far as 16 bits tell sessions apart, int64 (n,)."""
    return (ids >> _U64(48)).astype(np.int64)


def string_buffers(strings: pa.Array) -> tuple[Bytes, I32]:
    """The bytes of an Arrow string or binary array, and the n + 1 offsets into them. Raises
    ValueError on nulls."""
    if strings.null_count:
        raise ValueError(f"{strings.null_count} of {len(strings)} strings are null")
    if not (pa.types.is_string(strings.type) or pa.types.is_binary(strings.type)):
        strings = strings.cast(pa.string())
    _, offsets, data = strings.buffers()
    if offsets is None or len(strings) == 0:
        return _NO_BYTES, np.zeros(1, np.int32)
    view = np.frombuffer(offsets, np.int32, len(strings) + 1, strings.offset * 4)
    return (_NO_BYTES if data is None else np.frombuffer(data, np.uint8)), view


# --- pseudonyms
# -------------------------------------------------------------------------------------------------


#: Of a pseudonym's 16 bytes so many are the identifier's hash; the others say that this key made
#: it.
_NAME_BYTES = 11


class Pseudonymiser:
    """Replaces identifiers of people by keyed hashes `k<number>:<22 URL-safe characters>` (128 bits
    of BLAKE2b).

    Equal identifiers stay equal under one key and cannot be recovered without it. The number says
    which key was used, so that keys can be changed. A pseudonym that this key has made, and "",
    stay as they are; what only looks like one is an identifier like any other. Which it is, 40 of
    its bits say, a keyed hash of the rest.
    """

    def __init__(self, key_number: int, secret: bytes):
        if key_number < 1:
            raise ValueError(f"pseudonym key number {key_number}: allowed is 1 or more")
        if not SECRET_BYTES_MIN <= len(secret) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError(
                f"pseudonym secret of {len(secret)} bytes: allowed are {SECRET_BYTES_MIN} to 64 "
                f"bytes"
            )
        self._prefix = f"k{key_number}:"
        self._secret = secret
        self._form = re.compile(rf"k{key_number}:[A-Za-z0-9_-]{{22}}\Z")

    def __call__(self, identifier: str) -> str:
        if not identifier or (self._form.match(identifier) and self._made(identifier)):
            return identifier
        name = self._hash(identifier.encode(), _NAME_BYTES, b"")
        return self._spelled(name)

    def _made(self, pseudonym: str) -> bool:
        name = base64.urlsafe_b64decode(pseudonym[len(self._prefix) :] + "==")[:_NAME_BYTES]
        return hmac.compare_digest(self._spelled(name), pseudonym)

    def _spelled(self, name: bytes) -> str:
        whole = name + self._hash(name, 16 - _NAME_BYTES, b"made")
        return self._prefix + base64.urlsafe_b64encode(whole)[:22].decode()

    def _hash(self, data: bytes, size: int, purpose: bytes) -> bytes:
        return hashlib.blake2b(data, key=self._secret, digest_size=size, person=purpose).digest()
