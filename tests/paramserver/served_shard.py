"""One shard behind its server, and a client of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from paramserver.config import ParamServerConfig
from paramserver.messages import (
    DenseSpec,
    Epoch,
    ModelSpec,
    PushRequest,
    TableSpec,
)
from paramserver.ports import AllowRequest
from paramserver.server import Metrics, Server, ShardService
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.wire import ShardClient

SPEC = ModelSpec(
    "m",
    "d",
    (TableSpec("t", 8, "sgd", {"rate": 1.0}),),
    DenseSpec({"w": (4,)}, "sgd", {"rate": 1.0}),
)
W = {"w": np.zeros(4, np.float32)}
ME = Epoch(1, 1)


def a_push(count: int, **changes: object) -> PushRequest:
    keys = np.arange(1, count + 1, dtype=np.uint64)
    gradients = np.arange(count * 8, dtype=np.float32).reshape(count, 8)
    push = PushRequest(
        "m",
        ME,
        1,
        1,
        "c",
        0,
        1,
        0,
        1,
        0,
        0,
        1,
        0,
        0,
        {"t": keys},
        {"t": gradients},
        {"w": np.ones(4, np.float32)},
    )
    return replace(push, **changes)


@contextmanager
def served(tmp_path: Path, config: ParamServerConfig) -> Iterator[tuple[ShardService, ShardClient]]:
    """One shard that allows ME, and a client of it."""
    service = ShardService(Shard(0, 1, SlotMap.even(1)), config, Metrics())
    service.shard.begin(SPEC, {"c": 0}, W)
    service.shard.allow(AllowRequest(1, 1, (ME,)))
    server = Server(service, None, config.listen(0, str(tmp_path)))
    server.start()
    client = ShardClient(config.address(0, str(tmp_path)), config)
    try:
        yield service, client
    finally:
        client.close()
        server.stop(1)
        service.close()


SMALL = ParamServerConfig(message_bytes_max=65_536, staged_bytes_max=1_000_000)
