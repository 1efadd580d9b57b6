"""A batch's distinct keys, and their rows <-> what stands in each example: gather on the way in,
segment sums on the way out.

Both walk the examples in order, so a sum repeats bit for bit. They are kernels of our own because
torch's take three passes: `embedding` copies, `cat` copies again, and the backward of `embedding`
zeroes and scatters a second array.
"""

import numpy as np
import numpy.typing as npt

from learners.models.features import Floats, Keys
from paramserver import Rows
from stream.kernels import kernel

#: Probes an element, on average, beyond which keys are sorted by numpy: they are no hashes, or made
#: to collide.
_PROBES_MAX = 16


def unique_keys(keys: Keys) -> tuple[Keys, npt.NDArray[np.int64]]:
    """The distinct keys, rising, and for every element its place among them (in the shape of
    `keys`). No key is 0."""
    flat = np.ascontiguousarray(keys).reshape(-1)
    size = len(flat) * 5 // 4 + 16
    cells = np.zeros(
        size + len(flat), np.uint64
    )  # probing never wraps, or cells would not be in order
    at = np.empty(len(flat), np.int32)
    used = _scatter(flat, cells, at, size, _PROBES_MAX * (len(flat) + 1))
    if used < 0:
        distinct, inverse = np.unique(flat, return_inverse=True)
        return distinct, inverse.astype(np.int64).reshape(keys.shape)
    distinct, place = np.empty(used + 1, np.uint64), np.empty(len(flat), np.int64)
    count = _rank(cells[:used], at, distinct, place)
    return distinct[:count].copy(), place.reshape(keys.shape)


def gather(rows: Rows, places: npt.NDArray[np.int64]) -> Floats:
    """`rows` (m, dim) and `places` (n, width) -> (n, width, dim), new memory."""
    out = np.empty((*places.shape, rows.shape[1]), np.float32)
    _gather(rows, places, out)
    return out


def segment_sums(places: npt.NDArray[np.int64], gradients: Floats, count: int) -> Rows:
    """(count, dim): for each distinct key the sum of `gradients` (n, width, dim) over its
    occurrences, in float32 and in the order of the examples."""
    out = np.zeros((count, gradients.shape[2]), np.float32)
    _segment_sums(places, gradients, out)
    return out


@kernel
def _gather(rows: Rows, places: npt.NDArray[np.int64], out: Floats) -> None:
    dim = rows.shape[1]
    for i in range(places.shape[0]):
        for f in range(places.shape[1]):
            row = places[i, f]
            for j in range(dim):
                out[i, f, j] = rows[row, j]


@kernel
def _segment_sums(places: npt.NDArray[np.int64], gradients: Floats, out: Rows) -> None:
    dim = out.shape[1]
    for i in range(places.shape[0]):
        for f in range(places.shape[1]):
            row = places[i, f]
            for j in range(dim):
                out[row, j] += gradients[i, f, j]


@kernel
def _scatter(keys: Keys, cells: Keys, at: npt.NDArray[np.int32], size: int, probes_max: int) -> int:
    """Put every key into a cell, 0 = empty, from its share of `size` on: hashes are uniform, so the
    cells are nearly sorted. Returns the end of the cells in use, or -1 for keys that are no hashes
    and need too many probes."""
    probes = used = np.int64(0)
    for i in range(len(keys)):
        key = keys[i]
        home = np.int64(((key >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))
        cell = home
        while (cells[cell] != key) & (cells[cell] != 0):
            cell += 1
        cells[cell] = key  # whether new or not: no branch that would be mispredicted for many
        at[i] = cell
        used = max(used, cell + 1)
        probes += cell - home
        if probes > probes_max:
            return -1
    return int(used)


@kernel
def _rank(
    cells: Keys, at: npt.NDArray[np.int32], distinct: Keys, place: npt.NDArray[np.int64]
) -> int:
    """Sort what stands in the cells, which only neighbours can be out of, and number it. Returns
    how many there are."""
    origin = np.empty(len(distinct), np.int32)
    count = 0
    for cell in range(len(cells)):  # without a branch: an empty cell is overwritten by the next
        distinct[count], origin[count] = cells[cell], cell
        count += cells[cell] != 0
    for number in range(1, count):
        key, cell, to = distinct[number], origin[number], number
        while to > 0 and distinct[to - 1] > key:
            distinct[to], origin[to] = distinct[to - 1], origin[to - 1]
            to -= 1
        distinct[to], origin[to] = key, cell
    rank = np.empty(len(cells), np.int32)
    for number in range(count):
        rank[origin[number]] = number
    for i in range(len(at)):
        place[i] = rank[at[i]]
    return count
