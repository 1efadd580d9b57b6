"""Totals that were asked for or written lately, as columns of a fixed size: of the keys that fall
on one place the last is held."""

import numpy as np

from stream.columns.counters.totals import KeyTotals, slice_of
from stream.kernels import U64, Bools

#: What a place takes.
PLACE_BYTES = 32


class RecentTotals:
    """Beside what lies on disk; key 0 is nobody's."""

    def __init__(self, bytes_max: int) -> None:
        self.places = max(1, bytes_max // PLACE_BYTES)
        self._keys = np.zeros(self.places, np.uint64)
        self._negatives, self._clicks = np.zeros(self.places), np.zeros(self.places)
        self._bucket = np.zeros(self.places, np.int64)

    @property
    def memory_bytes(self) -> int:
        """Of all places, whether something is held there or not."""
        return self.places * PLACE_BYTES

    def find(self, keys: U64) -> tuple[KeyTotals, Bools]:
        """(what is held of these keys, which are held), (n,)."""
        at = self._at(keys)
        found = KeyTotals(keys, self._negatives[at], self._clicks[at], self._bucket[at])
        return found, (self._keys[at] == keys) & (keys != 0)

    def put(self, rows: KeyTotals) -> None:
        """These are so; of keys that fall on one place any."""
        at = self._at(rows.keys)
        _, last = np.unique(at[::-1], return_index=True)  # one row a place, whole
        last = len(at) - 1 - last
        at = at[last]
        self._keys[at], self._negatives[at] = rows.keys[last], rows.negatives[last]
        self._clicks[at], self._bucket[at] = rows.clicks[last], rows.bucket[last]

    def update(self, rows: KeyTotals) -> None:
        """Those of these that are held are so now."""
        held = self._keys[self._at(rows.keys)] == rows.keys
        self.put(rows.take(held))

    def forget(self, keys: U64) -> None:
        """They are on disk alone, if there."""
        at = self._at(keys)
        self._keys[at[self._keys[at] == keys]] = 0

    def keep_of_slice(self, number: int, slices: int, keys: U64) -> None:
        """Of one slice these keys alone."""
        mine = np.flatnonzero(slice_of(self._keys, slices) == number)
        self._keys[mine[~np.isin(self._keys[mine], keys)]] = 0

    def clear(self) -> None:
        """Nothing is held."""
        self._keys[:] = 0

    def _at(self, keys: U64) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        # other bits than those by which slices are told
        return ((keys >> np.uint64(20)) % np.uint64(self.places)).astype(np.int64)
