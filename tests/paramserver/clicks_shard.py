"""A shard of a small model, and pushes for it."""

from dataclasses import replace

import numpy as np

from paramserver.messages import (
    DenseSpec,
    Epoch,
    ModelSpec,
    PushRequest,
    TableSpec,
)
from paramserver.parts import Snapshot
from paramserver.parts.part import to_arrays
from paramserver.ports import AllowRequest
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from stream.kernels import HASH_MODULUS

LEARNER = Epoch(1, 1)
SPEC = ModelSpec(
    "clicks",
    "sha256:1",
    (
        TableSpec("user", 2, "ftrl", {"alpha": 0.4, "l1": 0.01}),
        TableSpec("item", 3, "adagrad", {"rate": 0.1}, init_scale=0.1, seed=5),
    ),
    DenseSpec({"bias": (1,), "hidden": (2, 3)}, "adam"),
)
DENSE = {
    "bias": np.array([-2.0], np.float32),
    "hidden": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
}
CHAINS = {"label/0": 10, "label/1": 0}


def new_shard(
    index: int = 0, shards: int = 1, incarnation: int = 1, spec: ModelSpec = SPEC
) -> Shard:
    shard = Shard(index, incarnation, SlotMap.even(shards))
    shard.allow(AllowRequest(1, 1, (LEARNER,)))
    shard.begin(spec, CHAINS, DENSE)
    return shard


def push_of(
    chain: str, start: int, end: int, shard: Shard | None = None, seed: int = 0, **changes
) -> PushRequest:
    """A push whose content is a function of (chain, start, end, seed), cut to the keys of its
    shard."""
    shard = shard or new_shard()
    rng = np.random.default_rng([start, end, seed, *chain.encode()])
    keys, gradients = {}, {}
    for spec in SPEC.tables:
        drawn = np.unique(rng.integers(0, 30, rng.integers(0, 8)).astype(np.uint64))
        values = rng.normal(0, 1, (len(drawn), spec.dim)).astype(np.float32)
        mine = shard.slot_map.split(drawn)[shard.index]
        keys[spec.name], gradients[spec.name] = drawn[mine], values[mine]
    dense = {
        name: rng.normal(0, 1, shape).astype(np.float32)
        for name, shape in sorted(SPEC.dense.shapes.items())
    }
    dense = {
        name: g for name, g in dense.items() if shard.slot_map.owner_of_name(name) == shard.index
    }
    request = PushRequest(
        model="clicks",
        epoch=LEARNER,
        map_epoch=1,
        incarnation=shard.incarnation,
        chain=chain,
        start=start,
        end=end,
        partition=int(chain[-1]),
        next_record=end,
        read_version=0,
        row_hash=sum(hash_of(chain, i) for i in range(start, end)) % HASH_MODULUS,
        rows=end - start,
        event_time_max_ms=1000 + end,
        keys=keys,
        gradients=gradients,
        dense=dense,
    )
    return replace(request, **changes)


def barrier_of(chain: str, at: int, barrier: int, **changes) -> PushRequest:
    return push_of(chain, at, at, barrier=barrier, keys={}, gradients={}, dense={}, **changes)


def hash_of(chain: str, position: int) -> int:
    return (position + 1) * ((1 << 127) + 12345) * (1 + int(chain[-1])) % HASH_MODULUS


def frozen(snapshot: Snapshot) -> dict[str, object]:
    """Every bit of a snapshot as bytes and text: independent of row order and of what is pushed
    later."""
    arrays, metadata = to_arrays(snapshot)
    return {
        **metadata,
        **{name: (str(array.dtype), array.tobytes()) for name, array in arrays.items()},
    }


def assert_same(a: Snapshot, b: Snapshot | dict[str, object]) -> None:
    assert frozen(a) == (b if isinstance(b, dict) else frozen(b))
