"""What the shards last said of themselves: incarnations, versions, the map, and where they
stand."""

from collections.abc import Sequence

from paramserver import ProgressReply, SlotMap


class ShardView:
    """One round of asking every shard where it stands. An answer counts only from the newest
    incarnation seen (S2), and only under the newest map seen, which says what shards there are
    (S6). Until one was seen they are as configured."""

    def __init__(self, shards: Sequence[int]):
        self.shards = tuple(shards)
        self.slot_map = SlotMap.even(len(self.shards), epoch=0)
        self.seen: dict[int, int] = {}  # shard -> newest incarnation, wherever seen; only grows
        self.versions: dict[int, int] = {}  # shard -> last version heard
        self.told: dict[int, ProgressReply] = {}

    def saw(self, shard: int, incarnation: int) -> bool:
        """Whether this is newer than any seen of this shard, whose answer so far is then void."""
        if incarnation <= self.seen.get(shard, -1):
            return False
        self.seen[shard] = incarnation
        self.told.pop(shard, None)
        return True

    def learned(self, slot_map: SlotMap) -> bool:
        """Whether this map is newer than any seen. What was told under an older one is then
        void."""
        if slot_map.epoch <= self.slot_map.epoch:
            return False
        self.slot_map, self.shards, self.told = slot_map, tuple(range(slot_map.shards)), {}
        return True

    def take(self, shard: int, reply: ProgressReply) -> bool:
        """False: the model has not begun there, or the answer is from before a restart or a change
        of map; ask again."""
        if (
            reply.progress is None
            or reply.incarnation < self.seen[shard]
            or reply.map_epoch != self.slot_map.epoch
        ):
            return False
        self.told[shard] = reply
        self.versions[shard] = reply.progress.version
        return True

    @property
    def missing(self) -> list[int]:
        return [shard for shard in self.shards if shard not in self.told]
