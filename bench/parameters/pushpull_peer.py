"""Our server and our clients for `bench.pushpull`, which starts them as processes of this module:

serve TRANSPORT PORT RUN_DIR, or drive TRANSPORT PORT RUN_DIR CLIENT SEED.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench.parameters.pushpull_work import (
    ACCUMULATOR,
    DIM,
    EPSILON,
    EXAMPLES,
    RATE,
    ROWS,
    Work,
    gradients_of,
)
from everspun.roles import keep_freed_memory, stop_on_signals
from paramserver import (
    DenseSpec,
    Epoch,
    ModelSpec,
    Outcome,
    ParamServerConfig,
    PortUnreachable,
    PullRequest,
    PushRequest,
    ShardPort,
    TableSpec,
)
from paramserver.process import run
from paramserver.wire import ShardClient, connect

SPEC = ModelSpec(
    "bench",
    "1",
    (
        TableSpec(
            "t", DIM, "adagrad", {"rate": RATE, "accumulator": ACCUMULATOR, "epsilon": EPSILON}
        ),
    ),
    DenseSpec({}),
)
CHAINS = {"c0": 0, "c1": 0}
FILL_ROWS = 50_000


def settings(transport: str, port: int, wire: str = "float32") -> ParamServerConfig:
    return ParamServerConfig(
        transport=transport,
        port=port,
        wire=wire,
        staleness=-1,
        lease_ms=600_000,
        stated_max_ms=600_000,
    )


class Driver:
    """One client: batch for batch a pull and a push of the same rows."""

    def __init__(self, port: ShardPort, epoch: Epoch, chain: str, work: Work) -> None:
        self.port, self.epoch, self.chain, self.work = port, epoch, chain, work
        progress = port.begin(SPEC, CHAINS, {}).progress
        assert progress is not None
        self._end = progress.chains[chain].end
        keys = [work.keys[ids] for ids in work.ids]
        orders = [np.argsort(k) for k in keys]
        self._keys = [k[order] for k, order in zip(keys, orders, strict=True)]
        self._gradients = [
            gradients_of(ids[order]) for ids, order in zip(work.ids, orders, strict=True)
        ]

    def fill(self) -> None:
        """Make every row, by pushes of zeros, which leave weights and sums as they begin."""
        keys = np.sort(self.work.keys)
        for at in range(0, ROWS, FILL_ROWS):
            some = keys[at : at + FILL_ROWS]
            self._push(some, np.zeros((len(some), DIM), np.float32), 0)

    def round(self, batches: Iterable[int]) -> int:
        """Rows pulled and pushed."""
        rows = 0
        for batch in batches:
            keys = self._keys[batch]
            pulled = self.port.pull(PullRequest("bench", self.epoch, 1, {"t": keys}, dense=False))
            if pulled.rows["t"].shape != (len(keys), DIM):
                raise RuntimeError(f"pulled {pulled.rows['t'].shape} for {len(keys)} keys")
            self._push(keys, self._gradients[batch], pulled.version)
            rows += len(keys)
        return rows

    def weights(self, ids: np.ndarray) -> np.ndarray:
        """(n, DIM) as they stand on the server."""
        keys = self.work.keys[ids]
        order = np.argsort(keys)
        found = np.empty((len(ids), DIM), np.float32)
        found[order] = self.port.pull(
            PullRequest("bench", self.epoch, 1, {"t": keys[order]}, dense=False)
        ).rows["t"]
        return found

    def _push(self, keys: np.ndarray, gradients: np.ndarray, version: int) -> None:
        reply = self.port.push(
            PushRequest(
                model="bench",
                epoch=self.epoch,
                map_epoch=1,
                incarnation=1,
                chain=self.chain,
                start=self._end,
                end=self._end + 1,
                partition=0,
                next_record=0,
                read_version=version,
                row_hash=0,
                rows=EXAMPLES,
                keys={"t": keys},
                gradients={"t": gradients},
            )
        )
        if reply.outcome is not Outcome.APPLIED:
            raise RuntimeError(f"push was {reply.outcome.value}, {reply.detail}")
        self._end = reply.end


def answer(handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """One line of JSON on stdin is an order, one on stdout its answer; until stdin ends."""
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), flush=True)


def timed(step: Callable[[], int]) -> dict[str, Any]:
    """Rows and CPU seconds of a step, for the answer."""
    cpu = time.process_time()
    rows = step()
    return {"rows": rows, "cpu_s": time.process_time() - cpu}


def drive(transport: str, port: int, run_dir: str, client: int, seed: int) -> None:
    keep_freed_memory()  # as the roles do
    work = Work.drawn(seed)
    shards, clock = connect(settings(transport, port), run_dir, 1)
    epoch = _joined(shards[0], clock, f"bench-{client}")
    drivers = {}
    for wire in ("float32", "bfloat16"):
        config = settings(transport, port, wire)
        drivers[wire] = Driver(
            ShardClient(config.address(0, run_dir), config), epoch, f"c{client}", work
        )

    def handle(order: dict[str, Any]) -> dict[str, Any]:
        driver = drivers[order.get("wire", "float32")]
        if order["do"] == "fill":
            driver.fill()
            return {}
        if order["do"] == "weights":
            return {"weights": driver.weights(np.array(order["ids"])).tolist()}
        _one_end(drivers.values(), driver)
        return timed(lambda: driver.round(work.share(client, order["clients"])))

    answer(handle)


def _one_end(drivers: Iterable[Driver], driver: Driver) -> None:
    """Both encodings push along one chain."""
    driver._end = max(d._end for d in drivers)


def _joined(shard: ShardPort, clock: Any, name: str) -> Epoch:
    deadline = time.monotonic() + 90
    while True:
        try:
            epoch: Epoch = clock.join("bench", name).epoch
            if shard.pull(PullRequest("bench", epoch, 1, {})).outcome not in (
                Outcome.NO_ERA,
                Outcome.FENCED,
            ):
                return epoch
        except PortUnreachable:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def serve(transport: str, port: int, run_dir: str) -> None:
    keep_freed_memory()  # as the roles do
    run(settings(transport, port), 1, 0, 1, run_dir, stop_on_signals())


if __name__ == "__main__":
    role, transport, port, run_dir, *rest = sys.argv[1:]
    if role == "serve":
        serve(transport, int(port), run_dir)
    else:
        drive(transport, int(port), run_dir, int(rest[0]), int(rest[1]))
