"""The newest rows of one thing that is kept, by key, in rooms: what `StoredKeys` reads of (J4a)."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from stream.columns.counters.key_sequences import KeySequences, together
from stream.columns.counters.key_table import KeyTable
from stream.columns.counters.sequence_words import (
    copy_words,
    same_words,
    sequences_at,
    words_of,
)
from stream.columns.counters.totals import KeyTotals, totals_together
from stream.kernels import I64, U64, Bools
from stream.log.rows import Room, Rooms

Rows = TypeVar("Rows", KeyTotals, KeySequences)

_WORD_BYTES, _ARENA_MIN = 8, 4_096
_LOW = np.uint64(0xFFFFFFFF)


class KeyRows(Protocol[Rows]):
    """Raises RowsFailed where there is no room."""

    rooms: Rooms

    def __len__(self) -> int:
        """Keys that have a row."""

    def find(self, keys: U64) -> Rows:
        """Of these keys, in their order, whatever it is; zeros, or no clicks, of those that have
        none."""

    def put(self, rows: Rows) -> None:
        """These in the place of those that there are. Their keys are distinct."""

    def drop(self, keys: U64) -> None:
        """They have nothing any more."""

    def clear(self) -> None:
        """Nobody has anything any more."""

    def expect(self, keys: int) -> None:
        """Room for so many keys in all, of rows as large as those that there are."""

    def together(self, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, one at least, behind each other."""

    def same(self, rows: Rows, others: Rows) -> Bools:
        """Which rows, (n,), are as the others say, which are of the same keys."""

    def packed(self, rows: Rows, ends: I64) -> list[bytes]:
        """The rows [ends[i], ends[i + 1]) as bytes, keys first."""

    def unpacked(self, pack: bytes) -> Rows:
        """The same back."""


