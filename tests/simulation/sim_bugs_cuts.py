"""Planted bugs of cuts, parts and deltas (X1-X3, S7)."""

from dataclasses import replace
from typing import Any

import sim_learners
import sim_shards
from sim_bug import Patch, bug, replaced
from sim_shards import ShardNode

from checkpointer.cuts.cut_runner import Cutting
from checkpointer.serving import loading
from checkpointer.store import Manifest
from checkpointer.store import catalogue as catalogue_module
from checkpointer.store.delta_chain import ServingStep, serving_steps
from paramserver import MarkReply, Outcome, PushReply
from paramserver.clocks.model_clocks import ModelClocks
from paramserver.parts import CutParts
from paramserver.shard import Shard


@bug("cut that holds pushes", "while starts are stopped, pushes are too (X1)")
def cut_holds_pushes() -> list[Patch]:
    take = ShardNode.take

    def bad(self: ShardNode, request: Any) -> PushReply:
        holder: Any = self.world.processes["shard-0"]
        model = holder.clocks.models.get(request.model) if holder.alive else None
        if model is not None and model.holding(holder.steady_ms()) is not None:
            return PushReply(Outcome.NO_ERA, -1, self.core.incarnation, 1, 0)
        return take(self, request)

    return [replaced(ShardNode.take, bad)]


@bug("cut without hold", "starts go on while a cut looks for a common vector (X1)")
def cut_without_hold() -> list[Patch]:
    ask = Cutting._ask

    def bad(self: Cutting, model: str, asked: Any) -> Any:
        return True if type(asked).__name__ == "AskHold" else ask(self, model, asked)

    return [replaced(Cutting._ask, bad)]


@bug("unnamed mark", "a shard marks whatever it holds just now (X1)")
def unnamed_mark() -> list[Patch]:
    mark = Shard.mark

    def bad(self: Shard, model: str, cut: str, vector: Any) -> MarkReply:
        return mark(self, model, cut, self._state(model).vector)

    return [replaced(Shard.mark, bad)]


@bug(
    "cut time limit held by the checkpointer",
    "a stop of starts ends only by the word of who asked for it (X1)",
)
def hold_without_end() -> list[Patch]:
    def bad(self: ModelClocks, now_ms: int) -> Any:
        return None if self.hold is None or self.hold.broken else self.hold

    return [replaced(ModelClocks.holding, bad)]


@bug("hash that depends on boundaries", "the row hash covers how rows were batched (S7)")
def hash_of_boundaries() -> list[Patch]:
    right = sim_learners.row_hash_sum
    return [replaced(sim_learners.row_hash_sum, lambda rows: right(rows) + 1, of=sim_learners)]


@bug(
    "copy sees a later push", "a marked state is copied as it stands when its part is written (X1)"
)
def copy_sees_a_later_push() -> list[Patch]:
    copying = Shard.copying

    def bad(self: Shard, model: str, cut: str, parent: str | None = None) -> Any:
        marked = self._cuts.get(model)
        if marked is not None and not marked.copy.begun:
            marked.copy._copies = {
                name: table.copy() for name, table in self._state(model).tables.items()
            }
        return copying(self, model, cut, parent)

    return [replaced(Shard.copying, bad)]


@bug(
    "delta since the settling",
    "a delta leaves out what was pushed between the mark and the word that it stands (X2)",
)
def delta_since_settling() -> list[Patch]:
    settle = Shard.settle

    def bad(self: Shard, model: str, cut: str, manifest_sha256: str) -> None:
        settle(self, model, cut, manifest_sha256)
        known = self.parent(model)
        if known is not None and known.manifest_sha256 == manifest_sha256:
            self._parents[model] = replace(known, version=self._state(model).version)

    return [replaced(Shard.settle, bad)]


_go_on = loading._go_on


def _upon_anything(
    catalogue: Any, manifests: list[Manifest], before: str, tables: Any, rebases: bool
) -> None:
    first = str(manifests[0].parent) if manifests else before
    _go_on(catalogue, manifests, first, tables, rebases)


@bug(
    "delta applied to another parent",
    "a replica applies the newest delta to whatever it holds (X3)",
)
def delta_on_another_parent() -> list[Patch]:
    def bad(target: Manifest, held: Manifest | None, find: Any) -> Any:
        return (ServingStep(target, True),) if held and not target.is_full else steps(target, find)

    def steps(target: Manifest, find: Any) -> Any:
        return serving_steps(target, None, find)

    return [
        replaced(serving_steps, bad, of=catalogue_module),
        replaced(loading._go_on, _upon_anything, of=loading),
    ]


@bug(
    "base taken as what changed upon anything",
    "a replica that does not hold a base's parent takes what the base says has changed (X3)",
)
def base_on_another_parent() -> list[Patch]:
    def bad(target: Manifest, held: Manifest | None, find: Any) -> Any:
        if held is not None and target.is_full and target.follows:
            return (ServingStep(target, True),)
        return serving_steps(target, held, find)

    return [
        replaced(serving_steps, bad, of=catalogue_module),
        replaced(loading._go_on, _upon_anything, of=loading),
    ]


@bug(
    "restore from a delta alone",
    "a shard restores the rows of the head cut without those of its base (X2)",
)
def restore_without_base() -> list[Patch]:
    cut_parts = sim_shards.cut_parts

    def bad(catalogue: Any, manifest: Any, held: Any = None) -> Any:
        last = cut_parts(catalogue, manifest, held)[-1]
        return [
            CutParts(
                last.manifest_sha256,
                True,
                lambda: [replace(part, parent=None) for part in last.read()],
            )
        ]

    return [replaced(sim_shards.cut_parts, bad, of=sim_shards)]
