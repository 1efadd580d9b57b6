"""Key -> row number: open addressing whose cells lie in the order of their hashes, and that grows a little at a time.

A cell is 8 bytes: the low 32 bits of the key's hash, and the row number + 1 (0 = empty). A key's home is its hash
scaled to the number of cells, so a larger table holds the same cells in the same order: growing moves them in two
sequential passes, without looking at a key, a stretch with each insertion. While it grows there are two tables; cells
up to `moved` (counted from `start`, round the end) stand in the new one, all others in the old one. `moved` always
stands behind an empty cell, so no run of cells lies across it.

Invariants (`validate` of `Slab`): linear probing from its home finds every key in the table where it belongs; at most
LOAD_MAX of the new table, and a few per cent more of an old one, are taken.
"""

import numpy as np
import numpy.typing as npt

from paramserver.arena import zeroed
from paramserver.kernel import kernel, mix64, prefetch
from paramserver.messages import Keys
from paramserver.record import Int, RowNumbers, Words, ask_for_rows, key_of

Cells = npt.NDArray[np.uint64]
Span = npt.NDArray[np.int64]  # (2,): start, moved

#: Share of cells taken at which growth begins, and by how much.
LOAD_MAX, GROWTH = 0.78, 1.4
CELLS_MIN = 32
#: Cells moved for each row that is asked room for: the old table is left when 1 / 8 of its cells in rows have come.
MOVES = 8
ROWS_MAX = (1 << 32) - 2

_LOW = np.uint64(0xFFFFFFFF)
#: Keys of one walk: what they ask for stays in the processor's second cache.
_WALK = 1024
#: Cells that a look-up goes on by, as a rule.
_PROBED = 3


@kernel
def _home(tag: np.uint64, cells: int) -> Int:
    return np.int64((tag * np.uint64(cells)) >> np.uint64(32))


@kernel
def _in_old(tag: np.uint64, old: Cells, span: Span) -> bool:
    """Whether a key of this tag stands in the old table, if anywhere."""
    if len(old) == 0:
        return False
    distance = _home(tag, len(old)) - span[0]
    if distance < 0:
        distance += len(old)
    return bool(distance >= span[1])


@kernel
def _cell_of(cells: Cells, words: Words, key: np.uint64, tag: np.uint64) -> Int:
    """Where the key stands in this table, or -1."""
    at = _home(tag, len(cells))
    while cells[at] != np.uint64(0):
        if cells[at] >> np.uint64(32) == tag and key_of(words, np.int64(cells[at] & _LOW) - 1) == key:
            return at
        at += 1
        if at == len(cells):
            at = 0
    return -1


@kernel
def _tagged(cells: Cells, tag: np.uint64) -> Int:
    """The row of the first cell with this tag, or -1."""
    at = _home(tag, len(cells))
    while cells[at] != np.uint64(0):
        if cells[at] >> np.uint64(32) == tag:
            return np.int64(cells[at] & _LOW) - 1
        at += 1
        if at == len(cells):
            at = 0
    return -1


@kernel
def _put(cells: Cells, cell: np.uint64) -> None:
    at = _home(cell >> np.uint64(32), len(cells))
    while cells[at] != np.uint64(0):
        at += 1
        if at == len(cells):
            at = 0
    cells[at] = cell


@kernel
def _take_out(cells: Cells, hole: Int) -> None:
    """Empty a cell and close the run behind it, so that no tombstone stays."""
    size = len(cells)
    at = hole
    while True:
        at += 1
        if at == size:
            at = 0
        if cells[at] == np.uint64(0):
            break
        home = _home(cells[at] >> np.uint64(32), size)
        if (at - home) % size >= (at - hole) % size:
            cells[hole] = cells[at]
            hole = at
    cells[hole] = np.uint64(0)


@kernel
def row_of(cells: Cells, old: Cells, span: Span, words: Words, key: np.uint64) -> Int:
    """The row of a key, dead or alive, or -1."""
    tag = mix64(key) & _LOW
    table = old if _in_old(tag, old, span) else cells
    at = _cell_of(table, words, key, tag)
    return -1 if at < 0 else np.int64(table[at] & _LOW) - 1


@kernel
def _ask_for_cells(cells: Cells, old: Cells, span: Span, keys: Keys) -> None:
    """Prefetch each key's home, and the next line where a probe is likely to go on."""
    at_cells, at_old = np.uint64(cells.ctypes.data), np.uint64(old.ctypes.data)
    for i in range(len(keys)):
        tag = mix64(keys[i]) & _LOW
        if _in_old(tag, old, span):
            home = at_old + np.uint64(8 * _home(tag, len(old)))
        else:
            home = at_cells + np.uint64(8 * _home(tag, len(cells)))
        prefetch(home)
        prefetch(home + np.uint64(8 * _PROBED))


