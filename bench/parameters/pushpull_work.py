"""The work of `bench.pushpull`, the same on every side: which rows each batch touches, with which
gradients.

A row's gradient is always the same and exact in bfloat16, so what a row must be after n pushes
follows from n alone, whatever the order of clients and the encoding on the wire.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EXAMPLES, FEATURES, ROWS, DIM, EXPONENT = 4_096, 26, 1_000_000, 16, 1.05
BATCHES = 8
RATE, ACCUMULATOR, EPSILON = 0.05, 0.1, 1e-8
#: Rows of a side that are compared with the formula at the end.
CHECKED = 2_000


@dataclass(frozen=True)
class Work:
    """Unique ids of each batch, rising in `keys`; row `id` is known to us as `keys[id]` and to
    dense tables as `id`."""

    keys: npt.NDArray[np.uint64]  # (ROWS,)
    ids: list[npt.NDArray[np.int64]]  # by batch

    @classmethod
    def drawn(cls, seed: int) -> "Work":
        rng = np.random.default_rng(seed)
        weight = np.cumsum(np.arange(1, ROWS + 1, dtype=np.float64) ** -EXPONENT)
        keys = rng.integers(1, 1 << 63, ROWS).astype(np.uint64)
        id_of = rng.permutation(ROWS)  # hot rows lie all over the table
        ranks = [
            np.searchsorted(weight, rng.random(EXAMPLES * FEATURES) * weight[-1])
            for _ in range(BATCHES)
        ]
        return cls(keys, [np.unique(id_of[drawn]) for drawn in ranks])

    def share(self, client: int, clients: int) -> Sequence[int]:
        """The batches of one of several clients."""
        return range(BATCHES)[client::clients]

    def rows(self) -> int:
        return sum(len(ids) for ids in self.ids)

    def checked(self) -> npt.NDArray[np.int64]:
        """Ids to compare at the end: half of them in every batch or nearly, half seen seldom."""
        times = np.bincount(np.concatenate(self.ids), minlength=ROWS)
        seen = np.flatnonzero(times)
        order = seen[np.argsort(-times[seen], kind="stable")]
        return np.sort(np.concatenate([order[: CHECKED // 2], order[-CHECKED // 2 :]]))

    def times(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How often one round touches each of these rows."""
        return np.bincount(np.concatenate(self.ids), minlength=ROWS)[ids]


def gradients_of(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(n, DIM), each element k/256 with 1 <= |k| <= 64: exact in bfloat16 and in float16."""
    column = np.arange(DIM, dtype=np.int64)
    mixed = (ids[:, None] * 1_000_003 + column * 7_919) % 128 - 64
    return ((mixed + (mixed >= 0)) / 256).astype(np.float32)


def expected(ids: npt.NDArray[np.int64], pushes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(n, DIM) weights from zero after that many pushes each, by the formula in float64 (Duchi
    et al. 2011)."""
    gradient = gradients_of(ids).astype(np.float64)
    weight = np.zeros_like(gradient)
    for step in range(1, int(pushes.max()) + 1):
        moved = RATE * gradient / (np.sqrt(ACCUMULATOR + step * gradient**2) + EPSILON)
        weight -= np.where((pushes >= step)[:, None], moved, 0)
    return weight


def formula_error(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float64]) -> float:
    """Largest relative difference."""
    return float(np.max(np.abs(found - wanted) / np.abs(wanted)))
