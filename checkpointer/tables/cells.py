"""Kernels of `versioned_table`: cells that say where a key's newest row stands, and rows that say
what came before.

A row is `words[slot]`, uint32: [version and DEAD, slot + 1 of the row before it or 0, key (low,
high), weights]. A cell is 8 bytes: the low 32 bits of the key's hash, and slot + 1. 0 = empty;
DELETED = a key was there, and a search goes on behind it. Cells are found by linear probing, and
never move: so who searches while another writes finds every key that was there before. Of two
tables of cells the first is searched first (`versioned_table` says when there are two).

A reader at version v takes the newest row of a key whose version is not above v. A writer writes a
row whole before a cell names it (two kernels, one after the other): processors keep that order for
whoever follows the cell to the row.
"""

import numpy as np
import numpy.typing as npt

from paramserver import Keys, Rows, prefetch
from paramserver.tables import Int, initial_value
from stream.kernels import kernel, mix64

#: (cells,): the low 32 bits of a key's hash, and slot + 1; 0 = empty.
Cells = npt.NDArray[np.uint64]
#: (slots, 4 + weights): rows, as said above.
Words = npt.NDArray[np.uint32]
#: (m,): where rows stand in `words`.
Slots = npt.NDArray[np.int64]

#: Columns of a row before its weights.
HEAD = 4
#: Of a row's version: the key has no row from there on.
DEAD = 0x80000000
_ALIVE = np.uint32(0x7FFFFFFF)
DELETED = np.uint64(0xFFFFFFFF00000000)
_LOW = np.uint64(0xFFFFFFFF)
#: Keys from one place of a walk to the next: about as many lines as a processor has on their way at
#: once.
AHEAD = 12


@kernel
def tag_of(key: np.uint64, secret: np.uint64) -> np.uint64:
    """The half of a key's hash that stands in its cell."""
    return mix64(key ^ secret) & _LOW  # type: ignore[no-any-return]


@kernel
def home(tag: np.uint64, cells: int) -> Int:
    """The cell at which the search for a tag begins."""
    return np.int64((tag * np.uint64(cells)) >> np.uint64(32))


@kernel
def key_at(words: Words, slot: Int) -> np.uint64:
    return np.uint64(words[slot, 2]) | (np.uint64(words[slot, 3]) << np.uint64(32))


@kernel
def cell_of(cells: Cells, words: Words, key: np.uint64, tag: np.uint64) -> Int:
    """The cell of a key, or -1. `cells` is not empty, and has an empty cell."""
    at = home(tag, len(cells))
    while True:
        cell = cells[at]
        if cell == np.uint64(0):
            return -1
        low = cell & _LOW
        if (
            cell >> np.uint64(32) == tag
            and low != np.uint64(0)
            and key_at(words, np.int64(low) - 1) == key
        ):
            return at
        at += 1
        if at == len(cells):
            at = 0


@kernel
def slot_of(
    cells: Cells, old: Cells, words: Words, secret: np.uint64, version: int, key: np.uint64
) -> Int:
    """The slot of a key's row as of a version, or -1 where it has none: what every look-up comes
    down to."""
    tag = tag_of(key, secret)
    at = cell_of(cells, words, key, tag)
    if at >= 0:
        slot = np.int64(cells[at] & _LOW) - 1
    elif len(old) > 0:
        at = cell_of(old, words, key, tag)
        slot = np.int64(old[at] & _LOW) - 1 if at >= 0 else np.int64(-1)
    else:
        return -1
    while slot >= 0:
        since = words[slot, 0]
        if np.int64(since & _ALIVE) <= version:
            # A cell read just before its key was forgotten may name a row of another key by now.
            return -1 if since > _ALIVE or key_at(words, slot) != key else slot
        slot = np.int64(words[slot, 1]) - 1
    return -1


@kernel(inline="always")
def ask_ahead(cells: Cells, words: Words, secret: np.uint64, keys: Keys, asked: int) -> None:
    """Ask for the line of memory with the cell of keys[asked], and for the row that the cell of
    keys[asked - AHEAD], here by now, names: keys[asked - 2 * AHEAD] then waits for neither."""
    if asked < len(keys):
        at_cells = np.uint64(cells.ctypes.data)
        prefetch(at_cells + np.uint64(8 * home(tag_of(keys[asked], secret), len(cells))))
    looked = asked - AHEAD
    if 0 <= looked < len(keys):
        low = cells[home(tag_of(keys[looked], secret), len(cells))] & _LOW
        row_bytes = np.uint64(4 * words.shape[1])
        at_words = np.uint64(words.ctypes.data)
        prefetch(at_words + (low - np.uint64(low != np.uint64(0))) * row_bytes)


