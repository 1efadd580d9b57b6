"""One embedding table of one shard: key -> row of weights and optimizer state.

An open-addressing index leads from a 64-bit key to a row number; rows lie in one slab, weights and state side by side,
so that an update touches one stretch of memory. Row numbers rise by creation and mean nothing outside: whatever leaves
a table is compared and sorted by key.

Invariants (`validate`):
- each row number below `len(table)` stands in exactly one cell, beside its key; every other cell is empty;
- the cells from a key's home to its own are all taken (linear probing finds it);
- at least half of the cells are empty.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.arena import Arena
from paramserver.init import fill_unknown
from paramserver.kernel import kernel, mix64, plain
from paramserver.messages import Keys, Rows, TableSpec
from paramserver.optimizers import RowNumbers, make_optimizer

ROWS_MIN = 16

#: (cells, 2) uint64: key, and row number + 1 (0 = empty, so that key 0 is a key like any other)
Cells = npt.NDArray[np.uint64]


class TableRows(NamedTuple):
    """Rows as they leave and enter a table; in any order of keys."""

    keys: Keys  # (n,) unique
    rows: Rows  # (n, stride): weights (FTRL: z), then state
    touched_ms: npt.NDArray[np.int64]  # (n,) largest event time of the pushes that touched it
    version: npt.NDArray[np.int64]  # (n,) the shard's version after the last of them

    def take(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "TableRows":
        """A copy of the rows of these indices, or of this mask."""
        return TableRows(self.keys[chosen], self.rows[chosen], self.touched_ms[chosen], self.version[chosen])


@kernel
def _find(cells: Cells, keys: Keys, rows: RowNumbers) -> int:
    """rows[i] = row number of keys[i], or -1. Returns how many are unknown."""
    mask = np.uint64(len(cells) - 1)
    unknown = 0
    for i in range(len(keys)):
        key = keys[i]
        at = np.int64(mix64(key) & mask)
        while cells[at, 1] != np.uint64(0) and cells[at, 0] != key:
            at = np.int64((np.uint64(at) + np.uint64(1)) & mask)
        rows[i] = np.int64(cells[at, 1]) - 1
        unknown += rows[i] < 0
    return unknown


@kernel
def _insert(cells: Cells, keys: Keys, rows: RowNumbers, row_keys: Keys, size: int) -> int:
    """Give every key with `rows[i] < 0` the next row number and a cell. Returns the new size.

    The caller has made room. A key that stands twice in `keys` gets one row.
    """
    mask = np.uint64(len(cells) - 1)
    for i in range(len(keys)):
        if rows[i] >= 0:
            continue
        key = keys[i]
        at = np.int64(mix64(key) & mask)
        while cells[at, 1] != np.uint64(0) and cells[at, 0] != key:
            at = np.int64((np.uint64(at) + np.uint64(1)) & mask)
        if cells[at, 1] == np.uint64(0):
            cells[at, 0] = key
            cells[at, 1] = np.uint64(size + 1)
            row_keys[size, 0] = key
            size += 1
        rows[i] = np.int64(cells[at, 1]) - 1
    return size


@kernel
def _index(cells: Cells, row_keys: Keys, size: int) -> None:
    """Fill empty cells with the first `size` rows."""
    mask = np.uint64(len(cells) - 1)
    for r in range(size):
        at = np.int64(mix64(row_keys[r, 0]) & mask)
        while cells[at, 1] != np.uint64(0):
            at = np.int64((np.uint64(at) + np.uint64(1)) & mask)
        cells[at, 0] = row_keys[r, 0]
        cells[at, 1] = np.uint64(r + 1)


@kernel
def _touch(touched: npt.NDArray[np.int64], rows: RowNumbers, version: int, event_ms: int) -> None:
    for i in range(len(rows)):
        r = rows[i]
        touched[r, 0] = version
        touched[r, 1] = max(touched[r, 1], event_ms)


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


class Table:
    """Rows by key. One writer; `pull` may not run beside `apply` or `reserve`."""

    def __init__(self, spec: TableSpec, capacity: int = ROWS_MIN) -> None:
        """ValueError for a spec that cannot be: dimension, optimizer, options, scale, seed."""
        if spec.dim < 1:
            raise ValueError(f"table {spec.name!r}: dim = {spec.dim}, must be at least 1")
        if not 0 <= spec.init_scale < float("inf"):
            raise ValueError(f"table {spec.name!r}: init_scale = {spec.init_scale}, must be 0 or above and finite")
        if not 0 <= spec.seed < 1 << 64:
            raise ValueError(f"table {spec.name!r}: seed = {spec.seed}, must be an unsigned 64-bit integer")
        self.spec = spec
        self.optimizer = make_optimizer(spec.optimizer, spec.options)
        self.stride = spec.dim + self.optimizer.state_size(spec.dim)
        self._seed, self._scale = np.uint64(spec.seed), np.float32(spec.init_scale)
        self._size = 0
        self._capacity = _power_of_two(max(capacity, ROWS_MIN))
        self._cells: Cells = np.zeros((2 * self._capacity, 2), np.uint64)
        self._keys = Arena(self._capacity, 1, np.uint64)
        self._slab = Arena(self._capacity, self.stride, np.float32)
        self._touched = Arena(self._capacity, 2, np.int64)  # version, event time (ms)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        """Memory reserved, in bytes; what no row has used yet is not taken."""
        return self._cells.nbytes + sum(a.array.nbytes for a in (self._keys, self._slab, self._touched))

    def pull(self, keys: Keys) -> Rows:
        """(n,) keys -> (n, dim) weights, new memory; unknown keys answer their initial value. Changes nothing (S3)."""
        keys = plain(keys)
        rows, unknown = self._locate(keys)
        out = np.empty((len(keys), self.spec.dim), np.float32)
        self.optimizer.weights(self._slab.array, rows, out)
        if unknown:
            fill_unknown(out, keys, rows, self._seed, self._scale, self.spec.dim)
        return out

    def reserve(self, keys: Keys) -> None:
        """Make room for all of `keys`, so that `apply` allocates no row. MemoryError leaves the table as it was."""
        if self._size + len(keys) <= self._capacity:
            return
        needed = self._size + self._locate(plain(keys))[1]
        if needed > self._capacity:
            self._grow(_power_of_two(needed))

    def apply(
        self,
        keys: Keys,
        gradients: Rows,
        version: int,
        event_ms: int,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        """One optimizer step for each key (unique), creating unknown rows first. `reserve(keys)` has been called.

        `gradients` is (n, dim) float32, finite; `scale` and `meanwhile` go to the optimizer. `version` (rising) and
        `event_ms` are kept as the rows' last touch.
        """
        rows = self._rows_for(plain(keys))
        self.optimizer.apply(self._slab.array, rows, plain(gradients), scale, meanwhile)
        _touch(self._touched.array, rows, version, event_ms)

    def items(self, since_version: int = -1) -> TableRows:
        """A copy of all rows, or of those touched after `since_version` (a delta), in any order."""
        n = self._size
        keys, slab, touched = self._keys.array[:n, 0], self._slab.array[:n], self._touched.array[:n]
        if since_version < 0:
            return TableRows(keys.copy(), slab.copy(), touched[:, 1].copy(), touched[:, 0].copy())
        chosen = np.flatnonzero(touched[:, 0] > since_version)
        return TableRows(keys[chosen], slab[chosen], touched[chosen, 1], touched[chosen, 0])

    def load(self, items: TableRows) -> None:
        """Set rows, replacing those of the same keys. ValueError if the arrays do not fit this table."""
        if items.keys.dtype != np.uint64 or items.rows.shape != (len(items.keys), self.stride):
            raise ValueError(
                f"table {self.spec.name!r}: {items.keys.dtype} keys and rows {items.rows.shape}, expected uint64 and "
                f"({len(items.keys)}, {self.stride}): dim {self.spec.dim} with {self.spec.optimizer} state"
            )
        keys = plain(items.keys)
        self.reserve(keys)
        rows = self._rows_for(keys)
        self._slab.array[rows] = items.rows
        self._touched.array[rows, 0] = items.version
        self._touched.array[rows, 1] = items.touched_ms

    def validate(self) -> None:
        """AssertionError if an invariant of this file does not hold. Reads everything; for tests."""
        n, cells, keys = self._size, self._cells, self._keys.array[: self._size, 0].copy()
        taken = np.flatnonzero(cells[:, 1])
        numbers = cells[taken, 1].astype(np.int64) - 1
        assert len(taken) == n
        assert 2 * n <= 2 * self._capacity == len(cells)
        assert min(len(a.array) for a in (self._keys, self._slab, self._touched)) >= self._capacity
        assert np.array_equal(np.sort(numbers), np.arange(n)), "each row number stands in one cell"
        assert np.array_equal(keys[numbers], cells[taken, 0]), "beside its key"
        assert len(np.unique(keys)) == n, "a key has one row"
        assert np.array_equal(self._locate(keys)[0], np.arange(n)), "every key is found"
        assert np.isfinite(self._slab.array[:n]).all(), "weights and state are finite"

    def _locate(self, keys: Keys) -> tuple[RowNumbers, int]:
        rows = np.empty(len(keys), np.int64)
        return rows, _find(self._cells, keys, rows)

    def _rows_for(self, keys: Keys) -> RowNumbers:
        """Row numbers of all keys, creating what is unknown with its initial value. Room has been made."""
        rows, unknown = self._locate(keys)
        if unknown:
            start = self._size
            self._size = _insert(self._cells, keys, rows, self._keys.array, start)
            self._slab.array[start : self._size] = self._initial(self._keys.array[start : self._size, 0])
            self._touched.array[start : self._size] = 0
        return rows

    def _initial(self, keys: Keys) -> Rows:
        """(n, stride) new rows."""
        slab = np.empty((len(keys), self.stride), np.float32)
        fill_unknown(slab, keys, np.full(len(keys), -1, np.int64), self._seed, self._scale, self.spec.dim)
        self.optimizer.initialize(slab, self.spec.dim)
        return slab

    def _grow(self, capacity: int) -> None:
        """Room for `capacity` rows: rows do not move, the index is made anew (one pause, some 100 ns a row).

        Nothing changes until all is allocated.
        """
        cells: Cells = np.zeros((2 * capacity, 2), np.uint64)
        for arena in (self._keys, self._slab, self._touched):
            arena.grow(capacity)
        _index(cells, self._keys.array, self._size)
        self._cells, self._capacity = cells, capacity
