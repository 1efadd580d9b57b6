"""Dense numbers for what the fraud filter counts, names (sources, vendors) and pairs of them: so
counts are arrays.

Numbers are given in order of first appearance, hold in memory only, and are given anew when most of
what they stand for is forgotten (`keep`): nothing that is written down names them.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from stream.hashing import NO_KEY, HashKey, hash_strings
from stream.kernels import GOLDEN, I64, U64, kernel, mix64

NO_LIMIT = 1 << 62
ENTRIES_MIN = 1_024  # a power of two; an index is at most half full
_SHIFT = np.uint64(32)


class KeyNumbers:
    """64-bit key -> 0, 1, 2, ... in order of first appearance. About 24 bytes a key.

    Which keys share a place of the index depends on a secret (the construction of Even and Mansour
    1997 around `mix64`, twice): whoever sends events chooses the order in which names and pairs
    come, and so the numbers that keys are made of."""

    def __init__(self, hash_key: HashKey = NO_KEY) -> None:
        self._words = np.array([hash_key & (1 << 64) - 1, hash_key >> 64], np.uint64)
        self._keys = np.zeros(ENTRIES_MIN, np.uint64)
        self._index = np.full(2 * ENTRIES_MIN, -1, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def keys(self) -> U64:
        """By number, uint64 (len,)."""
        return self._keys[: self._count]

    def of(self, keys: U64, limit: int = NO_LIMIT) -> I64:
        """The number of each key, int64 (n,). New ones are given while there are fewer than
        `limit`; then it is -1."""
        self._reserve(min(self._count + len(keys), max(limit, self._count)))
        numbers = np.empty(len(keys), np.int64)
        self._count = _number(
            self._index, self._keys, self._count, limit, self._words, keys, numbers
        )
        return numbers

    def _reserve(self, entries: int) -> None:
        size = len(self._keys)
        if entries <= size:
            return
        while size < entries:
            size *= 2
        known = self.keys
        self._keys = np.zeros(size, np.uint64)
        self._index = np.full(2 * size, -1, np.int64)
        numbers = np.empty(len(known), np.int64)
        self._count = _number(self._index, self._keys, 0, size, self._words, known, numbers)


class Names:
    """Strings by number. A string is known by its keyed 64-bit hash, which nobody can aim at."""

    def __init__(self, hash_key: HashKey = NO_KEY) -> None:
        self._hash_key = hash_key
        self._numbers = KeyNumbers(hash_key)
        self._chunks: list[pa.Array] = []
        self._starts: list[int] = []  # number of each chunk's first string

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, strings: pa.Array, limit: int = NO_LIMIT) -> I64:
        """The number of each string, int64 (n,). New ones are given while there are fewer than
        `limit`; then -1."""
        known = len(self)
        numbers = self._numbers.of(hash_strings(strings, self._hash_key), limit)
        if len(self) > known:
            new = np.flatnonzero(numbers >= known)
            _, first = np.unique(numbers[new], return_index=True)
            self._starts.append(known)
            self._chunks.append(strings.take(pa.array(new[first])))
        return numbers

    @property
    def hashes(self) -> U64:
        """Of each string, by number, uint64 (len,)."""
        return self._numbers.keys

    def numbers(self, strings: pa.Array) -> I64:
        """The number of each string, int64 (n,); -1 = it has none."""
        return self._numbers.of(hash_strings(strings, self._hash_key), 0)

    def number(self, name: str) -> int:
        return int(self.of(pa.array([name], pa.string()))[0])

    def __getitem__(self, number: int) -> str:
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        return str(self._chunks[chunk][number - self._starts[chunk]])

    def take(self, numbers: I64) -> pa.Array:
        """The strings of these numbers."""
        if not len(numbers):
            return pa.array([], pa.string())
        if len(self._chunks) > 1:
            self._starts, self._chunks = [0], [pa.concat_arrays(self._chunks)]
        return self._chunks[0].take(pa.array(numbers))

    def keep(self, numbers: I64) -> None:
        """Forget all but these; the one at place i becomes i."""
        kept = self.take(numbers)
        self.__init__(self._hash_key)  # type: ignore[misc]
        self.of(kept)


class Pairs:
    """Pairs (source, vendor) by number, with the numbers of both and the time of the last click,
    ms. The source `""` stands for all those that made room for others."""

    def __init__(self, hash_key: HashKey = NO_KEY) -> None:
        self._hash_key = hash_key
        self.sources, self.vendors = Names(hash_key), Names(hash_key)
        self.nobody = self.sources.number("")
        self._numbers = KeyNumbers(hash_key)
        self._click_ts_ms = np.zeros(ENTRIES_MIN, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def source(self) -> I64:
        """The source of each pair, int64 (len,)."""
        return (self._numbers.keys >> _SHIFT).astype(np.int64)

    def source_of(self, pairs: I64) -> I64:
        """The source of each of these pairs, int64 (n,)."""
        return (self._numbers.keys[pairs] >> _SHIFT).astype(np.int64)

    @property
    def vendor(self) -> I64:
        """The vendor of each pair, int64 (len,)."""
        return (self._numbers.keys & np.uint64(0xFFFFFFFF)).astype(np.int64)

    @property
    def click_ts_ms(self) -> I64:
        """Event time of the last click of each pair, int64 (len,), to be changed in place."""
        return self._click_ts_ms[: len(self)]

    def of(self, source: pa.Array, vendor: pa.Array) -> I64:
        """The pair of each row, int64 (n,)."""
        sources, vendors = (
            self.sources.of(source).astype(np.uint64),
            self.vendors.of(vendor).astype(np.uint64),
        )
        numbers = self._numbers.of(sources << _SHIFT | vendors)
        if len(self) > len(self._click_ts_ms):
            grown = np.zeros(len(self._numbers._keys), np.int64)
            grown[: len(self._click_ts_ms)] = self._click_ts_ms
            self._click_ts_ms = grown
        return numbers

    def number(self, source: str, vendor: str) -> int:
        return int(self.of(pa.array([source], pa.string()), pa.array([vendor], pa.string()))[0])

    def names(self, pair: int) -> tuple[str, str]:
        key = int(self._numbers.keys[pair])  # of this one alone: there may be a million others
        return self.sources[key >> 32], self.vendors[key & 0xFFFFFFFF]

    def keys(self, pairs: I64) -> U64:
        """Of these pairs, as `pair_keys` has them, uint64 (n,)."""
        vendor = self._numbers.keys[pairs] & np.uint64(0xFFFFFFFF)
        return _mixed(self.sources.hashes[self.source_of(pairs)], self.vendors.hashes[vendor])

    def columns(self, pairs: I64) -> tuple[pa.Array, pa.Array]:
        """Their sources and vendors, as strings."""
        return self.sources.take(self.source[pairs]), self.vendors.take(self.vendor[pairs])

    def keep(self, pairs: I64) -> I64:
        """Forget all pairs but these (rising), and names that none of them has. The new number of
        each old pair, -1 where it is forgotten, int64 (old len,)."""
        source, vendor = self.columns(pairs)
        clicks = self.click_ts_ms[pairs]
        renumbered = np.full(len(self), -1, np.int64)
        renumbered[pairs] = np.arange(len(pairs))
        self.__init__(self._hash_key)  # type: ignore[misc]
        self.of(source, vendor)
        self.click_ts_ms[:] = clicks
        return renumbered


def pair_keys(sources: pa.Array, vendors: pa.Array, hash_key: HashKey) -> U64:
    """One 64-bit key for each (source, vendor), uint64 (n,): the same wherever it is computed
    with one key."""
    return _mixed(hash_strings(sources, hash_key), hash_strings(vendors, hash_key))


def _mixed(source: U64, vendor: U64) -> U64:
    mixed: U64 = (source ^ (source >> _SHIFT)) * GOLDEN + vendor
    return mixed


@kernel
def _number(
    index: I64, keys: U64, count: int, limit: int, words: U64, wanted: U64, numbers: I64
) -> int:
    mask = np.int64(len(index) - 1)
    for i in range(len(wanted)):
        key = wanted[i]
        at = np.int64(mix64(mix64(key ^ words[0]) + words[1])) & mask
        while index[at] >= 0 and keys[index[at]] != key:
            at = (at + 1) & mask
        if index[at] < 0 and count < limit:
            index[at] = count
            keys[count] = key
            count += 1
        numbers[i] = index[at]
    return count


def joined(parts: Sequence[I64]) -> I64:
    """All of them, int64; empty where there are none."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
