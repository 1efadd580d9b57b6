"""Shards and a clock holder behind either implementation of the ports, and what is asked of
them."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paramserver.clocks import Clocks
from paramserver.config import ParamServerConfig
from paramserver.messages import (
    DenseSpec,
    Epoch,
    ModelSpec,
    PullRequest,
    PushRequest,
    StartOutcome,
    StartRequest,
    TableSpec,
)
from paramserver.ports import ClockPort, JoinReply, PortUnreachable, ShardPort
from paramserver.process import run
from paramserver.server import LocalClock, LocalShard
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.wire import connect
from stream.monitoring import TimeLimit

SHARDS = 2
MAP = SlotMap.even(SHARDS)
SPEC = ModelSpec(
    "clicks",
    "d1",
    (
        TableSpec("item", 4, "sgd", {"rate": 1.0}, init_scale=0.5, seed=7),
        TableSpec("user", 2, "ftrl"),
        TableSpec("word", 2, "adagrad", {}, 0.5, 7, {"admit_count": 2}, "float16/bfloat16"),
    ),
    DenseSpec({"w": (3, 2), "b": (2,)}, "sgd", {"rate": 1.0}),
)
BEGIN = {"label/0": 0, "label/1": 100}


@dataclass
class Ports:
    """What a test talks to, and what it must wait for."""

    shards: dict[int, ShardPort]
    clock: ClockPort
    files: str  # a folder to write parts into
    read: object  # url -> bytes

    def join(self, learner: str) -> JoinReply:
        """Join, and wait until a start would be admitted: every shard knows the epoch."""
        joined = self.clock.join("clicks", learner)
        probe = StartRequest("clicks", joined.epoch, "probe", 0, 1)
        limit = TimeLimit(10)
        while self.clock.start(probe).outcome is not StartOutcome.ADMITTED:
            self.tell()
            assert not limit.over, "a joined learner was never admitted"
            time.sleep(0.002)
        assert self.clock.ended("clicks", joined.epoch, self.clock.start(probe).clock)
        assert self.clock.park("clicks", joined.epoch)
        return joined

    def tell(self) -> None:
        if isinstance(self.clock, LocalClock):
            self.clock.tell(self.shards)  # type: ignore[arg-type]

    def begin(self) -> dict[int, int]:
        dense = {"w": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.zeros(2, np.float32)}
        return {n: shard.begin(SPEC, BEGIN, dense).incarnation for n, shard in self.shards.items()}


def local_ports(tmp_path: Path) -> Iterator[Ports]:
    files: dict[str, bytes] = {}
    shards = {n: LocalShard(Shard(n, 1, MAP), files) for n in range(SHARDS)}
    clock = LocalClock(Clocks(1, SHARDS, staleness=1), lambda: 0)
    yield Ports(dict(shards), clock, str(tmp_path), files.__getitem__)


def wait_for(shard: ShardPort) -> None:
    """A server answers once its kernels are loaded, which the first one may have to compile."""
    limit = TimeLimit(60)
    while True:
        try:
            shard.progress("clicks")
            return
        except PortUnreachable:
            assert not limit.over, "a shard did not come up"


def grpc_ports(tmp_path: Path) -> Iterator[Ports]:
    config = ParamServerConfig(staleness=1, allow_ms=20)
    stop = threading.Event()
    run_dir = str(tmp_path)
    threads = [
        threading.Thread(target=run, args=(config, SHARDS, n, 1, run_dir, stop))
        for n in range(SHARDS)
    ]
    for thread in threads:
        thread.start()
    shards, clock = connect(config, run_dir, SHARDS)
    for shard in shards.values():
        wait_for(shard)
    yield Ports(dict(shards), clock, str(tmp_path / "cut"), lambda url: Path(url).read_bytes())
    stop.set()
    for client in (*shards.values(), clock):
        client.close()
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


def keys_of(shard: int, count: int = 5) -> np.ndarray:
    """Some keys that a shard owns."""
    keys = np.arange(1, 200, dtype=np.uint64)
    return keys[MAP.split(keys)[shard]][:count]


def a_push(
    epoch: Epoch, shard: int = 0, start: int = 0, end: int = 10, **changes: object
) -> PushRequest:
    keys = keys_of(shard)
    push = PushRequest(
        model="clicks",
        epoch=epoch,
        map_epoch=MAP.epoch,
        incarnation=1,
        chain="label/0",
        start=start,
        end=end,
        partition=0,
        next_record=5,
        read_version=0,
        row_hash=(1 << 127) + 3,
        rows=9,
        event_time_max_ms=1_000,
        keys={"item": keys},
        gradients={"item": np.full((len(keys), 4), -1, np.float32)},
    )
    return replace(push, **changes)


def a_pull(epoch: Epoch, shard: int = 0, **changes: object) -> PullRequest:
    return replace(PullRequest("clicks", epoch, MAP.epoch, {"item": keys_of(shard)}), **changes)
