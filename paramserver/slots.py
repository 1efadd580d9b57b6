"""Key -> one of 1,024 virtual slots -> shard.

The slot of a key never changes; which shard owns a slot is the map, and only the map has an epoch
(S6). So a part of a checkpoint can be loaded by any number of shards, and a shard is never asked
for a key it does not own.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from paramserver.kernel import plain
from paramserver.messages import Keys
from stream.kernels import kernel, mix64

#: Keys fall into so many slots, by their hash; a slot has one shard.
SLOTS = 1024
SLOT_SHIFT = np.uint64(
    64 - 10
)  # the slot is the top 10 bits of the hash; a table's index uses the bottom ones


@kernel
def _slots(keys: Keys, out: npt.NDArray[np.int32]) -> None:
    for i in range(len(keys)):
        out[i] = np.int32(mix64(keys[i]) >> SLOT_SHIFT)


@kernel
def _owners(
    keys: Keys,
    owner: npt.NDArray[np.int32],
    out: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
) -> None:
    for i in range(len(keys)):
        shard = owner[np.int64(mix64(keys[i]) >> SLOT_SHIFT)]
        out[i] = shard
        counts[shard] += 1


@kernel
def _deal(
    owners: npt.NDArray[np.int32], next_of: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> None:
    for i in range(len(owners)):
        shard = owners[i]
        order[next_of[shard]] = i
        next_of[shard] += 1


@kernel
def foreign_key(keys: Keys, owner: npt.NDArray[np.int32], shard: int) -> int:
    """The index of the first key that `shard` does not own, or -1."""
    for i in range(len(keys)):
        if owner[np.int64(mix64(keys[i]) >> SLOT_SHIFT)] != shard:
            return i
    return -1


def slot_of(keys: Keys) -> npt.NDArray[np.int32]:
    """(n,) uint64 keys -> (n,) int32 slots in [0, 1024)."""
    out = np.empty(len(keys), np.int32)
    _slots(plain(keys), out)
    return out


def slot_of_name(name: str) -> int:
    """The slot of a dense array, by its name."""
    digest = np.frombuffer(blake2b(name.encode(), digest_size=8).digest(), "<u8").astype(np.uint64)
    return int(slot_of(digest)[0])


@dataclass(frozen=True, eq=False)
class SlotMap:
    """Which shard owns each slot. `owner` is (1024,) int32, every shard below `shards`; epochs
    only grow (S6)."""

    epoch: int
    owner: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        if (
            self.owner.shape != (SLOTS,)
            or self.owner.dtype != np.int32
            or int(self.owner.min()) < 0
        ):
            raise ValueError(
                f"slot map: owner must be ({SLOTS},) int32 and not negative, got "
                f"{self.owner.dtype} {self.owner.shape}"
            )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SlotMap)
            and self.epoch == other.epoch
            and np.array_equal(self.owner, other.owner)
        )

    def __hash__(self) -> int:
        return hash((self.epoch, self.owner.tobytes()))

    @classmethod
    def even(cls, shards: int, epoch: int = 1) -> "SlotMap":
        """Contiguous slot ranges of nearly equal length; shard 0 owns slot 0, hence the clocks
        (K1)."""
        if not 1 <= shards <= SLOTS:
            raise ValueError(f"shards = {shards}: allowed 1 to {SLOTS}")
        return cls(epoch, (np.arange(SLOTS, dtype=np.int64) * shards // SLOTS).astype(np.int32))

    @classmethod
    def decode(cls, epoch: int, text: str) -> "SlotMap":
        """What `encode` wrote. ValueError unless every slot has one owner."""
        owner = np.full(SLOTS, -1, np.int32)
        for run in text.split(","):
            slots, _, shard = run.partition(":")
            first, _, last = slots.partition("-")
            if not (first.isdigit() and shard.isdigit() and (last or first).isdigit()):
                raise ValueError(f"slot map {text[:80]!r}: {run!r} is not first-last:shard")
            owner[int(first) : int(last or first) + 1] = int(shard)
        return cls(epoch, owner)

    def encode(self) -> str:
        """The owners as text: "0-511:0,512-1023:1"."""
        firsts = np.flatnonzero(np.diff(self.owner, prepend=-1)).tolist()
        runs = zip(firsts, [*firsts[1:], SLOTS], strict=True)
        return ",".join(f"{first}-{end - 1}:{self.owner[first]}" for first, end in runs)

    def resized(self, shards: int) -> "SlotMap":
        """The next map, of another number of shards, each with nearly as many slots as any other.
        Only slots of shards that end, or that have more than their share, move; the lowest ones
        stay, so slot 0 stays with shard 0 (S6)."""
        share = np.bincount(SlotMap.even(shards).owner, minlength=shards)
        owner = np.where(self.owner < shards, self.owner, -1).astype(np.int32)
        for shard in range(min(shards, self.shards)):
            owner[np.flatnonzero(owner == shard)[share[shard] :]] = -1
        free = np.flatnonzero(owner < 0)
        lacks = share - np.bincount(owner[owner >= 0], minlength=shards)
        owner[free] = np.repeat(np.arange(shards, dtype=np.int32), lacks)
        return SlotMap(self.epoch + 1, owner)

    @property
    def shards(self) -> int:
        return int(self.owner.max()) + 1

    def owned(self, shard: int) -> npt.NDArray[np.int32]:
        """The slots of a shard, rising."""
        return np.flatnonzero(self.owner == shard).astype(np.int32)

    def owner_of_name(self, name: str) -> int:
        """The shard of a dense array."""
        return int(self.owner[slot_of_name(name)])

    def split(self, keys: Keys) -> list[npt.NDArray[np.int64]]:
        """Per shard, the indices into `keys` that it owns, in their order (so sorted keys stay
        sorted)."""
        shards = self.shards
        counts = np.zeros(shards, np.int64)
        owners = np.empty(len(keys), np.int32)
        _owners(plain(keys), self.owner, owners, counts)
        ends = np.cumsum(counts)
        order = np.empty(len(keys), np.int64)
        _deal(owners, ends - counts, order)
        return np.split(order, ends[:-1])
