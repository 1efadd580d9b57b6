"""An open-addressing index over a ring of 64-bit ids: id -> the slot of its newest entry.

The ring is first in, first out (arrivals never fall), so entries leave in the order in which they
came. The index holds slots only (`slot + 1`, 0 = free) and reads the id from the ring: about 6
bytes an entry, since it is never fuller than `1 / INDEX_ROOM`. Its length is free: a hash is scaled
to it (Lemire, "Fast random integer generation in an interval", 2019), so that a table grows by an
eighth, not twofold. Linear probing; deletion shifts back (Knuth, TAOCP 6.4, algorithm R), so there
are no tombstones and no rebuilds.
"""

import numpy as np

from stream.kernels import GOLDEN, I32, U64, kernel

#: Ids are hashes already; Fibonacci hashing protects against ids that agree in their low bits.
_SHIFT = np.uint64(32)

RING_MIN = 64  # slots
INDEX_ROOM = 1.4  # places of the index a slot


@kernel(inline="always")
def home(id: np.uint64, places: int) -> int:
    """Where an id would stand in an empty index of so many places: [0, places)."""
    return np.int64((((id * GOLDEN) >> _SHIFT) * np.uint64(places)) >> _SHIFT)  # type: ignore[return-value]  # an int64 in a kernel


@kernel
def find(index: I32, ids: U64, id: np.uint64) -> int:
    """Where the id stands in the index, or the free place where it would."""
    places = len(index)
    at: int = home(id, places)
    while index[at] != 0 and ids[index[at] - 1] != id:
        at += 1
        if at == places:
            at = 0
    return at


@kernel
def delete(index: I32, ids: U64, at: int) -> None:
    """Free a place, moving back what was displaced by it."""
    places = len(index)
    hole = at
    index[hole] = 0
    probe = (hole + 1) % places
    while index[probe] != 0:
        wish = home(ids[index[probe] - 1], places)
        # the entry may move into the hole unless its home lies cyclically in (hole, probe]
        if (probe - wish) % places >= (probe - hole) % places:
            index[hole] = index[probe]
            index[probe] = 0
            hole = probe
        probe = (probe + 1) % places


def ring_size(entries: int) -> int:
    """Slots of a ring that is to hold so many entries and an eighth more."""
    return max(RING_MIN, entries + entries // 8)


def new_index(size: int) -> I32:
    """An empty index over a ring of so many slots."""
    return np.zeros(int(INDEX_ROOM * size) + 1, np.int32)
