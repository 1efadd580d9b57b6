"""One table of a served model: a delta of k rows costs k rows, and who reads an earlier cut goes on
reading it (I6).

A *version* is the table at one cut. Rows are never changed: a delta writes new ones, each of which
says which row it comes after, and then lets the cells name them (`cells`). Who holds an earlier
version passes newer rows by. What an earlier version alone can see becomes free once nobody holds
that version, or one before it; so beyond the rows of one cut the table takes what was replaced
while the longest reading of it lasted.

One thread writes (`add`, `remove`, `publish`); any number read the versions, in this process and in
others that map the same memory, without a lock, each call in one piece of compiled code that other
threads do not wait for. Invariants (`validate`): at most LOAD_MAX of the cells are taken; of two
tables of cells every key of the first is newer than, or as in, the second; a free slot is named by
no cell.
"""

import weakref
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from checkpointer.tables import cells as kernels
from checkpointer.tables.cells import HEAD, Cells, Slots, Words
from paramserver import Keys, Rows, plain

#: Share of cells taken, deleted ones included, at which there are to be more; and the share taken
#: then.
LOAD_MAX, LOAD_NEW = 0.78, 0.5
CELLS_MIN = 64
#: Cells moved for each key that is added, and for each call, while there are two tables of them.
MOVES, MOVES_MIN = 8, 4_096
#: Keys that one call of a kernel takes: what a writer does between two moments at which it can be
#: ended.
CHUNK = 8_192
#: Rows that there is address space for: so many times those of the base, and so many more. Memory
#: is taken when used.
ROOM_FACTOR, ROOM_MORE = 4, 1 << 20
VERSION_MAX = (1 << 31) - 1
NO_CELLS: Cells = np.zeros(0, np.uint64)


class TableMemory(Protocol):
    """Where the tables of one model stand, and how far those are who read them elsewhere (X5)."""

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Memory that holds zeros and is taken only where it is written."""

    def oldest_read(self) -> int:
        """The lowest number of a version that is read elsewhere, or may be; VERSION_MAX = none."""


class PrivateMemory:
    """Of this process alone."""

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        return np.zeros(nbytes, np.uint8)

    def oldest_read(self) -> int:
        return VERSION_MAX


PRIVATE = PrivateMemory()


class Initial(NamedTuple):
    """What a key that has no row answers (S3): `paramserver.tables.initializer.initial_value` of
    these."""

    seed: int = 0
    scale: float = 0.0


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class TableVersion:
    """A table at one cut. It never changes; hold one for as long as it is to be read, and let it go
    then.

    Kernels of one's own take `cells`, `old`, `words`, `weights`, `secret` and `number`: see
    `cells.slot_of`.
    """

    number: int
    rows: int
    dim: int
    #: rows that hold a NaN or an infinity
    not_finite: int
    secret: np.uint64
    initial: Initial
    cells: Cells
    old: Cells
    words: Words
    #: the same memory as `words`
    weights: Rows

    def __len__(self) -> int:
        return self.rows

    def find(self, keys: Keys) -> Slots:
        """(n,) int64: where in `words` and `weights` the keys' rows stand, -1 = a key has none."""
        slots = np.empty(len(keys), np.int64)
        kernels.find(self.cells, self.old, self.words, self.secret, self.number, plain(keys), slots)
        return slots

    def lookup(self, keys: Keys) -> Rows:
        """(n, dim) float32 weights of (n,) uint64 keys; unknown ones have their initial weights
        (S3)."""
        keys = plain(keys)
        out = np.empty((len(keys), self.dim), np.float32)
        seed, scale = np.uint64(self.initial.seed), np.float32(self.initial.scale)
        kernels.gather(self.words, self.weights, self.find(keys), keys, seed, scale, out)
        return out

    def items(self) -> tuple[Keys, Rows]:
        """All of it, rising by key: (n,) uint64 and (n, dim) float32. Reads everything."""
        keys, rows = np.empty(self.rows, np.uint64), np.empty((self.rows, self.dim), np.float32)
        count, ends = 0, len(self.cells) + len(self.old)
        for first in range(0, ends, CHUNK):
            count += kernels.living(
                self.cells, self.old, self.words, self.weights, self.secret, self.number,
                first, min(first + CHUNK, ends), keys[count:], rows[count:],
            )  # fmt: skip
        assert count == self.rows
        order = np.argsort(keys)
        return keys[order], rows[order]


