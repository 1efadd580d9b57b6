"""What the shards last said of themselves: incarnations, versions, and where they stand."""

from collections.abc import Sequence

from paramserver.ports import ProgressReply


class Survey:
    """One round of asking every shard where it stands. An answer counts only from the newest incarnation seen (S2)."""

    def __init__(self, shards: Sequence[int]):
        self.shards = tuple(shards)
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

    def take(self, shard: int, reply: ProgressReply) -> bool:
        """False: the model has not begun there, or the answer is from before a restart; ask again."""
        if reply.progress is None or reply.incarnation < self.seen[shard]:
            return False
        self.told[shard] = reply
        self.versions[shard] = reply.progress.version
        return True

    @property
    def missing(self) -> list[int]:
        return [shard for shard in self.shards if shard not in self.told]
