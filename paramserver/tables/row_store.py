"""Records under 64-bit keys: the memory of a table. Who is found, who is new, who has died, and
copies of it all.

Row numbers mean nothing outside: whatever leaves a row store is sorted by key. A row touched before
the horizon is dead: it is not found, it is in no copy, and its memory is taken back by a sweep that
goes on a little with every push.
"""

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys
from paramserver.tables.ages import Ages
from paramserver.tables.arena import Arena
from paramserver.tables.cow_copy import Copy
from paramserver.tables.hash_index import AHEAD, Cells, Index, Span, add, discard, find, row_of
from paramserver.tables.row_header import (
    FREE,
    HEAD,
    TOUCHED,
    VERSION,
    RowNumbers,
    Words,
    ask_for,
    heads,
    key_of,
    rebase,
    set_key,
    version_base,
)
from paramserver.tables.tombstones import Tombstones
from stream.kernels import kernel

#: Rows that a new store has room for.
ROWS_MIN = 16
#: Records looked at by the sweep for each row that is asked room for.
SWEPT_PER_ROW = 8


@kernel
def _hold(words: Words, size: int, keys: Keys, rows: RowNumbers, horizon: int) -> int:
    """rows[i] = -1 where that row is not a living one of keys[i] any more. Returns how many are -1.

    Asks for a record, and looks at it `AHEAD` keys later.
    """
    missing, count = 0, len(rows)
    at_words, nbytes = np.uint64(words.ctypes.data), 4 * words.shape[1]
    for asked in range(count + AHEAD):
        if asked < count:
            if rows[asked] >= size:
                rows[asked] = -1
            elif rows[asked] >= 0:
                ask_for(at_words + np.uint64(rows[asked]) * np.uint64(nbytes), nbytes)
        looked = asked - AHEAD
        if looked >= 0:
            r = rows[looked]
            holds = (
                r >= 0 and key_of(words, r) == keys[looked] and words[r, 2] != np.uint32(0xFFFFFFFF)
            )
            if not holds or np.int64(words[r, 3]) < horizon:
                rows[looked] = -1
                missing += 1
    return missing


@kernel
def _seek(
    cells: Cells, old: Cells, span: Span, words: Words, keys: Keys, rows: RowNumbers, horizon: int
) -> RowNumbers:
    """Look up the keys whose row is -1. Returns the indices of those that have none."""
    unknown = np.empty(len(keys), np.int64)
    count = 0
    for i in range(len(keys)):
        if rows[i] >= 0:
            continue
        r = row_of(cells, old, span, words, keys[i])
        if r >= 0 and np.int64(words[r, 3]) >= horizon:
            rows[i] = r
        else:
            unknown[count] = i
            count += 1
    return unknown[:count]


@kernel
def _create(
    cells: Cells,
    old: Cells,
    span: Span,
    words: Words,
    size: int,
    free: RowNumbers,
    frees: int,
    keys: Keys,
    rows: RowNumbers,
    done: int,
) -> tuple[int, int, int]:
    """Give every key from `done` on a record: its dead one, a free one, or the next; the stamp is
    left. Stops where the index is strained. Returns (size, frees, done)."""
    for i in range(done, len(keys)):
        if span[3] > 0:
            return size, frees, i
        r = row_of(cells, old, span, words, keys[i])
        if r < 0:
            if frees > 0:
                frees -= 1
                r = free[frees]
            else:
                r = size
                size += 1
            set_key(words, r, keys[i])
            add(cells, old, span, keys[i], r)
        rows[i] = r
    return size, frees, len(keys)


@kernel
def _stamp(words: Words, rows: RowNumbers, version: int, touched_s: int) -> None:
    for i in range(len(rows)):
        r = rows[i]
        if r >= 0:
            words[r, 2] = np.uint32(version)
            if touched_s > np.int64(words[r, 3]):
                words[r, 3] = np.uint32(touched_s)


