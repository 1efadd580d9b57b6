"""Compile every kernel of this package before anyone waits for one.

A first start takes a few seconds and leaves the code in numba's cache; later starts load it in
about one. A server calls this before it answers, so that no call's deadline has to cover a
compiler.
"""

from dataclasses import fields, replace

import numpy as np

from paramserver.encoding import Encoding, decode_rows, encode_rows
from paramserver.messages import DenseSpec, Epoch, ModelSpec, PullRequest, PushRequest, TableSpec
from paramserver.optim import MOMENTS, OPTIMIZERS
from paramserver.parts import weights
from paramserver.ports import AllowRequest
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.tables import ROWS_MIN, RowStore, rebase


def warm_up() -> int:
    """Drive a small shard of its own through push, pull, mark, restore and serving. Answers how
    many rows it made."""
    for encoding in Encoding:
        decode_rows(encode_rows(np.ones((2, 2), np.float32), encoding), encoding)
    slot_map = SlotMap.even(1)
    keys = np.arange(64, dtype=np.uint64)
    dense = {name: np.ones(1, np.float32) for name in ("bias", f"{MOMENTS}shown")}
    rows = 0
    for name, optimizer in OPTIMIZERS.items():
        decay = (
            {"decay_ms": 1000.0}
            if "decay_ms" in (field.name for field in fields(optimizer))
            else {}
        )
        tables = (
            TableSpec("t", 2, name, decay, 0.1),
            TableSpec("mortal", 2, name, policy={"ttl_ms": 60_000}),
            TableSpec(
                "counted",
                2,
                name,
                policy={"admit_count": 2, "admit_bytes": 65_536, "admit_halve_ms": 300_000},
            ),
            TableSpec("drawn", 2, name, policy={"admit_chance": 0.5}),
            *(
                []
                if name == "ftrl"
                else [TableSpec("halved", 2, name, decay, 0.1, storage="float16")]
            ),
            *(
                [TableSpec("quartered", 2, name, storage="float16/bfloat16")]
                if name == "adagrad"
                else []
            ),
        )
        spec = ModelSpec(name, "", tables, DenseSpec(dict.fromkeys(dense, (1,)), name, decay))
        shard, epoch = Shard(0, 1, slot_map), Epoch(0, 0)
        shard.allow(AllowRequest(0, 0, (epoch,)))
        shard.begin(spec, {"c": 0}, dense)
        for n in range(3):
            now_ms = 100_000 * (1 + n)
            push = PushRequest(name, epoch, 1, 1, "c", n, n + 1, 0, 1, 0, 0, 1, now_ms, dense=dense)
            for table in (table.name for table in tables):
                push.keys[table] = keys[slot_map.split(keys)[0]] + np.uint64(n)
                push.gradients[table] = np.ones((len(keys), 2), np.float32)
            shard.pull(PullRequest(name, epoch, 1, dict(push.keys)))  # whose rows the push takes up
            shard.push(push)
        bad = {table.name: np.full((len(keys), 2), np.nan, np.float32) for table in tables}
        shard.push(replace(push, start=3, end=4, gradients=bad))
        snapshot = shard.snapshot(name)
        weights(snapshot)
        Shard(0, 2, slot_map).restore([snapshot], "")
        rows += shard.rows(name)
    row_store = RowStore(2, ROWS_MIN, mortal=False)  # what happens rarely
    row_store.index.reseed(row_store.words, 0)
    rebase(row_store.words, 0, 0)
    return rows
