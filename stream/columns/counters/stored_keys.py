"""What one thing that is kept has of each key, on disk, with a bounded cache (J4a).

Keys lie by slice (J3), rising: what a bucket publishes anew is one reach of the disk.
"""

from typing import Generic

import numpy as np

from stream.columns.counters.row_bytes import RowBytes, Rows
from stream.columns.counters.totals import slice_of
from stream.kernels import U64, Bools
from stream.log.rows import StoredRows

_KEY = np.dtype([("slice", ">u4"), ("key", ">u8")])


class StoredKeys(Generic[Rows]):
    """Totals or sequences by key. Several share one `StoredRows`, by name. Raises RowsFailed."""

    def __init__(
        self,
        stored: StoredRows,
        name: str,
        slices: int,
        row_bytes: RowBytes[Rows],
        *,
        held: bool = True,
    ) -> None:
        """`held`: rows that were asked for or put lately are held in memory as they lie on disk."""
        self._stored, self._slices, self._held = stored, slices, held
        self._row_bytes: RowBytes[Rows] = row_bytes
        self._prefix = name.encode() + b"\0"
        self._width = len(self._prefix) + _KEY.itemsize
        self._sizes: dict[int, int] = {}  # keys of each slice when its turn came

    def __len__(self) -> int:
        """Keys, as far as their slices have had their turn."""
        return sum(list(self._sizes.values()))  # asked by a thread beside

    def find(self, keys: U64) -> Rows:
        """Of these keys, in their order, whatever it is; zeros, or no clicks, where there are
        none."""
        distinct, at = np.unique(keys, return_inverse=True)
        found: Rows = self._row_bytes.decoded(distinct, self._rows(distinct))
        return found.take(at)

    def put(self, rows: Rows) -> None:
        """These in the place of those that there are. Their keys are distinct."""
        self._put(self._names(rows.keys), self._row_bytes.encoded(rows))

    def forget(self, keys: U64) -> None:
        """They have nothing any more."""
        numbers, gone = np.unique(slice_of(keys, self._slices), return_counts=True)
        for number, n in zip(numbers.tolist(), gone.tolist(), strict=True):
            self._sizes[number] = max(0, self._sizes.get(number, 0) - n)
        self._put(self._names(keys), [b""] * len(keys))

    def forget_all(self) -> None:
        """No key has anything any more."""
        for number in range(self._slices):
            names, _ = self._stored.items(self._slice_name(number))
            self._put(names, [b""] * len(names))
        self._sizes.clear()

    def of_slice(self, number: int) -> Rows:
        """All of one slice, keys rising."""
        names, values = self._stored.items(self._slice_name(number))
        self._sizes[number] = len(names)
        table = np.frombuffer(b"".join(names), np.uint8).reshape(len(names), self._width)
        keys = np.ascontiguousarray(table[:, len(self._prefix) :]).view(_KEY).reshape(len(names))
        found: Rows = self._row_bytes.decoded(keys["key"].astype(np.uint64), values)
        return found

    def replace_slice(self, number: int, rows: Rows) -> None:
        """J3: of the keys of one slice, those that are not in `rows` have nothing any more; `rows`
        may hold keys of other slices too."""
        names = self._names(rows.keys)
        said = dict(zip(names, self._row_bytes.encoded(rows), strict=True))
        held = dict(zip(*self._stored.items(self._slice_name(number)), strict=True))
        changed = dict(said.items() - held.items())
        changed |= dict.fromkeys(held.keys() - said.keys(), b"")
        self._put(list(changed), list(changed.values()))
        self._sizes[number] = int(self.is_of_slice(rows.keys, number).sum())

    def is_of_slice(self, keys: U64, number: int) -> Bools:
        """Which of these keys, (n,), are in a slice."""
        found: Bools = slice_of(keys, self._slices) == number
        return found

    def _rows(self, keys: U64) -> list[bytes]:
        return self._stored.get(self._names(keys), hold=self._held)

    def _put(self, names: list[bytes], values: list[bytes]) -> None:
        self._stored.put(names, values, hold=self._held)

    def _slice_name(self, number: int) -> bytes:
        return self._prefix + number.to_bytes(4, "big")

    def _names(self, keys: U64) -> list[bytes]:
        table = np.empty((len(keys), self._width), np.uint8)
        table[:, : len(self._prefix)] = np.frombuffer(self._prefix, np.uint8)
        ends = np.empty(len(keys), _KEY)
        ends["slice"], ends["key"] = slice_of(keys, self._slices), keys
        table[:, len(self._prefix) :] = ends.view(np.uint8).reshape(len(keys), _KEY.itemsize)
        return table.reshape(-1).view(f"V{self._width}").tolist()  # type: ignore[no-any-return]
