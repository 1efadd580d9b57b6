"""An open-addressing index over a ring of 64-bit ids: id -> the slot of its newest entry.

The ring is first in, first out (arrivals never fall), so entries leave in the order in which they came. The index
holds slots only (`slot + 1`, 0 = free) and reads the id from the ring: 8 bytes an entry at a load of at most one half.
Linear probing; deletion shifts back (Knuth, TAOCP 6.4, algorithm R), so there are no tombstones and no rebuilds.
"""

import numba
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

#: Ids are hashes already; Fibonacci hashing protects against ids that agree in their low bits.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)

RING_MIN = 64  # slots; a power of two, as every size


@numba.njit(cache=True, nogil=True, inline="always")
def home(id: np.uint64, mask: int) -> np.int64:
    return np.int64((id * _GOLDEN) >> _SHIFT) & np.int64(mask)


@numba.njit(cache=True, nogil=True)
def find(index: I32, ids: U64, id: np.uint64) -> int:
    """Where the id stands in the index, or the free place where it would."""
    mask = len(index) - 1
    at: int = home(id, mask)
    while index[at] != 0 and ids[index[at] - 1] != id:
        at = (at + 1) & mask
    return at


@numba.njit(cache=True, nogil=True)
def delete(index: I32, ids: U64, at: int) -> None:
    """Free a place, moving back what was displaced by it."""
    mask = len(index) - 1
    hole = at
    index[hole] = 0
    probe = (hole + 1) & mask
    while index[probe] != 0:
        wish = home(ids[index[probe] - 1], mask)
        # the entry may move into the hole unless its home lies cyclically in (hole, probe]
        if ((probe - wish) & mask) >= ((probe - hole) & mask):
            index[hole] = index[probe]
            index[probe] = 0
            hole = probe
        probe = (probe + 1) & mask


def ring_size(entries: int) -> int:
    """The smallest allowed ring for so many entries."""
    size = RING_MIN
    while size < entries:
        size *= 2
    return size