@kernel
def _look_at_cells(cells: Cells, old: Cells, span: Span, keys: Keys, rows: RowNumbers) -> None:
    """rows[i] = the row of the first cell with the tag of keys[i], or -1."""
    for i in range(len(keys)):
        tag = mix64(keys[i]) & _LOW
        rows[i] = _tagged(old, tag) if _in_old(tag, old, span) else _tagged(cells, tag)


@kernel
def _look_at_rows(
    cells: Cells, old: Cells, span: Span, words: Words, keys: Keys, rows: RowNumbers, horizon: int
) -> int:
    """rows[i] = -1 where that row is dead. Returns how many are -1."""
    missing = 0
    for i in range(len(keys)):
        row = rows[i]
        if row >= 0 and key_of(words, row) != keys[i]:  # two keys of one tag
            row = row_of(cells, old, span, words, keys[i])
        if row < 0 or np.int64(words[row, 3]) < horizon:
            row = -1
            missing += 1
        rows[i] = row
    return missing


@kernel
def find(
    cells: Cells, old: Cells, span: Span, words: Words, keys: Keys, rows: RowNumbers, horizon: int, nbytes: int
) -> int:
    """rows[i] = the row of keys[i] with touched >= horizon, or -1. Returns how many are -1.

    Some keys at a time, in walks of their own: ask for the cells, look at them, ask for the rows' first `nbytes`, look
    at those. A walk that only asks has no branch that depends on what is asked for, so the processor has as many lines
    on their way as it can; one walk that did all of it for keys some way apart took half as long again.
    """
    missing = 0
    for first in range(0, len(keys), _WALK):
        some, found = keys[first : first + _WALK], rows[first : first + _WALK]
        _ask_for_cells(cells, old, span, some)
        _look_at_cells(cells, old, span, some, found)
        ask_for_rows(words, found, nbytes)
        missing += _look_at_rows(cells, old, span, words, some, found, horizon)
    return missing


@kernel
def add(cells: Cells, old: Cells, span: Span, key: np.uint64, row: Int) -> None:
    """Enter a key that is not there."""
    tag = mix64(key) & _LOW
    _put(old if _in_old(tag, old, span) else cells, tag << np.uint64(32) | np.uint64(row + 1))


@kernel
def discard(cells: Cells, old: Cells, span: Span, words: Words, key: np.uint64) -> None:
    """Take a key out that is there."""
    tag = mix64(key) & _LOW
    table = old if _in_old(tag, old, span) else cells
    _take_out(table, _cell_of(table, words, key, tag))


@kernel
def _move(old: Cells, cells: Cells, span: Span, steps: int) -> bool:
    """Move at least `steps` cells, up to an empty one. True if none is left."""
    size, moved = len(old), span[1]
    target = min(size, moved + steps)
    at = (span[0] + moved) % size
    while moved < size:
        cell = old[at]
        if cell != np.uint64(0):
            _put(cells, cell)
            old[at] = np.uint64(0)
        moved += 1
        at += 1
        if at == size:
            at = 0
        if cell == np.uint64(0) and moved >= target:
            break
    if moved == size:  # keys whose home is before the end but that were entered behind it
        at = span[0]
        while old[at] != np.uint64(0):
            _put(cells, old[at])
            old[at] = np.uint64(0)
            at = (at + 1) % size
    span[1] = moved
    return bool(moved == size)


@kernel
def _first_start(cells: Cells) -> Int:
    """The cell behind an empty one."""
    at = 0
    while cells[at] != np.uint64(0):
        at += 1
    return (at + 1) % len(cells)


NO_CELLS: Cells = np.zeros(0, np.uint64)


class Index:
    """The cells and their growth. `cells`, `old`, `span` are what the kernels take."""

    def __init__(self) -> None:
        self.cells: Cells = np.zeros(CELLS_MIN, np.uint64)
        self.old: Cells = NO_CELLS
        self.span: Span = np.zeros(2, np.int64)

    @property
    def nbytes(self) -> int:
        return self.cells.nbytes + self.old.nbytes

    def larger(self, rows: int) -> Cells | None:
        """New cells, if there must be more for `rows` rows: for `grow`. MemoryError changes nothing."""
        if rows <= LOAD_MAX * len(self.cells):
            return None
        if rows > ROWS_MAX:
            raise MemoryError(f"{rows} rows: a table holds at most {ROWS_MAX}")
        return zeroed(int(max(GROWTH * len(self.cells), rows / LOAD_MAX + 1)), np.uint64)

    def grow(self, cells: Cells) -> None:
        """Go on with these cells, moving the present ones bit by bit."""
        while not self.move(len(self.old)):
            pass
        self.old, self.cells = self.cells, cells
        self.span[:] = _first_start(self.old), 0
        if len(cells) > GROWTH * len(self.old) + 1:  # the old ones have no room for what is to come
            self.move(len(self.old))

    def move(self, rows: int) -> bool:
        """Move what is due with the insertion of `rows`. True if nothing is left to move."""
        if len(self.old) and _move(self.old, self.cells, self.span, MOVES * max(rows, 1)):
            self.old = NO_CELLS
        return not len(self.old)