class _Free(NamedTuple):
    """Slots that are free once nobody holds a version below `number`."""

    number: int
    slots: Slots


class _Gone(NamedTuple):
    """Keys that have no row since version `number`, and the slots that say so."""

    number: int
    keys: Keys
    slots: Slots


class VersionedTable:
    """The writer's side. `add` and `remove` prepare the next version, which `publish` makes the one
    that is."""

    def __init__(
        self,
        dim: int,
        rows: int = 0,
        initial: Initial = Initial(),  # noqa: B008 (a tuple)
        secret: int = 0,
        memory: TableMemory = PRIVATE,
    ) -> None:
        """`rows`: to be expected. `secret`: 64 bits that whoever chooses keys does not know."""
        self.dim, self.initial, self.secret = dim, initial, np.uint64(secret)
        self.room = rows * ROOM_FACTOR + ROOM_MORE
        width = HEAD + dim
        self._memory = memory
        room = memory.allocate(self.room * width * 4)
        self.words: Words = room.view(np.uint32).reshape(self.room, width)
        self.weights: Rows = room.view(np.float32).reshape(self.room, width)
        self.cells: Cells = self._new_cells(rows)
        self.old: Cells = NO_CELLS
        self.number = self.rows = self.not_finite = 0
        self._rows = 0  # of the version that is being prepared
        self._counts = np.zeros(1, np.int64)  # likewise: rows that are not finite
        self._taken = self._moved = self._next = 0
        self._free: deque[Slots] = deque()
        self._pending: deque[_Free] = deque()
        self._gone: deque[_Gone] = deque()
        self._readers: weakref.WeakSet[TableVersion] = weakref.WeakSet()
        self.current = self._version()

    @property
    def slots_used(self) -> int:
        """Slots that were ever taken: what the rows' memory grows with."""
        return self._next

    def add(self, keys: Keys, rows: Rows) -> None:
        """Rows (n, dim) of keys (n,), each key once, in the place of those that they have. Nobody
        sees them yet.

        MemoryError where there is no room: the table is then of no use for any further version."""
        if (
            rows.shape != (len(keys), self.dim)
            or rows.dtype != np.float32
            or keys.dtype != np.uint64
        ):
            raise ValueError(
                f"keys {keys.dtype} {keys.shape}, rows {rows.dtype} {rows.shape}: expected uint64 "
                f"(n,) and float32 (n, {self.dim})"
            )
        for at in range(0, len(keys), CHUNK):
            self._put(plain(keys[at : at + CHUNK]), plain(rows[at : at + CHUNK]))

    def remove(self, keys: Keys) -> None:
        """Keys (n,), each once, have no row from the next version on; those that have none are
        passed over."""
        for at in range(0, len(keys), CHUNK):
            self._put(plain(keys[at : at + CHUNK]), None)

    def publish(self) -> TableVersion:
        """What was prepared is a version now."""
        if self.number >= VERSION_MAX:
            raise MemoryError("a table has at most 2^31 versions: load it anew")
        self.number, self.rows = self.number + 1, self._rows
        self.not_finite = int(self._counts[0])
        self.current = self._version()
        self._collect()
        return self.current

    # --- inside ---------------------------------------------------------------------------------

    def _version(self) -> TableVersion:
        version = TableVersion(
            self.number, self.rows, self.dim, self.not_finite, self.secret, self.initial,
            self.cells, self.old, self.words, self.weights,
        )  # fmt: skip
        self._readers.add(version)
        return version

    def _put(self, keys: Keys, rows: Rows | None) -> None:
        """Rows of these keys for the next version, or None: they have none."""
        self._make_room(len(keys))
        places, newest = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        kernels.locate(self.cells, self.old, self.words, self.secret, keys, places, newest)
        dead = np.empty(len(keys), np.bool_)
        counts = self._counts.copy()
        kernels.look_at(self.words, self.weights, newest, dead, counts)
        if rows is None:
            there = ~dead
            keys, places, newest = keys[there], places[there], newest[there]
        slots = self._slots(len(keys))
        if rows is None:
            kernels.write_dead(self.words, keys, slots, newest, self.number + 1)
            self._gone.append(_Gone(self.number + 1, keys, slots))
            self._rows -= len(keys)
        else:
            kernels.write_rows(
                self.words, self.weights, keys, rows, slots, newest, self.number + 1, counts
            )
            self._rows += int(np.count_nonzero(dead))
        self._taken += kernels.link(self.cells, self.secret, keys, slots, places)
        self._pending.append(_Free(self.number + 1, newest[newest >= 0]))
        self._counts = counts

    def _slots(self, count: int) -> Slots:
        """Slots that nobody can see."""
        found: list[Slots] = []
        while count and self._free:
            some = self._free.popleft()
            found.append(some[:count])
            if len(some) > count:
                self._free.appendleft(some[count:])
            count -= len(found[-1])
        if self._next + count > self.room:
            raise MemoryError(
                f"{self._next} rows of {self.room} are taken, {count} more are wanted: load it anew"
            )
        found.append(np.arange(self._next, self._next + count))
        self._next += count
        return np.concatenate(found)

    def _collect(self) -> None:
        """Free what nobody can see any more.

        Who hands a version to another process holds it until that one has stated its epoch: so
        those elsewhere are asked last (X5)."""
        oldest = min((version.number for version in self._readers), default=self.number)
        oldest = min(oldest, self._memory.oldest_read())
        while self._pending and self._pending[0].number <= oldest:
            slots = self._pending.popleft().slots
            if len(slots):
                self._free.append(slots)
        while self._gone and self._gone[0].number <= oldest and not len(self.old):
            _, keys, slots = self._gone.popleft()
            gone = np.empty(len(keys), np.bool_)
            kernels.forget(self.cells, self.words, self.secret, keys, slots, gone)
            # Who reads now may have found the cell just before: not free until they have ended.
            self._pending.append(_Free(self.number + 1, slots[gone]))

    # --- cells ----------------------------------------------------------------------------------

    def _new_cells(self, rows: int) -> Cells:
        return self._memory.allocate(8 * max(CELLS_MIN, int(rows / LOAD_NEW) + 1)).view(np.uint64)

    def _make_room(self, more: int) -> None:
        """Cells for so many more keys; what is there is moved bit by bit."""
        self._move(MOVES * more + MOVES_MIN)
        if self._taken + more <= LOAD_MAX * len(self.cells):
            return
        while len(self.old):
            self._move(CHUNK)
        if self._taken + more > LOAD_MAX * len(self.cells):
            dead = sum(len(gone.keys) for gone in self._gone)
            self.old, self.cells = self.cells, self._new_cells(self._rows + dead + more)
            self._taken = self._moved = 0
            self._move(MOVES_MIN)

    def _move(self, count: int) -> None:
        while count > 0 and len(self.old):
            end = min(self._moved + min(count, CHUNK), len(self.old))
            self._taken += int(kernels.move(self.old, self.cells, self.words, self._moved, end))
            count -= end - self._moved
            self._moved = end
            if end == len(self.old):
                self.old = NO_CELLS

    def validate(self) -> None:
        """AssertionError if an invariant of this file does not hold. Reads everything; for
        tests."""
        taken = int(np.count_nonzero(self.cells))
        assert taken == self._taken
        assert taken <= LOAD_MAX * len(self.cells)
        named = (
            self.cells[self.cells & np.uint64(0xFFFFFFFF) != 0] & np.uint64(0xFFFFFFFF)
        ).astype(np.int64) - 1
        assert len(np.unique(named)) == len(named)
        free = np.concatenate([np.empty(0, np.int64), *self._free])
        assert len(np.unique(free)) == len(free)
        assert not np.isin(free, named).any()
        keys, _ = self.current.items()
        assert (keys[1:] > keys[:-1]).all()
