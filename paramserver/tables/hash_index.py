"""Key -> row number: open addressing whose cells lie in the order of their hashes, and that grows a
little at a time.

A cell is 8 bytes: the low 32 bits of the key's hash, and the row number + 1 (0 = empty). A key's
home is its hash scaled to the number of cells, so a larger table holds the same cells in the same
order: growing moves them in two sequential passes, without looking at a key, a stretch with each
insertion. While it grows there are two tables; cells up to `moved` (counted from `start`, round the
end) stand in the new one, all others in the old one. `moved` always stands behind an empty cell, so
no run of cells lies across it.

Keys are keyed hashes, which nobody can aim at (`learners.models.features`); should somebody hold
the secret, or make keys of a module's own, the index has one that no other process has: the tag is
a hash of key and *seed*. And a guard: a key that finds its way longer than DISTANCE_MAX cells, or
past TAGS_MAX others of its tag, as honest keys never do, strains the index. Then it is made anew
with the next seed (`reseed`), once for each REST_PART that the rows have grown. Which rows there
are does not depend on it (S3).

Invariants (`validate` of `RowStore`): linear probing from its home finds every key in the table
where it belongs; at most LOAD_MAX of the new table, and a few per cent more of an old one, are
taken.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from paramserver.kernel import first_of_four, prefetch
from paramserver.messages import Keys
from paramserver.tables.arena import zeroed
from paramserver.tables.row_header import Int, RowNumbers, Words, ask_for, key_of
from stream.kernels import kernel, mix64

Cells = npt.NDArray[np.uint64]
Span = npt.NDArray[
    np.int64
]  # (4,): start, moved, seed (its 64 bits), insertions that were past the guard

#: Share of cells taken at which growth begins, and by how much.
LOAD_MAX, GROWTH = 0.78, 1.4
CELLS_MIN = 32
#: Cells moved for each row that is asked room for: the old table is left when 1 / 8 of its cells in
#: rows have come.
MOVES = 8
ROWS_MAX = (1 << 32) - 2
#: From its home to its cell: of 10^9 keys at a load of 0.78 the longest is some 730 (Knuth 6.4; a
#: run of k cells has a chance of exp(-0.028 k)), of an old table at its fullest 1,600.
DISTANCE_MAX = 2_048
#: Others of a key's tag that it passes by: of 10^9 keys none has more than 7 with 32 bits alike.
TAGS_MAX = 8
#: Rows since the index was made anew, at least, before it is again: this part of them, and so many.
REST_PART, REST_MIN = 8, 1_024

_LOW = np.uint64(0xFFFFFFFF)
#: Cells that a look-up compares at once; as a rule the key is among them.
_PROBED = 4
#: Keys from one place of a walk to the next: about as many lines as a processor has on their way at
#: once.
AHEAD = 16


@kernel
def _tag(key: np.uint64, span: Span) -> np.uint64:
    return mix64(key ^ np.uint64(span[2])) & _LOW  # type: ignore[no-any-return]


@kernel
def _home(tag: np.uint64, cells: int) -> Int:
    return np.int64((tag * np.uint64(cells)) >> np.uint64(32))


@kernel
def _in_old(tag: np.uint64, size: int, start: Int, moved: Int) -> bool:
    """Whether a key of this tag stands in the old table of so many cells, if anywhere. Takes
    numbers, not the arrays: those would be counted as references at every key."""
    if size == 0:
        return False
    distance = _home(tag, size) - start
    if distance < 0:
        distance += size
    return bool(distance >= moved)


@kernel
def _cell_of(cells: Cells, words: Words, key: np.uint64, tag: np.uint64) -> Int:
    """Where the key stands in this table, or -1."""
    at = _home(tag, len(cells))
    while cells[at] != np.uint64(0):
        if (
            cells[at] >> np.uint64(32) == tag
            and key_of(words, np.int64(cells[at] & _LOW) - 1) == key
        ):
            return at
        at += 1
        if at == len(cells):
            at = 0
    return -1


@kernel
def _tagged(cells: Cells, tag: np.uint64) -> Int:
    """The row of the first cell with this tag, or -1. Cells of one tag follow each other from
    its home on."""
    at = _home(tag, len(cells))
    if at + _PROBED <= len(cells):
        found = first_of_four(cells, at, tag)
        if found < _PROBED:
            return np.int64(cells[at + found] & _LOW) - 1
    while cells[at] != np.uint64(0):
        if cells[at] >> np.uint64(32) == tag:
            return np.int64(cells[at] & _LOW) - 1
        at += 1
        if at == len(cells):
            at = 0
    return -1


@kernel
def _put(cells: Cells, cell: np.uint64) -> bool:
    """Whether the guard had nothing against its way."""
    tag = cell >> np.uint64(32)
    at = _home(tag, len(cells))
    distance, same = 0, 0
    while cells[at] != np.uint64(0):
        same += cells[at] >> np.uint64(32) == tag
        distance += 1
        at += 1
        if at == len(cells):
            at = 0
    cells[at] = cell
    return bool((distance <= DISTANCE_MAX) & (same <= TAGS_MAX))


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
    tag = _tag(key, span)
    table = old if _in_old(tag, len(old), span[0], span[1]) else cells
    at = _cell_of(table, words, key, tag)
    return -1 if at < 0 else np.int64(table[at] & _LOW) - 1


@kernel
def find(
    cells: Cells,
    old: Cells,
    span: Span,
    words: Words,
    keys: Keys,
    rows: RowNumbers,
    horizon: int,
    nbytes: int,
) -> int:
    """rows[i] = the row of keys[i] with touched >= horizon, or -1. Returns how many are -1.

    One walk in three places: ask for a key's cells; `AHEAD` keys behind look at them and ask for
    the row's first `nbytes`; as far behind again look at the row. So lines are on their way all the
    time. This pays only where no branch depends on what has been asked for, as a wrong guess throws
    away what follows: hence `first_of_four`.
    """
    missing, count = 0, len(keys)
    at_cells, at_old = np.uint64(cells.ctypes.data), np.uint64(old.ctypes.data)
    at_words, row_bytes = np.uint64(words.ctypes.data), np.uint64(4 * words.shape[1])
    size, start, moved, seed = len(old), span[0], span[1], np.uint64(span[2])
    for asked in range(count + 2 * AHEAD):
        if asked < count:
            tag = mix64(keys[asked] ^ seed) & _LOW
            if _in_old(tag, size, start, moved):
                home = at_old + np.uint64(8 * _home(tag, size))
            else:
                home = at_cells + np.uint64(8 * _home(tag, len(cells)))
            prefetch(home)
            prefetch(home + np.uint64(8 * (_PROBED - 1)))
        looked = asked - AHEAD
        if 0 <= looked < count:
            tag = mix64(keys[looked] ^ seed) & _LOW
            row = _tagged(old, tag) if _in_old(tag, size, start, moved) else _tagged(cells, tag)
            rows[looked] = row
            if row >= 0:
                ask_for(at_words + np.uint64(row) * row_bytes, nbytes)
        checked = looked - AHEAD
        if checked >= 0:
            row = rows[checked]
            if row >= 0 and key_of(words, row) != keys[checked]:  # two keys of one tag
                row = row_of(cells, old, span, words, keys[checked])
            if row < 0 or np.int64(words[row, 3]) < horizon:
                row = -1
                missing += 1
            rows[checked] = row
    return missing


@kernel
def add(cells: Cells, old: Cells, span: Span, key: np.uint64, row: Int) -> None:
    """Enter a key that is not there. One that was past the guard is counted in `span[3]`."""
    tag = _tag(key, span)
    table = old if _in_old(tag, len(old), span[0], span[1]) else cells
    if not _put(table, tag << np.uint64(32) | np.uint64(row + 1)):
        span[3] += 1


@kernel
def discard(cells: Cells, old: Cells, span: Span, words: Words, key: np.uint64) -> None:
    """Take a key out that is there."""
    tag = _tag(key, span)
    table = old if _in_old(tag, len(old), span[0], span[1]) else cells
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
            if not _put(cells, cell):
                span[3] += 1
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
            if not _put(cells, old[at]):
                span[3] += 1
            old[at] = np.uint64(0)
            at = (at + 1) % size
    span[1] = moved
    return bool(moved == size)


@kernel
def _enter_again(former: Cells, cells: Cells, span: Span, words: Words) -> None:
    """Every row of some cells into others, under the seed of now."""
    for i in range(len(former)):
        if former[i] != np.uint64(0):
            row = np.int64(former[i] & _LOW) - 1
            tag = _tag(key_of(words, row), span)
            if not _put(cells, tag << np.uint64(32) | np.uint64(row + 1)):
                span[3] += 1


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

    def __init__(self, secret: int = 0) -> None:
        """`secret`: 64 bits that whoever chooses keys does not know."""
        self.cells: Cells = np.zeros(CELLS_MIN, np.uint64)
        self.old: Cells = NO_CELLS
        self.span: Span = np.zeros(4, np.int64)
        self.reseeded = 0  # times that the guard had it made anew
        self.strained = 0  # keys past the guard, ever
        self._rest = 0  # rows below which it is not made anew again
        self._secret = secret
        self._choose_seed()

    @property
    def nbytes(self) -> int:
        return self.cells.nbytes + self.old.nbytes

    def larger(self, rows: int) -> Cells | None:
        """New cells, if there must be more for `rows` rows: for `grow`. MemoryError changes
        nothing."""
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
        self.span[:2] = _first_start(self.old), 0
        if len(cells) > GROWTH * len(self.old) + 1:  # the old ones have no room for what is to come
            self.move(len(self.old))

    def move(self, rows: int) -> bool:
        """Move what is due with the insertion of `rows`. True if nothing is left to move."""
        if len(self.old) and _move(self.old, self.cells, self.span, MOVES * max(rows, 1)):
            self.old = NO_CELLS
        return not len(self.old)

    @property
    def is_strained(self) -> bool:
        """Whether a key was past the guard since `reseed` was asked last."""
        return bool(self.span[3])

    def reseed(self, words: Words, rows: int) -> None:
        """After a strain: all cells anew under the next seed, if the last time is long enough ago
        for `rows` rows and there is memory for it; else it goes on as it is, slower for those keys.
        """
        self.strained += int(self.span[3])
        self.span[3] = 0
        if rows < self._rest:
            return
        try:
            cells = zeroed(len(self.cells), np.uint64)
        except MemoryError:
            return
        former, self.cells = (self.old, self.cells), cells
        self.old, self.span[:2] = NO_CELLS, 0
        self._rest = rows + max(REST_MIN, rows // REST_PART)
        self.reseeded += 1
        self._choose_seed()
        for some in former:
            _enter_again(some, self.cells, self.span, words)

    def _choose_seed(self) -> None:
        """A function of the secret, and of nothing that a key shows."""
        said = self._secret.to_bytes(8, "little") + self.reseeded.to_bytes(8, "little")
        self.span[2] = int.from_bytes(
            hashlib.blake2b(said, digest_size=8).digest(), "little", signed=True
        )
