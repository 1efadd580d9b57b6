"""The toy model, from whose parameters it can be read which rows a shard learned and how often
(I3).

Every labelled impression has one row in each half of the slots, so one on each of two shards; the
optimizer is SGD at rate 1 and the gradient is -1, so a row's weight is the number of times that its
impression changed the shard. A row's key, hence its slot, never changes; where other shards own the
slots (S6), other shards have the rows.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sim_admitted
from sim_scenario import MODEL, SHARDS, TABLE

from paramserver import DenseSpec, Keys, ModelSpec, Rows, SlotMap, TableSpec, slot_of
from stream import KINDS, RETRACT, kind_of, partition_of

SPEC = ModelSpec(
    name=MODEL,
    digest="toy-1",
    tables=(TableSpec(TABLE, dim=1, optimizer="sgd", options={"rate": 1.0}), sim_admitted.SPEC),
    dense=DenseSpec({}, "sgd", {"rate": 1.0}),
)
HOME_MAP = SlotMap.even(SHARDS)
_NONCE_BITS = 6
_known: dict[tuple[int, int, int], int] = {}


def key_of(home: int, partition: int, position: int) -> int:
    """The key of an impression in a half: the first of 64 candidates whose slot lies there."""
    found = _known.get((home, partition, position))
    if found is None:
        base = ((partition << 50 | position) << 4 | home) << _NONCE_BITS
        candidates = np.arange(base, base + (1 << _NONCE_BITS), dtype=np.uint64)
        mine = np.flatnonzero(HOME_MAP.owner[slot_of(candidates)] == home)
        found = _known[home, partition, position] = base + int(mine[0])
        if len(_known) > 200_000:
            _known.clear()
    return found


def keys_of(home: int, partition: int, positions: npt.NDArray[np.int64]) -> Keys:
    """Rising, as positions rise."""
    return np.array([key_of(home, partition, int(p)) for p in positions], np.uint64)


def keys_on(
    slot_map: SlotMap, shard: int, partition: int, positions: npt.NDArray[np.int64]
) -> Keys:
    """Those of both halves that a shard owns under a map, rising."""
    if slot_map.epoch == HOME_MAP.epoch:
        return keys_of(shard, partition, positions)
    keys = np.concatenate([keys_of(home, partition, positions) for home in range(SHARDS)])
    return np.sort(keys[slot_map.owner[slot_of(keys)] == shard])


def partition_of_chain(chain: str) -> int:
    """What stands for the partition in the keys of a chain's rows: each chain has rows of its
    own. Below 16."""
    return partition_of(chain) + 4 * KINDS.index(kind_of(chain))


def names_of(chain: str, rows: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """What stands for the position of each row in the keys: of a row taken back its label too,
    since the negative and the late click of one impression are two rows; -1 for a clean row, which
    is not pushed."""
    positions: npt.NDArray[np.int64] = rows.column("position").to_numpy()
    if kind_of(chain) != RETRACT:
        return positions
    return np.where(positions >= 0, 2 * positions + rows.column("label").to_numpy(), -1)


def gradients(count: int) -> Rows:
    return np.full((count, 1), -1.0, np.float32)


def impression_of(key: int) -> tuple[int, int, int]:
    """(half, partition, position) of a key."""
    rest = key >> _NONCE_BITS
    return rest & 15, rest >> 54, (rest >> 4) & ((1 << 50) - 1)
