"""What one thing that is kept has of each key, on disk (J4a).

What lasts are *packs* of keys in columns: one of each slice (J3), as of its last turn, and behind
it what was put since. Rows are looked up in rooms, which are filled from the packs at the first
use: what a bucket changes is a few dozen writes, whatever number of keys it is about, and no key is
looked for on its own among what lasts.
"""

from typing import Generic

import numpy as np

from stream.columns.counters.key_rows import KeyRows, Rows, keys_of
from stream.columns.counters.totals import slice_of
from stream.kernels import I64, U64, Bools
from stream.log.rows import StoredRows

_PACK, _CHANGES = b"\0", b"\1"


class StoredKeys(Generic[Rows]):
    """Totals or sequences by key. Several share one `StoredRows`, by name. Raises RowsFailed."""

    def __init__(self, stored: StoredRows, name: str, slices: int, rows: KeyRows[Rows]) -> None:
        self._stored, self._slices = stored, slices
        self._rows: KeyRows[Rows] = rows
        self._prefix = name.encode() + b"\0"
        self._changes: dict[int, list[bytes]] = {}  # by slice, the names of what was put since
        self._put_before = 0  # changes of them all
        self._is_loaded = False

    def __len__(self) -> int:
        """Keys; 0 before the first use."""
        return len(self._rows)

    def find(self, keys: U64) -> Rows:
        """Of these keys, in their order, whatever it is; zeros, or no clicks, where there are
        none."""
        self._load()
        return self._rows.find(keys)

    def put(self, rows: Rows) -> None:
        """These in the place of those that there are. Their keys are distinct."""
        self._load()
        self._rows.put(rows)
        self._note(rows)

    def forget_all(self) -> None:
        """No key has anything any more."""
        self._load()
        for number in range(self._slices):
            self._delete_changes(number)
            self._write(self._pack_name(number), b"")
        self._rows.clear()

    def of_slice(self, number: int) -> Rows:
        """All of one slice, keys rising: from what lasts, which stands in one place."""
        packs = self._packs(number)
        if not packs:
            return self._rows.find(np.zeros(0, np.uint64))
        rows = self._rows.together([self._rows.unpacked(pack) for pack in packs])
        order = np.argsort(rows.keys, kind="stable")
        keys = rows.keys[order]
        newest = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        return rows.take(order[newest])

    def keep_slice(self, number: int, rows: Rows) -> None:
        """Of one slice these alone, keys rising, as `of_slice` has given them."""
        self._load()
        for pack in self._packs(number):
            self._rows.drop(_others(keys_of(pack), rows.keys))
        self._delete_changes(number)
        ends: I64 = np.array([0, len(rows.keys)])
        (pack,) = self._rows.packed(rows, ends)
        self._write(self._pack_name(number), pack if len(rows.keys) else b"")

    def replace_slice(self, number: int, rows: Rows) -> None:
        """J3: of the keys of one slice, those that are not in `rows` have nothing any more; `rows`
        may hold keys of other slices too. Their keys rise."""
        mine = self.is_of_slice(rows.keys, number)
        said, others = rows.take(mine), rows.take(~mine)
        changed = self._changed(self.of_slice(number), said)
        self.keep_slice(number, said)
        self._rows.put(changed)
        self._rows.put(others)
        self._note(others)

    def is_of_slice(self, keys: U64, number: int) -> Bools:
        """Which of these keys, (n,), are in a slice."""
        found: Bools = slice_of(keys, self._slices) == number
        return found

    def unload(self) -> None:
        """What lies on disk is deleted by who calls."""
        self._rows.clear()
        self._changes.clear()
        self._is_loaded = False

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        with self._rows.rooms.filling():
            for number in range(self._slices):
                names, packs = self._stored.items(self._slice_name(number))
                for name, pack in zip(names, packs, strict=True):
                    self._rows.put(self._rows.unpacked(pack))
                    if name != self._pack_name(number):
                        self._changes.setdefault(number, []).append(name)
                        self._put_before = max(self._put_before, int.from_bytes(name[-8:], "big"))
                if number == 0:  # slices are of one size
                    self._rows.expect(len(self._rows) * self._slices)

    def _note(self, rows: Rows) -> None:
        """What was put, by slice."""
        if not len(rows.keys):
            return
        self._put_before += 1
        of = slice_of(rows.keys, self._slices)
        order = np.argsort(of, kind="stable")
        numbers, counts = np.unique(of, return_counts=True)
        packs = self._rows.packed(rows.take(order), np.append(0, np.cumsum(counts)))
        for number, pack in zip(numbers.tolist(), packs, strict=True):
            name = self._slice_name(number) + _CHANGES + self._put_before.to_bytes(8, "big")
            self._changes.setdefault(number, []).append(name)
            self._write(name, pack)

    def _packs(self, number: int) -> list[bytes]:
        """Of a slice, the oldest first."""
        self._load()
        names = [self._pack_name(number), *self._changes.get(number, ())]
        return [pack for pack in self._stored.get(names, hold=False) if pack]

    def _changed(self, held: Rows, rows: Rows) -> Rows:
        """The rows that are new, or not as they were. Keys of both rise."""
        if not len(held.keys):
            return rows
        at = np.minimum(np.searchsorted(held.keys, rows.keys), len(held.keys) - 1)
        known = held.keys[at] == rows.keys
        same = known.copy()
        same[known] = self._rows.same(held.take(at[known]), rows.take(known))
        return rows.take(~same)

    def _delete_changes(self, number: int) -> None:
        for name in self._changes.pop(number, ()):
            self._write(name, b"")

    def _write(self, name: bytes, pack: bytes) -> None:
        self._stored.put([name], [pack], hold=False)

    def _pack_name(self, number: int) -> bytes:
        return self._slice_name(number) + _PACK

    def _slice_name(self, number: int) -> bytes:
        return self._prefix + number.to_bytes(4, "big")


def _others(keys: U64, known: U64) -> U64:
    """Those of these keys that are not known, (n,), which rise."""
    if not len(known):
        return keys
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    others: U64 = keys[known[at] != keys]
    return others
