"""Rows per second pulled and pushed through a shard: in process, over a unix socket, and over loopback TCP.

    python -m bench.pushpull [--rounds 9] [--json]

One batch is 4,096 examples x 26 features with Zipf(1.05) values over 1,000,000 keys, of which the unique keys (about
32,000) are pulled and pushed once each: rows of 16 float32, element-wise Adagrad on the server. One client, one server
process, no computation between. The three ways take turns within each round, so that other load hits all of them;
figures are medians, `spread` is the distance from the lower to the upper quartile over the median. `ratio` is rows/s
over the wire by rows/s in process. Takes about 30 s and 0.6 GB.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np

from paramserver.client import connect
from paramserver.clocks import Clocks
from paramserver.config import ParamServerConfig
from paramserver.local import LocalClock, LocalShard
from paramserver.messages import DenseSpec, Epoch, ModelSpec, Outcome, PullRequest, PushRequest, TableSpec
from paramserver.ports import ShardPort, Unreachable
from paramserver.service import run
from paramserver.shard import Shard
from paramserver.slots import SlotMap

EXAMPLES, FEATURES, KEYS, DIM, EXPONENT = 4_096, 26, 1_000_000, 16, 1.05
BATCHES = 8
SPEC = ModelSpec("bench", "1", (TableSpec("t", DIM, "adagrad", init_scale=0.01),), DenseSpec({}))
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def draw_batches(seed: int) -> list[np.ndarray]:
    """The unique keys of each batch, sorted; a key is a mixed rank, so that hot keys are spread over the slots."""
    rng = np.random.default_rng(seed)
    weight = np.cumsum(np.arange(1, KEYS + 1, dtype=np.float64) ** -EXPONENT)
    names = rng.integers(1, 1 << 63, KEYS).astype(np.uint64)
    ranks = [np.searchsorted(weight, rng.random(EXAMPLES * FEATURES) * weight[-1]) for _ in range(BATCHES)]
    return [np.unique(names[drawn]) for drawn in ranks]


class Way:
    """One way to reach a shard, and what it has cost."""

    def __init__(self, name: str, port: ShardPort, epoch: Epoch, server_cpu_s: Callable[[], float]) -> None:
        self.name, self.port, self.epoch, self.server_cpu_s = name, port, epoch, server_cpu_s
        self.rows_per_s: list[float] = []
        self.cpu_us: list[float] = []
        self.server_cpu_us: list[float] = []
        self._end = port.begin(SPEC, {"c": 0}, {}).progress.chains["c"].end  # type: ignore[union-attr]

    def round(self, batches: list[np.ndarray], gradients: np.ndarray) -> None:
        cpu, server, began = time.process_time(), self.server_cpu_s(), time.perf_counter()
        for keys in batches:
            self.batch(keys, gradients[: len(keys)])
        seconds, rows = time.perf_counter() - began, sum(len(keys) for keys in batches)
        served = self.server_cpu_s() - server
        self.rows_per_s.append(rows / seconds)
        self.server_cpu_us.append(served / rows * 1e6)
        self.cpu_us.append((time.process_time() - cpu + served) / rows * 1e6)

    def batch(self, keys: np.ndarray, gradients: np.ndarray) -> None:
        pulled = self.port.pull(PullRequest("bench", self.epoch, 1, {"t": keys}, dense=False))
        reply = self.port.push(
            PushRequest(
                model="bench",
                epoch=self.epoch,
                map_epoch=1,
                incarnation=pulled.incarnation,
                chain="c",
                start=self._end,
                end=self._end + 1,
                partition=0,
                next_record=0,
                read_version=pulled.version,
                row_hash=0,
                rows=EXAMPLES,
                keys={"t": keys},
                gradients={"t": gradients},
            )
        )
        if reply.outcome is not Outcome.APPLIED:
            raise RuntimeError(f"{self.name}: push was {reply.outcome.value}, {reply.detail}")
        self._end = reply.end

    def report(self) -> dict[str, float]:
        low, median, high = np.percentile(self.rows_per_s, [25, 50, 75])
        return {
            "rows_per_s": round(median),
            "spread": round((high - low) / median, 3),
            "cpu_us_per_row": round(float(np.median(self.cpu_us)), 3),
            "server_cpu_us_per_row": round(float(np.median(self.server_cpu_us)), 3),
        }


def local_way() -> Way:
    shard = LocalShard(Shard(0, 1, SlotMap.even(1)))
    clock = LocalClock(Clocks(1, 1, -1), lambda: 0)
    epoch = clock.join("bench", "bench").epoch
    clock.tell({0: shard})
    return Way("in_process", shard, epoch, lambda: 0.0)


def wire_way(name: str, config: ParamServerConfig, run_dir: str) -> tuple[Way, subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "bench.pushpull", "--serve", config.transport, run_dir])
    shards, clock = connect(config, run_dir, 1)
    deadline = time.monotonic() + 60
    while True:
        try:
            epoch = clock.join("bench", "bench").epoch
            break
        except Unreachable:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.1)
    while shards[0].pull(PullRequest("bench", epoch, 1, {})).outcome in (Outcome.NO_ERA, Outcome.FENCED):
        time.sleep(0.01)
    return Way(name, shards[0], epoch, lambda: process_cpu_s(process.pid)), process


def process_cpu_s(pid: int) -> float:
    """User and system seconds of another process (Linux)."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def settings(transport: str) -> ParamServerConfig:
    return ParamServerConfig(transport=transport, port=17_711, staleness=-1, lease_ms=600_000, stated_max_ms=600_000)


def serve(transport: str, run_dir: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run(settings(transport), 1, 0, 1, run_dir, stop)


def measure(rounds: int, seed: int) -> dict[str, object]:
    batches = draw_batches(seed)
    largest = max(len(keys) for keys in batches)
    gradients = np.random.default_rng(seed).normal(0, 0.01, (largest, DIM)).astype(np.float32)
    with tempfile.TemporaryDirectory() as run_dir:
        started = [wire_way(name, settings(name), f"{run_dir}/{name}") for name in ("unix", "tcp")]
        ways = [local_way(), *(way for way, _ in started)]
        try:
            for number in range(rounds + 1):
                for way in ways:
                    way.round(batches, gradients)
                    if number == 0:  # creates the rows
                        way.rows_per_s.clear(), way.cpu_us.clear(), way.server_cpu_us.clear()
        finally:
            for _, process in started:
                process.terminate()
                process.wait(timeout=20)
    found = {way.name: way.report() for way in ways}
    base = found["in_process"]["rows_per_s"]
    return {
        "bench": "pushpull",
        "rows_per_batch": round(float(np.mean([len(keys) for keys in batches]))),
        "seed": seed,
        "rounds": rounds,
        **found,
        "ratio": {name: round(report["rows_per_s"] / base, 3) for name, report in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds of 8 batches each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--serve", nargs=2, metavar=("TRANSPORT", "RUN_DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    print(json.dumps(measure(arguments.rounds, arguments.seed), indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