class TotalsRows:
    """See `KeyRows`: 32 bytes a key, and room for what comes."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms, self._table = rooms, KeyTable(rooms, 3)

    def __len__(self) -> int:
        return len(self._table)

    def find(self, keys: U64) -> KeyTotals:
        rows = self._table.find(keys)
        negatives, clicks, bucket = (np.ascontiguousarray(column) for column in rows.T)
        return KeyTotals(
            keys, negatives.view(np.float64), clicks.view(np.float64), bucket.view(np.int64)
        )

    def put(self, rows: KeyTotals) -> None:
        self._table.put(rows.keys, _matrix(rows)[:, 1:])

    def drop(self, keys: U64) -> None:
        self._table.drop(keys)

    def clear(self) -> None:
        self._table.clear()

    def expect(self, keys: int) -> None:
        self._table.reserve(keys - len(self))

    def together(self, parts: Sequence[KeyTotals]) -> KeyTotals:
        return totals_together(parts)

    def same(self, rows: KeyTotals, others: KeyTotals) -> Bools:
        pairs = zip(rows[1:], others[1:], strict=True)
        found: Bools = np.logical_and.reduce([a == b for a, b in pairs])
        return found

    def packed(self, rows: KeyTotals, ends: I64) -> list[bytes]:
        matrix = _matrix(rows)
        parts = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        return [_headed(b - a, matrix[a:b].T) for a, b in parts]

    def unpacked(self, pack: bytes) -> KeyTotals:
        count = _count(pack)
        keys, negatives, clicks, bucket = np.frombuffer(pack, np.uint64, offset=8).reshape(4, count)
        return KeyTotals(
            keys, negatives.view(np.float64), clicks.view(np.float64), bucket.view(np.int64)
        )


class SequencesRows:
    """See `KeyRows`: rows of words in an arena, where each is kept in its place as long as it fits
    there."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._table = KeyTable(rooms, 2)  # where a row begins; how many words it may have and has
        self._room: Room | None = None
        self._words: I64 = np.zeros(0, np.int64)
        self._end = self._left = 0  # words taken, and of these those that no key has any more

    def __len__(self) -> int:
        return len(self._table)

    def find(self, keys: U64) -> KeySequences:
        starts, _, _ = self._places(keys)
        return sequences_at(keys, self._words, starts)

    def put(self, rows: KeySequences) -> None:
        words, sizes = words_of(rows)
        begins = np.cumsum(sizes) - sizes
        spare = sizes + sizes // 4 + 1  # for a click more
        if self._end + spare.sum() > len(self._words):
            self._grow(int(spare.sum()))
        starts, had, size = self._places(rows.keys)
        stays = same_words(
            self._words, np.where(size == sizes, starts, -1), words, begins, sizes
        ) | (rows.keys == 0)
        moves = ~stays & (sizes > had)
        self._left += int(had[moves].sum())
        through = np.cumsum(np.where(moves, spare, 0))
        starts = np.where(moves, self._end + through - spare, starts)
        self._end += int(through[-1]) if len(through) else 0
        had = np.where(moves, spare, had)
        changed = np.flatnonzero(~stays)
        at, n = starts[changed], sizes[changed]
        self.rooms.look(self._room, at * _WORD_BYTES)
        copy_words(words, begins[changed], self._words, at, n)
        self._table.put(rows.keys[changed], _cells(at, had[changed], n))

    def drop(self, keys: U64) -> None:
        self._left += int(self._places(keys)[1].sum())
        self._table.drop(keys)

    def clear(self) -> None:
        self._table.clear()
        self.rooms.leave(self._room)
        self._room, self._words = None, np.zeros(0, np.int64)
        self._end = self._left = 0

    def expect(self, keys: int) -> None:
        more = keys - len(self)
        self._table.reserve(more)
        if more > 0:
            self._grow(self._end // max(1, len(self)) * more // 2)  # half: it takes twice that

    def together(self, parts: Sequence[KeySequences]) -> KeySequences:
        return together(parts)

    def same(self, rows: KeySequences, others: KeySequences) -> Bools:
        (a, sizes), (b, of_others) = words_of(rows), words_of(others)
        at_a = np.where(sizes == of_others, np.cumsum(sizes) - sizes, -1)
        return same_words(a, at_a, b, np.cumsum(of_others) - of_others, sizes)

    def packed(self, rows: KeySequences, ends: I64) -> list[bytes]:
        words, sizes = words_of(rows)
        through = np.append(0, np.cumsum(sizes))
        parts = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        return [
            _headed(b - a, rows.keys[a:b], sizes[a:b], words[through[a] : through[b]])
            for a, b in parts
        ]

    def unpacked(self, pack: bytes) -> KeySequences:
        count = _count(pack)
        keys = keys_of(pack)
        words = np.frombuffer(pack, np.int64, offset=8 * (1 + count))
        sizes, words = words[:count], words[count:]
        return sequences_at(keys, words, np.cumsum(sizes) - sizes)

    def _places(self, keys: U64) -> tuple[I64, I64, I64]:
        """(where the row of each key begins, -1 where there is none; how many words it may have;
        how many it has)."""
        rows = self._table.find(keys)
        had = (rows[:, 1] >> np.uint64(32)).astype(np.int64)
        starts = np.where(had > 0, rows[:, 0].astype(np.int64), -1)
        self.rooms.look(self._room, starts[starts >= 0] * _WORD_BYTES)
        return starts, had, (rows[:, 1] & _LOW).astype(np.int64)

    def _grow(self, more: int) -> None:
        """Into another room, without what no key has any more."""
        live = self._end - self._left
        room = self.rooms.room(max(_ARENA_MIN, 2 * (live + more)) * _WORD_BYTES)
        words: I64 = room.bytes.view(np.int64)
        cells = self._table.cells
        taken = np.flatnonzero(cells[:, 0])
        had = (cells[taken, 2] >> np.uint64(32)).astype(np.int64)
        starts = np.cumsum(had) - had
        sizes = (cells[taken, 2] & _LOW).astype(np.int64)
        copy_words(self._words, cells[taken, 1].astype(np.int64), words, starts, sizes)
        cells[taken, 1] = starts.astype(np.uint64)
        self.rooms.leave(self._room)
        self._room, self._words = room, words
        self._end, self._left = live, 0
        self._table.look_through()
        self.rooms.look_through(room, live * _WORD_BYTES)


def keys_of(pack: bytes) -> U64:
    """The keys of a pack alone."""
    return np.frombuffer(pack, np.uint64, _count(pack), offset=8)


def _matrix(rows: KeyTotals) -> U64:
    """(n, 4) words: key, negatives, clicks, bucket."""
    columns = (rows.keys, rows.negatives, rows.clicks, rows.bucket)
    return np.stack([np.ascontiguousarray(one).view(np.uint64) for one in columns], axis=1)


def _cells(starts: I64, had: I64, sizes: I64) -> U64:
    words = had.astype(np.uint64) << np.uint64(32) | sizes.astype(np.uint64)
    return np.stack([starts.astype(np.uint64), words], axis=1)


def _headed(count: int, *columns: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    return b"".join((count.to_bytes(8, "little"), *(one.tobytes() for one in columns)))


def _count(pack: bytes) -> int:
    return int.from_bytes(pack[:8], "little")