@kernel
def find(
    cells: Cells,
    old: Cells,
    words: Words,
    secret: np.uint64,
    version: int,
    keys: Keys,
    slots: Slots,
) -> int:
    """slots[i] = `slot_of` keys[i]. Returns how many are -1. Lines of memory are asked for ahead of
    their use."""
    count, missing = len(keys), 0
    for asked in range(count + 2 * AHEAD):
        ask_ahead(cells, words, secret, keys, asked)
        done = asked - 2 * AHEAD
        if done >= 0:
            slots[done] = slot_of(cells, old, words, secret, version, keys[done])
            missing += slots[done] < 0
    return missing


@kernel
def gather(
    words: Words,
    weights: Rows,
    slots: Slots,
    keys: Keys,
    seed: np.uint64,
    scale: np.float32,
    out: Rows,
) -> None:
    """out[i] = the weights at slots[i]; where that is -1, those of a key that nobody has pushed to
    (S3). `weights`: the same memory as `words`, as float32."""
    at_words, row_bytes = np.uint64(words.ctypes.data), np.uint64(4 * words.shape[1])
    for i in range(len(slots)):
        if i + AHEAD < len(slots) and slots[i + AHEAD] >= 0:
            prefetch(at_words + np.uint64(slots[i + AHEAD]) * row_bytes)
        if slots[i] < 0:
            for j in range(out.shape[1]):
                out[i, j] = (
                    initial_value(keys[i], seed, np.uint64(j), scale)
                    if scale != 0
                    else np.float32(0)
                )
        else:
            for j in range(out.shape[1]):
                out[i, j] = weights[slots[i], HEAD + j]


# --- the one writer -----------------------------------------------------------------------------


@kernel
def locate(
    cells: Cells,
    old: Cells,
    words: Words,
    secret: np.uint64,
    keys: Keys,
    places: Slots,
    newest: Slots,
) -> int:
    """places[i] = the cell of keys[i] in `cells`, or -1; newest[i] = the slot that its cell, here
    or in `old`, names, or -1. Returns how many have no cell in `cells`."""
    count, unknown = len(keys), 0
    for asked in range(count + 2 * AHEAD):
        ask_ahead(cells, words, secret, keys, asked)
        i = asked - 2 * AHEAD
        if i >= 0:
            tag = tag_of(keys[i], secret)
            places[i] = cell_of(cells, words, keys[i], tag)
            newest[i] = -1
            if places[i] >= 0:
                newest[i] = np.int64(cells[places[i]] & _LOW) - 1
            else:
                unknown += 1
                at = cell_of(old, words, keys[i], tag) if len(old) > 0 else -1
                if at >= 0:
                    newest[i] = np.int64(old[at] & _LOW) - 1
    return unknown


@kernel
def write_rows(
    words: Words, weights: Rows, keys: Keys, rows: Rows, slots: Slots, newest: Slots, version: int,
    counts: Slots,
) -> None:  # fmt: skip
    """Rows (n, dim) of a version into free slots; each names the one that it comes after. No cell
    names them yet. counts[0] is raised by each row that holds a NaN or an infinity."""
    for i in range(len(keys)):
        slot = slots[i]
        words[slot, 0] = np.uint32(version)
        words[slot, 1] = np.uint32(newest[i] + 1)
        words[slot, 2] = np.uint32(keys[i] & _LOW)
        words[slot, 3] = np.uint32(keys[i] >> np.uint64(32))
        for j in range(rows.shape[1]):
            weights[slot, HEAD + j] = rows[i, j]
        counts[0] += not _is_finite(weights, slot)


@kernel
def write_dead(words: Words, keys: Keys, slots: Slots, newest: Slots, version: int) -> None:
    """The same for keys that have no row from this version on."""
    for i in range(len(keys)):
        slot = slots[i]
        words[slot, 0] = np.uint32(version) | np.uint32(DEAD)
        words[slot, 1] = np.uint32(newest[i] + 1)
        words[slot, 2] = np.uint32(keys[i] & _LOW)
        words[slot, 3] = np.uint32(keys[i] >> np.uint64(32))


