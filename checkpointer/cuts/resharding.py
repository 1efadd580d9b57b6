"""How many shards a model has and is to have (S6): the map of the head cut, the operator's setting,
and the change of map.

The manifest that names the new map is the change. All that is done here comes before (is everyone
there who will be needed?) or after it (has everyone heard?), is safe to repeat, and is taken up by
the next checkpointer where one died.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from checkpointer.cuts.move_preparation import Preparation
from paramserver import ClockPort, PortRefused, PortUnreachable, ProgressReply, ShardPort, SlotMap

T = TypeVar("T")

#: The operator's setting is looked for this often.
ORDER_EVERY_MS = 250


class Each(Protocol):
    def __call__(self, call: Callable[[int], T], items: list[int], /) -> list[T]: ...


@dataclass
class Resharding:
    """`shards` answers a port for every index, also of shards that are not started yet. `slot_map`
    is the one in force: of the head cut, or of the configuration before there is one. `each`
    performs calls at once if possible."""

    model: str
    shards: Mapping[int, ShardPort]
    clock: ClockPort
    each: Each
    slot_map: SlotMap
    #: why what an operator wants is not begun; "" = nothing is wanted
    waits: str = field(default="", init=False)
    #: of the move that an operator wants
    coming: Preparation | None = field(default=None, init=False)
    _ask_at_ms: int = field(default=0, init=False)

    @property
    def members(self) -> list[int]:
        return list(range(self.slot_map.shards))

    def wanted(self, now_ms: int) -> Preparation | None:
        """Of the map to go over to, if an operator wants other shards than there are and all of
        those answer. `now_ms`: of a clock that nobody sets."""
        if now_ms < self._ask_at_ms:
            return None
        self._ask_at_ms = now_ms + ORDER_EVERY_MS
        self.waits = ""
        try:
            ordered = self.clock.shards_ordered(self.model)
            if ordered == self.slot_map.shards:
                self.coming = None
                return None
            for index in range(self.slot_map.shards, ordered):
                self.shards[index].progress(self.model)
        except (
            PortUnreachable,
            PortRefused,
            ValueError,
        ) as error:  # ValueError: the config has no address for it
            self.waits = str(error)
            return None
        self._ask_at_ms = now_ms
        slot_map = self.slot_map.resized(ordered)
        if self.coming is None or self.coming.slot_map != slot_map:
            self.coming = Preparation(slot_map)
        return self.coming

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> bool:
        """Tell the shards of a map to come to hold what a cut gives them. True: all of them do;
        else `waits` says who does not, and why."""

        def told(shard: int) -> str:
            try:
                return self.shards[shard].prepare(slot_map, manifest_sha256)
            except (PortUnreachable, PortRefused) as error:
                return str(error)

        shards = list(range(slot_map.shards))
        self.waits = "; ".join(
            f"shard {shard}: {waits}"
            for shard, waits in zip(shards, self.each(told, shards), strict=True)
            if waits
        )
        return not self.waits

    def behind(self, replies: Mapping[int, ProgressReply]) -> list[int]:
        """Shards that stand at another map than the one in force."""
        return [shard for shard, reply in replies.items() if reply.map_epoch != self.slot_map.epoch]

    def bring(self, shards: list[int]) -> list[int]:
        """Tell shards that there is a newer map. Returns those that do not stand at it yet."""

        def told(shard: int) -> bool:
            try:
                return self.shards[shard].remap(self.slot_map.epoch) == self.slot_map.epoch
            except (PortUnreachable, PortRefused):
                return False

        return [
            shard for shard, there in zip(shards, self.each(told, shards), strict=True) if not there
        ]
