"""Planted bugs of moving slots (S6)."""

from dataclasses import replace
from typing import Any

from sim_bug import Patch, bug, replaced
from sim_operator import Operator
from sim_scenario import MODEL
from sim_shards import ShardNode

from checkpointer.cuts.resharding import Resharding
from paramserver import PartInfo, PushReply
from paramserver.clocks import Clocks
from paramserver.parts import delta
from paramserver.shard import Shard, SlotMapUpdater, Standby, StandbyReader

#: Seeds in which an operator scales shards.
SCALED = {"first": 3, "step": 5}


@bug(
    "starts before all have the map",
    "a shard of the new map has not taken it when training goes on (S6)",
    **SCALED,
)
def starts_before_all() -> list[Patch]:
    remap = Clocks.remap

    def bad(self: Clocks, epoch: int, shards: int) -> None:
        remap(self, epoch, shards)
        self._confirmed = dict.fromkeys(range(shards), self._sequence)

    bring = Resharding.bring

    def enough(self: Resharding, shards: list[int]) -> list[int]:
        bring(self, shards)
        return []

    return [replaced(Clocks.remap, bad), replaced(Resharding.bring, enough)]


@bug(
    "slots dropped before the manifest is complete",
    "a shard goes over once its part is written (S6)",
    **SCALED,
)
def dropped_before_manifest() -> list[Patch]:
    write = ShardNode.write_part

    def bad(self: ShardNode, cut: str, folder: str, parent: str | None) -> Any:
        reply = write(self, cut, folder, parent)
        holder: Any = self.world.processes["shard-0"]
        wanted = holder.shards_ordered() if holder.alive else self.core.slot_map.shards
        if isinstance(reply, PartInfo) and wanted != self.core.slot_map.shards:
            self.core = self.incarnate(self.head()[0], self.core.slot_map.resized(wanted))
            self.updater.slot_map = self.core.slot_map
        return reply

    return [replaced(ShardNode.write_part, bad)]


@bug(
    "push under an old map applied",
    "a shard looks at neither the map nor the incarnation of a push (S6, S2)",
    **SCALED,
)
def old_map_applied() -> list[Patch]:
    push = Shard.push

    def bad(self: Shard, request: Any) -> PushReply:
        return push(
            self, replace(request, map_epoch=self.slot_map.epoch, incarnation=self.incarnation)
        )

    return [replaced(Shard.push, bad)]


@bug(
    "shard ended before the map without it",
    "whoever is not wanted any more is stopped at once (S6)",
    **SCALED,
)
def ended_too_early() -> list[Patch]:
    launch = Operator.launch

    def bad(self: Operator) -> None:
        holder: Any = self.world.processes["shard-0"]
        for shard in (p for p in self.world.processes.values() if isinstance(p, ShardNode)):
            if holder.alive and shard.index >= holder.shards_ordered():
                shard.crash()
        launch(self)

    return [replaced(Operator.launch, bad)]


@bug(
    "number of shards only in memory",
    "a restarted clock holder has forgotten how many are wanted (S6, K6)",
    **SCALED,
)
def shards_in_memory() -> list[Patch]:
    def bad(self: ShardNode, shards: int) -> None:
        assert self.clocks is not None
        self.clocks.set_shards(MODEL, shards)
        self.watch.shards = shards

    return [replaced(ShardNode.ordered_shards, bad)]


@bug(
    "successor of another map",
    "what was read ahead for one number of shards is taken for another (S6)",
    **SCALED,
)
def standby_of_another_map() -> list[Patch]:
    def bad(self: Standby, slot_map: Any) -> bool:
        return bool(self.slot_map.epoch == slot_map.epoch)

    return [replaced(Standby.fits, bad)]


@bug(
    "successor as it was read ahead",
    "a shard goes over without what changed since it read ahead (S6)",
    **SCALED,
)
def standby_as_read() -> list[Patch]:
    take = StandbyReader.take

    def bad(self: StandbyReader, slot_map: Any, head: Any) -> Any:
        own = self._standby
        if own is None or not own.held or not own.fits(slot_map):
            return take(self, slot_map, head)
        self._standby = None
        return own.shard

    return [replaced(StandbyReader.take, bad)]


@bug(
    "successor skips a cut",
    "a shard that reads ahead reads the newest cut alone (S6, X3)",
    **SCALED,
)
def standby_skips() -> list[Patch]:
    bring = Standby.bring

    def bad(self: Standby, head: Any) -> Any:
        newest = replace(
            head, chain=lambda held: head.chain(held)[-1:] if held else head.chain(held)
        )
        return bring(self, newest)

    return [
        replaced(Standby.bring, bad),
        replaced(delta._check_parents, lambda parts, held: None, of=delta),
    ]


@bug(
    "the first cut is not taken up",
    "a shard that began again before its first cut was complete holds nothing for good (X2)",
    first=2_003_766,  # of few: it begins again just then
)
def first_cut_missed() -> list[Patch]:
    return [replaced(SlotMapUpdater.restore, lambda self: None)]