@kernel
def link(cells: Cells, secret: np.uint64, keys: Keys, slots: Slots, places: Slots) -> int:
    """Cells name these slots from now on; a key whose place is -1 gets a cell. Returns how many
    empty cells that took."""
    taken = 0
    for i in range(len(keys)):
        tag = tag_of(keys[i], secret)
        cell = (tag << np.uint64(32)) | np.uint64(slots[i] + 1)
        at = places[i]
        if at < 0:
            at = home(tag, len(cells))
            while cells[at] & _LOW != np.uint64(0):
                at += 1
                if at == len(cells):
                    at = 0
            taken += cells[at] == np.uint64(0)
        cells[at] = cell
    return taken


@kernel
def look_at(
    words: Words, weights: Rows, slots: Slots, dead: npt.NDArray[np.bool_], counts: Slots
) -> None:
    """dead[i] = whether slots[i] says that its key has no row; a slot of -1 says so too. Of those
    that have one, counts[0] is lowered by each that holds a NaN or an infinity."""
    for i in range(len(slots)):
        dead[i] = slots[i] < 0 or words[slots[i], 0] > _ALIVE
        if not dead[i]:
            counts[0] -= not _is_finite(weights, slots[i])


@kernel
def _is_finite(weights: Rows, slot: Int) -> bool:
    finite = True
    for j in range(HEAD, weights.shape[1]):
        finite &= np.isfinite(weights[slot, j])
    return finite


@kernel
def forget(
    cells: Cells,
    words: Words,
    secret: np.uint64,
    keys: Keys,
    slots: Slots,
    gone: npt.NDArray[np.bool_],
) -> None:
    """Cells that still name these slots become DELETED; gone[i] = whether it did."""
    for i in range(len(keys)):
        at = cell_of(cells, words, keys[i], tag_of(keys[i], secret))
        gone[i] = at >= 0 and np.int64(cells[at] & _LOW) - 1 == slots[i]
        if gone[i]:
            cells[at] = DELETED


@kernel
def move(old: Cells, cells: Cells, words: Words, first: int, end: int) -> Int:
    """Enter what the old cells from `first` to `end` name into others, but for keys that have a
    cell there already: that names a newer row. The old cells stay as they are. Returns how many
    empty cells that took."""
    taken: Int = 0
    for i in range(first, end):
        low = old[i] & _LOW
        if low == np.uint64(0):
            continue
        tag = old[i] >> np.uint64(32)
        at: Int = home(tag, len(cells))
        free: Int = -1
        known = False
        while cells[at] != np.uint64(0):
            there = cells[at] & _LOW
            if there == np.uint64(0):
                free = at if free < 0 else free
            elif cells[at] >> np.uint64(32) == tag:
                key = key_at(words, np.int64(low) - 1)
                known = known or key_at(words, np.int64(there) - 1) == key
            at += 1
            if at == len(cells):
                at = 0
        if not known:
            taken += int(free < 0)
            cells[at if free < 0 else free] = old[i]
    return taken


@kernel
def living(
    cells: Cells, old: Cells, words: Words, weights: Rows, secret: np.uint64, version: int,
    first: int, end: int, keys: Keys, rows: Rows,
) -> int:  # fmt: skip
    """The rows as of a version that the cells from `first` to `end` lead to, into `keys` and
    `rows`; those of `old` where `first` is counted on behind `cells`, but for keys that have a cell
    in `cells`. Returns how many."""
    count = 0
    for i in range(first, end):
        cell = cells[i] if i < len(cells) else old[i - len(cells)]
        low = cell & _LOW
        if low == np.uint64(0):
            continue
        key = key_at(words, np.int64(low) - 1)
        if i >= len(cells) and cell_of(cells, words, key, cell >> np.uint64(32)) >= 0:
            continue
        slot = slot_of(cells, old, words, secret, version, key)
        if slot >= 0:
            keys[count] = key
            for j in range(rows.shape[1]):
                rows[count, j] = weights[slot, HEAD + j]
            count += 1
    return count