@kernel
def _periods(
    words: Words, rows: RowNumbers, period_s: int, now_s: int, periods: npt.NDArray[np.int64]
) -> bool:
    due = False
    for i in range(len(rows)):
        periods[i] = (
            now_s // period_s - np.int64(words[rows[i], 3]) // period_s if rows[i] >= 0 else 0
        )
        due |= periods[i] > 0
    return due


@kernel
def _dead(words: Words, first: int, stop: int, horizon: int) -> RowNumbers:
    """The records of [first, stop) that hold a dead row."""
    found = np.empty(stop - first, np.int64)
    count = 0
    for r in range(first, stop):
        if np.int64(words[r, 3]) < horizon and words[r, 2] != np.uint32(0xFFFFFFFF):
            found[count] = r
            count += 1
    return found[:count]


@kernel
def _remove(
    cells: Cells,
    old: Cells,
    span: Span,
    words: Words,
    rows: RowNumbers,
    keys: Keys,
    touched_s: npt.NDArray[np.int64],
) -> None:
    for i in range(len(rows)):
        r = rows[i]
        keys[i] = key_of(words, r)
        touched_s[i] = words[r, 3]
        discard(cells, old, span, words, keys[i])
        words[r, 2] = np.uint32(0xFFFFFFFF)


class RowStore:
    """Rows of `payload` words by key. One writer; `find` may not run beside anything that changes
    it.

    `mortal`: rows may die, so their ages are counted. `secret`: of the index.
    """

    def __init__(self, payload: int, capacity: int, mortal: bool, secret: int = 0) -> None:
        self.payload = payload
        self.index = Index(secret)
        self._arena = Arena(max(capacity, ROWS_MIN), HEAD + payload, np.uint32)
        self._free = Arena(ROWS_MIN, 1, np.int64)
        self._frees = 0
        self._size = 0  # records in use, free ones included
        self._sweep_at = 0
        self.ages = Ages() if mortal else None
        self.tombstones = Tombstones()
        self.version = 0  # the shard's; `advance_to` alone changes it
        self.base = 0  # of the versions in rows (`record`)
        self._copies: list[Copy] = []

    # --- looking
    # ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Living rows."""
        return self.ages.live if self.ages else self._size

    @property
    def words(self) -> Words:
        return self._arena.array

    @property
    def horizon_s(self) -> int:
        return self.ages.horizon_s if self.ages else 0

    @property
    def nbytes(self) -> int:
        """Memory reserved, in bytes; what no row has used yet is not taken."""
        return self.index.nbytes + self._arena.array.nbytes

    def find(self, keys: Keys, rows: RowNumbers, nbytes: int) -> int:
        """rows[i] = row of keys[i] or -1, the first `nbytes` of its record on their way. Returns
        how many are -1."""
        i = self.index
        return find(i.cells, i.old, i.span, self.words, keys, rows, self.horizon_s, nbytes)

    def hold(self, keys: Keys, rows: RowNumbers) -> int:
        """`find` for rows that were found before: those that hold still, -1 for the others."""
        return _hold(self.words, self._size, keys, rows, self.horizon_s)

    def seek(self, keys: Keys, rows: RowNumbers) -> RowNumbers:
        """Look up the keys whose row is -1. Returns the indices of those without a living row."""
        i = self.index
        return _seek(i.cells, i.old, i.span, self.words, keys, rows, self.horizon_s)

    # --- changing
    # ----------------------------------------------------------------------------------------------

    def reserve(self, rows: int) -> None:
        """Make room for so many new rows. MemoryError leaves everything as it was."""
        wanted = self._size + rows
        cells = self.index.larger(wanted)
        if wanted > len(self.words):
            self._arena.grow(max(wanted, len(self.words) * 3 // 2))
        if cells is not None:
            self.index.grow(cells)
        self.index.move(rows)

    def create(self, keys: Keys, touched_s: npt.NDArray[np.int64] | int) -> RowNumbers:
        """Records for distinct keys that have no living row; their payload is the caller's to
        write, and the stamp."""
        rows = np.empty(len(keys), np.int64)
        i = self.index
        if self._copies:
            dead = np.full(len(keys), -1, np.int64)
            _seek(i.cells, i.old, i.span, self.words, keys, dead, 0)
            self.save(dead)
        done = 0
        while done < len(keys):
            if i.is_strained:
                i.reseed(self.words, self._size)
            self._size, self._frees, done = _create(
                i.cells,
                i.old,
                i.span,
                self.words,
                self._size,
                self._free.array[:, 0],
                self._frees,
                keys,
                rows,
                done,
            )
        # Newer than every copy that has begun, so that none takes them for rows of its moment.
        self.words[rows, VERSION], self.words[rows, TOUCHED] = self.version - self.base, touched_s
        if self.ages:
            self.ages.enter(self.words[rows, 3].astype(np.int64))
        return rows

    def periods(self, rows: RowNumbers, period_s: int, now_s: int) -> npt.NDArray[np.int64] | None:
        """How many boundaries of periods lie between each row's last touch and now; None if none
        does."""
        periods = np.empty(len(rows), np.int64)
        return periods if _periods(self.words, rows, period_s, now_s, periods) else None

    def stamp(self, rows: RowNumbers, version: int, now_s: int) -> None:
        """These living rows (-1: none) are about to change: keep them for copies, write down the
        touch."""
        self.save(rows)
        if self.ages:
            self.ages.touch(self.words, rows, now_s)
        _stamp(self.words, rows, version - self.base, now_s)

    def advance(self, version: int, horizon_s: int, rows: int) -> None:
        """A push of so many rows begins: what is older than the horizon dies, the sweep goes on
        a little."""
        self.advance_to(version)
        if self.ages:
            if self.ages.raise_horizon(horizon_s):
                self.tombstones.risen(self.ages.horizon_s, version)
            if self.ages.live < self._size - self._frees:
                self._sweep(SWEPT_PER_ROW * rows + ROWS_MIN)

    def advance_to(self, version: int) -> None:
        """The shard is at this version, or was beyond it before. Moves the base of the versions in
        rows where it must: all rows at once, and first those that a copy still lacks of a moment
        before the new base."""
        self.version = max(self.version, version)
        base = version_base(self.version)
        if base == self.base:
            return
        for copy in self._copies:
            while copy.until < base and not copy.advance(self.words, self._size, self.base):
                pass
        rebase(self.words, self._size, base - self.base)
        self.base = base

    def cull(self, live: int, version: int, now_s: int) -> None:
        """Let the longest untouched rows die until at most `live` are left; never those of the
        present seconds."""
        assert self.ages is not None
        if self.ages.raise_horizon(self.ages.horizon_for(live, now_s)):
            self.tombstones.risen(self.ages.horizon_s, version)

    def _sweep(self, records: int) -> None:
        """Take back the memory of dead rows among the next records; behind the last one comes
        the first."""
        first = self._sweep_at if self._sweep_at < self._size else 0
        stop = min(first + records, self._size)
        rows = _dead(self.words, first, stop, self.horizon_s)
        if left := min(records, self._size) - (stop - first):
            # At once: after each push that brings new rows there are some behind the last, and none
            # of them is dead.
            rows = np.concatenate([rows, _dead(self.words, 0, left, self.horizon_s)])
            stop = left
        self._sweep_at = stop
        if not len(rows):
            return
        self.save(rows)
        self.tombstones.swept(*self._take_back(rows))

    def _take_back(self, rows: RowNumbers) -> tuple[Keys, npt.NDArray[np.int64]]:
        """These records are free from now on. Returns the keys that they had, and when they were
        touched, s."""
        keys, touched_s = np.empty(len(rows), np.uint64), np.empty(len(rows), np.int64)
        i = self.index
        _remove(i.cells, i.old, i.span, self.words, rows, keys, touched_s)
        if self._frees + len(rows) > len(self._free.array):
            self._free.grow(2 * (self._frees + len(rows)))
        self._free.array[self._frees : self._frees + len(rows), 0] = rows
        self._frees += len(rows)
        return keys, touched_s

    # --- what another cut says, before any push (X3)
    # --------------------------------------------------------------

    def keys(self) -> Keys:
        """Of all records in use, dead or alive, in no order."""
        n = self._size
        keys, versions, touched_s = (
            np.empty(n, np.uint64),
            np.empty(n, np.int64),
            np.empty(n, np.int64),
        )
        heads(self.words, keys, versions, touched_s)
        used: Keys = keys[versions != FREE]
        return used

    def remove(self, keys: Keys) -> None:
        """These keys (distinct) have no record any more, and did not die here: no tombstone is
        left of them."""
        rows = np.empty(len(keys), np.int64)
        self.find(keys, rows, 0)
        _, touched_s = self._take_back(rows[rows >= 0])
        if self.ages:
            self.ages.leave(touched_s)

    def put(self, keys: Keys, touched_s: npt.NDArray[np.int64]) -> RowNumbers:
        """Records of distinct keys, those that they have or new ones, last touched then; payload
        and version are the caller's to write. Room was reserved."""
        rows = np.empty(len(keys), np.int64)
        self.find(keys, rows, 0)
        there = rows >= 0
        if self.ages:
            self.ages.leave(self.words[rows[there], TOUCHED].astype(np.int64))
            self.ages.enter(touched_s[there])
        self.words[rows[there], TOUCHED] = touched_s[there]
        rows[~there] = self.create(keys[~there], touched_s[~there])
        return rows

    # --- copies
    # ----------------------------------------------------------------------------------------------

    def copy(self, since: int = -1) -> Copy:
        """Begin a copy of the rows with a version above `since`; `advance_copy` it until it is
        done."""
        copy = Copy(self._size, self.payload, since, self.version, self.horizon_s, self.tombstones)
        self._copies = [c for c in self._copies if not c.done]
        self._copies.append(copy)
        return copy

    def advance_copy(self, copy: Copy, rows: int) -> bool:
        """Copy the next so many rows of it. True when it is done."""
        return copy.advance(self.words, rows, self.base)

    def drop(self, copy: Copy) -> None:
        """Nobody wants it any more."""
        self._copies = [c for c in self._copies if c is not copy]

    def save(self, rows: RowNumbers) -> None:
        """These rows are about to change or go: those that a copy still lacks are copied."""
        for copy in self._copies:
            copy.save(self.words, rows, self.base)

    def validate(self) -> None:
        """AssertionError if an invariant does not hold. Reads everything; for tests."""
        n, words, index = self._size, self.words, self.index
        keys, versions, touched_s = (
            np.empty(n, np.uint64),
            np.empty(n, np.int64),
            np.empty(n, np.int64),
        )
        heads(words, keys, versions, touched_s)
        held = np.flatnonzero(versions != FREE)
        cells = np.concatenate([index.cells[index.cells != 0], index.old[index.old != 0]])
        numbers = (cells & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
        assert np.array_equal(np.sort(numbers), held), "each record in use stands in one cell"
        assert len(np.unique(keys[held])) == len(held), "a key has one record"
        assert len(held) <= max(len(index.cells) * 0.85, 1)
        free = np.sort(self._free.array[: self._frees, 0])
        assert np.array_equal(free, np.flatnonzero(versions == FREE)), "the others are free"
        rows = np.full(len(held), -1, np.int64)
        _seek(index.cells, index.old, index.span, words, keys[held], rows, 0)
        assert np.array_equal(rows, held), "every key is found"
        living = held[touched_s[held] >= self.horizon_s]
        assert len(living) == len(self)
        if self.ages:
            self.ages.validate(touched_s[living])
