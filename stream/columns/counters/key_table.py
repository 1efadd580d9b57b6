"""Rows of a few numbers by key, in a room of a disk or of memory: open addressing with linear
probing (Knuth, TAOCP 3, 6.4), columns in and columns out.

Keys are keyed hashes, which nobody can aim at (`counted_keys`); key 0 is nobody's and never there.
What is written is compared first, so that what stays as it was makes no page of a file dirty.
"""

import numpy as np

from stream.kernels import I64, U64, kernel, mix64
from stream.log.rows import Room, Rooms

#: Of a table that is made, and how much of one is taken at most.
CELLS_MIN, LOAD_MAX = 256, 0.7
WORD_BYTES = 8


class KeyTable:
    """Of key k the row `find([k])[0]`, so many words; zeros where there is none. Raises RowsFailed
    where there is no room."""

    def __init__(self, rooms: Rooms, words: int) -> None:
        self._rooms, self._words = rooms, words
        self._room: Room | None = None
        self.cells: U64 = np.zeros((0, 1 + words), np.uint64)  # key (0 = empty), row
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def find(self, keys: U64) -> U64:
        """(n, words) of these keys, (n,), in their order, whatever it is."""
        found = np.zeros((len(keys), self._words), np.uint64)
        if self._rows:
            self._look(keys)
            _find(self.cells, keys, found)
        return found

    def put(self, keys: U64, rows: U64) -> None:
        """These rows, (n, words), in the place of those that there are; keys are distinct."""
        self.reserve(len(keys))
        self._look(keys)
        self._rows += _put(self.cells, keys, rows)

    def drop(self, keys: U64) -> None:
        """They have no rows any more."""
        if self._rows:
            self._look(keys)
            self._rows -= _drop(self.cells, keys)

    def clear(self) -> None:
        """No key has a row any more."""
        self._rooms.leave(self._room)
        self._room, self._rows = None, 0
        self.cells = np.zeros((0, 1 + self._words), np.uint64)

    def reserve(self, more: int) -> None:
        """Room for so many keys more."""
        needed = int((self._rows + more) / LOAD_MAX) + 1
        if needed <= len(self.cells):
            return
        cells = max(CELLS_MIN, 1 << (needed - 1).bit_length())
        width = 1 + self._words
        room = self._rooms.room(cells * width * WORD_BYTES)
        grown: U64 = room.bytes.view(np.uint64).reshape(cells, width)
        _move(self.cells, grown)
        self._rooms.leave(self._room)
        self._room, self.cells = room, grown
        self.look_through()

    def look_through(self) -> None:
        """All cells were looked at."""
        self._rooms.look_through(self._room, self.cells.nbytes)

    def _look(self, keys: U64) -> None:
        if self._room is not None and self._room.on_disk:
            self._rooms.look(self._room, _homes(self.cells, keys))


@kernel
def _homes(cells: U64, keys: U64) -> I64:
    """(n,) at which byte the way of each key begins."""
    out = np.empty(len(keys), np.int64)
    mask, width = np.uint64(len(cells) - 1), WORD_BYTES * cells.shape[1]
    for i in range(len(keys)):
        out[i] = np.int64(mix64(keys[i]) & mask) * width
    return out


@kernel
def _place(cells: U64, key: np.uint64) -> int:
    """The cell of a key, or the empty one that its way ends at."""
    mask = np.uint64(len(cells) - 1)
    at = mix64(key) & mask
    while cells[at, 0] != np.uint64(0) and cells[at, 0] != key:
        at = (at + np.uint64(1)) & mask
    return np.int64(at)  # type: ignore[return-value]


@kernel
def _find(cells: U64, keys: U64, found: U64) -> None:
    for i in range(len(keys)):
        if keys[i] == np.uint64(0):
            continue
        at = _place(cells, keys[i])
        if cells[at, 0] != np.uint64(0):
            for j in range(found.shape[1]):
                found[i, j] = cells[at, 1 + j]


@kernel
def _put(cells: U64, keys: U64, rows: U64) -> int:
    """How many keys are new."""
    fresh = 0
    for i in range(len(keys)):
        if keys[i] == np.uint64(0):
            continue
        at = _place(cells, keys[i])
        if cells[at, 0] == np.uint64(0):
            cells[at, 0] = keys[i]
            fresh += 1
        for j in range(rows.shape[1]):
            if cells[at, 1 + j] != rows[i, j]:
                cells[at, 1 + j] = rows[i, j]
    return fresh


@kernel
def _drop(cells: U64, keys: U64) -> int:
    """How many were there. The run behind a hole is closed, so that no tombstone stays."""
    gone, mask = 0, len(cells) - 1
    for i in range(len(keys)):
        hole = _place(cells, keys[i])
        if keys[i] == np.uint64(0) or cells[hole, 0] == np.uint64(0):
            continue
        gone += 1
        at = hole
        while True:
            at = (at + 1) & mask
            if cells[at, 0] == np.uint64(0):
                break
            home = np.int64(mix64(cells[at, 0]) & np.uint64(mask))
            if ((at - home) & mask) >= ((at - hole) & mask):
                for j in range(cells.shape[1]):
                    cells[hole, j] = cells[at, j]
                hole = at
        for j in range(cells.shape[1]):
            cells[hole, j] = np.uint64(0)
    return gone


@kernel
def _move(former: U64, cells: U64) -> None:
    for i in range(len(former)):
        if former[i, 0] != np.uint64(0):
            at = _place(cells, former[i, 0])
            for j in range(cells.shape[1]):
                cells[at, j] = former[i, j]
