"""The distinct keys of one table, dealt to the shards that own them: what each is asked, and what
each is sent.

Rows are moved by kernels of our own: numpy moves them while it holds the interpreter, which the
threads of the other calls of a batch wait for then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learners.models import Keys
from paramserver import Rows, SlotMap, plain
from stream.kernels import kernel

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KeySharding:
    """By shard: `keys`, rising, and `places`, where they stand among all of them. One shard has
    all, uncopied."""

    keys: list[Keys]
    places: list[Indices]

    @classmethod
    def of(cls, keys: Keys, slot_map: SlotMap) -> "KeySharding":
        if slot_map.shards == 1:
            return cls([keys], [])
        places = slot_map.split(keys)
        return cls([keys[mine] for mine in places], places)

    def apart(self, rows: Rows) -> list[Rows]:
        """Rows (m, dim) of all keys -> by shard, those of its keys."""
        if len(self.keys) == 1:
            return [rows]
        rows, by_shard = (
            plain(rows),
            [np.empty((len(mine), rows.shape[1]), np.float32) for mine in self.places],
        )
        for mine, out in zip(self.places, by_shard, strict=True):
            _take(rows, mine, out)
        return by_shard

    def together(self, by_shard: Sequence[Rows]) -> Rows:
        """The inverse of `apart`."""
        if len(self.keys) == 1:
            return by_shard[0]
        rows = np.empty((sum(map(len, self.keys)), by_shard[0].shape[1]), np.float32)
        for mine, answered in zip(self.places, by_shard, strict=True):
            if answered.shape != (len(mine), rows.shape[1]):
                raise ValueError(
                    f"rows {answered.shape} for {len(mine)} keys of {rows.shape[1]} numbers each"
                )
            _put(plain(answered), mine, rows)
        return rows


@kernel
def _take(rows: Rows, places: Indices, out: Rows) -> None:
    dim = np.uint64(rows.shape[1])
    for i in range(len(places)):
        r = np.uint64(places[i])
        for j in range(dim):
            out[i, j] = rows[r, j]


@kernel
def _put(rows: Rows, places: Indices, out: Rows) -> None:
    dim = np.uint64(rows.shape[1])
    for i in range(len(places)):
        r = np.uint64(places[i])
        for j in range(dim):
            out[r, j] = rows[i, j]
