"""How a row lies in memory: one record of 32-bit words, so that an update touches one stretch of
it.

    | key: low, high | version | touched, s | weights and optimizer state |

`words` is (n, HEAD + payload) uint32, and `floats` the same memory as float32. The version is the
shard's after the last push that touched the row, less its table's version base, which
`version_base` tells from the shard's version: a row that was touched before the base counts as
touched at it. So versions never wrap, and a delta since a version below the base holds more rows
than it must, never fewer. `touched` is the event time of that push in whole seconds, so 4 bytes of
it last until 2106.
"""

import numpy as np
import numpy.typing as npt

from paramserver.kernel import prefetch
from paramserver.messages import Keys
from stream.kernels import kernel

#: Words before the payload.
HEAD = 4
VERSION, TOUCHED = 2, 3
#: The version of a record that holds no row.
FREE = np.uint32(0xFFFFFFFF)
SECONDS_MAX = 0xFFFFFFFF
#: The base moves each time the shard's version passes a multiple of this, so versions in rows stay
#: below twice it.
BASE_STEP = 1 << 30

#: What kernels pass on: outside a whole number, inside 64 bits with a sign.
Int = int | np.int64
#: (n, HEAD + payload): rows as said above.
Words = npt.NDArray[np.uint32]
#: (m,): which rows of a store; -1 = none.
RowNumbers = npt.NDArray[np.int64]


@kernel
def key_of(words: Words, row: Int) -> np.uint64:
    return np.uint64(words[row, 0]) | np.uint64(words[row, 1]) << np.uint64(32)


@kernel
def set_key(words: Words, row: Int, key: np.uint64) -> None:
    words[row, 0] = np.uint32(key & np.uint64(0xFFFFFFFF))
    words[row, 1] = np.uint32(key >> np.uint64(32))


def version_base(version: int) -> int:
    """What is taken off the versions in rows of a table whose shard is at this version: a function
    of that alone, so that a shard that was restored keeps the same words as one that never stopped.
    """
    return max(0, version // BASE_STEP - 1) * BASE_STEP


@kernel
def rebase(words: Words, size: int, by: int) -> None:
    """The base of the first `size` records rises by `by`."""
    for r in range(size):
        version = np.int64(words[r, 2])
        if version != np.int64(0xFFFFFFFF):
            words[r, 2] = np.uint32(version - by if version > by else 0)


@kernel
def ask_for(address: np.uint64, nbytes: Int) -> None:
    """Prefetch the lines of `nbytes` from an address on."""
    line = address & ~np.uint64(63)
    while line < address + np.uint64(nbytes):
        prefetch(line)
        line += np.uint64(64)


@kernel
def heads(
    words: Words, keys: Keys, versions: npt.NDArray[np.int64], touched_s: npt.NDArray[np.int64]
) -> None:
    """Key, version and touch of the first `len(keys)` records, as columns."""
    for r in range(len(keys)):
        keys[r] = key_of(words, r)
        versions[r] = words[r, 2]
        touched_s[r] = words[r, 3]
