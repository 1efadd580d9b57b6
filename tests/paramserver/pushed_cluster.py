"""Shards without processes that all get every push, each its keys."""

from collections.abc import Callable

import numpy as np

from paramserver.messages import Epoch, ModelSpec, Outcome, PushRequest
from paramserver.parts import decode_part, encode_part, merge
from paramserver.ports import AllowRequest
from paramserver.shard import Shard
from paramserver.slots import SlotMap

LEARNER = Epoch(1, 1)
#: By the push's end: keys (n,), and the gradients (n, dim) of each table.
Drawn = Callable[[int], tuple[np.ndarray, dict[str, np.ndarray]]]


class Cluster:
    """`shards` of them with a model, new or restored from `parts`. `draw` says what is pushed."""

    def __init__(
        self, model: ModelSpec, draw: Drawn, shards: int, parts=(), incarnation: int = 1
    ) -> None:
        self.model, self.draw, self.slot_map = model, draw, SlotMap.even(shards)
        self.shards = [Shard(i, incarnation, self.slot_map) for i in range(shards)]
        for shard in self.shards:
            shard.allow(AllowRequest(1, 1, (LEARNER,)))
            shard.restore(parts, "before") if parts else shard.begin(model, {"c": 0}, {})

    def push(self, end: int) -> None:
        """A batch of chain `c` from `end` to the next, at `end` seconds."""
        keys, gradients = self.draw(end)
        for shard in self.shards:
            mine = self.slot_map.split(keys)[shard.index]
            push = PushRequest(
                "m",
                LEARNER,
                1,
                shard.incarnation,
                "c",
                end,
                end + 1,
                0,
                end + 1,
                0,
                0,
                1,
                1000 * end,
                keys=dict.fromkeys(gradients, keys[mine]),
                gradients={name: g[mine] for name, g in gradients.items()},
            )
            assert shard.push(push).outcome is Outcome.APPLIED

    def parts(self):
        return [decode_part(encode_part(shard.snapshot("m"))) for shard in self.shards]

    def rows(self):
        model = merge(self.parts())
        return {
            name: dict(zip(i.keys.tolist(), i.rows.tolist(), strict=True))
            for name, i in model.tables.items()
        }

    def restarted(self, shards: int, incarnation: int) -> "Cluster":
        """Others in their places, which go on from their parts."""
        return Cluster(self.model, self.draw, shards, self.parts(), incarnation)
