"""Compile every kernel of this package before anyone waits for one.

A first start takes a few seconds and leaves the code in numba's cache; later starts load it in about one. A server
calls this before it answers, so that no call's deadline has to cover a compiler.
"""

import numpy as np

from paramserver.messages import DenseSpec, Epoch, ModelSpec, PullRequest, PushRequest, TableSpec
from paramserver.optimizers import OPTIMIZERS
from paramserver.part import weights
from paramserver.shard import Shard
from paramserver.slots import SlotMap


def warm_up() -> int:
    """Drive a small shard of its own through push, pull, mark, restore and serving. Answers how many rows it made."""
    slot_map = SlotMap.even(1)
    keys = np.arange(64, dtype=np.uint64)
    dense = {"bias": np.zeros(1, np.float32)}
    rows = 0
    for name in OPTIMIZERS:
        spec = ModelSpec(name, "", (TableSpec("t", 2, name, init_scale=0.1),), DenseSpec({"bias": (1,)}, name))
        shard, epoch = Shard(0, 1, slot_map), Epoch(0, 0)
        shard.allow(0, 0, [epoch])
        shard.begin(spec, {"c": 0}, dense)
        push = PushRequest(name, epoch, 1, 1, "c", 0, 1, 0, 1, 0, 0, 1, keys={"t": keys[slot_map.split(keys)[0]]})
        push.gradients["t"] = np.ones((len(keys), 2), np.float32)
        push.dense["bias"] = np.ones(1, np.float32)
        shard.push(push)
        shard.pull(PullRequest(name, epoch, 1, {"t": keys}))
        snapshot = shard.snapshot(name)
        weights(snapshot)
        Shard(0, 2, slot_map).restore([snapshot], "")
        rows += shard.rows(name)
    return rows
