"""Does a larger system cost more for each example? CPU seconds with 1, 2 and 4 shards and 1, 2 and
4 learners.

    python -m bench.scale [--json] [--sizes 1x1,4x4] [--beside 4]

DLRM-style, 26 features x 16 and an MLP of 64-32, batches of 4,096, element-wise Adagrad. Shards and
learners are the product's processes over unix sockets; each learner has its partition of `examples`
in its own memory, so no broker is in the figure. Measured from the 50th batch on, over 100 batches.
On few cores wall time cannot show scaling; CPU time can. Takes about 5 minutes and 3 GB.

Keys. `sizes`: by shards x learners. `cpu_growth_4x4`: CPU seconds for an example at 4x4 to those at
1x1. `cpu_growth_4x4_beside`: to those of four systems of 1x1 that run at once (`--beside 4`), so
without what eight busy processes cost each other on these cores whatever they say to one another.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.learning.training_data import FEATURES, NAMES, Records, draw
from bench.measuring.machine import Meter, machine
from everspun.roles import keep_freed_memory, stop_on_signals
from learners import LearnerConfig, ModelConfig
from learners.models import Model, make_model
from learners.process import LearnerMetrics, Worker, prepare_torch
from paramserver import ParamServerConfig, PortUnreachable, ShardPort
from paramserver.process import process as service
from paramserver.wire import connect
from stream import Partition, StreamConfig, begin_vector
from stream.log import MemoryGroupReader, MemoryLog, wall_clock_ms

SIZES = "1x1,1x2,1x4,2x1,2x2,2x4,4x1,4x2,4x4"
ROWS, WARM, MEASURED, DISTINCT, SEED = 4_096, 50, 100, 16, 1
STUCK_S = 240.0
PARAMSERVER = ParamServerConfig(staleness=1, lease_ms=600_000, stated_max_ms=600_000)


class OwnPartition(MemoryLog):
    """A log of which this process, alone in its group, is assigned one partition."""

    def __init__(self, partition: int) -> None:
        super().__init__(lambda: wall_clock_ms())
        self.partition = partition

    def group_reader(self, group: str, member: str = "") -> MemoryGroupReader:
        reader = super().group_reader(group, member)
        found = self._groups[group]
        found.share = lambda member, topic, count: [Partition(topic, self.partition)]  # type: ignore[method-assign]
        return reader


def a_model() -> Model:
    config = ModelConfig(
        kind="dlrm",
        categorical=NAMES,
        dim=16,
        hidden=(64, 32),
        table_optimizer="adagrad",
        table_options={"rate": 0.05},
        reduction="mean",
    )
    assert len(config.categorical) == FEATURES
    return make_model(config)


def a_stream(learners: int) -> StreamConfig:
    return StreamConfig(partitions=learners, replayed=True, categorical_features=NAMES)


def ready_file(folder: str, index: int) -> Path:
    """There once learner `index` has made its log; all of them then begin together."""
    return Path(folder) / f"learner-{index}.ready"


def run_shard(index: int, shards: int, folder: str) -> None:
    keep_freed_memory()  # as the roles do
    service.run(PARAMSERVER, shards, index, 1, folder, stop_on_signals())


def run_learner(index: int, learners: int, shards: int, folder: str) -> None:
    stop, stream, config = stop_on_signals(), a_stream(learners), LearnerConfig(torch_threads=1)
    keep_freed_memory()  # as the roles do
    prepare_torch(config)
    log = OwnPartition(index)
    log.create(stream.examples, learners)
    log.create(stream.evaluations, 1)
    log.create(stream.checkpoints, 1)
    records = Records(draw(ROWS, SEED, DISTINCT), log.writer(), stream.examples, SEED, index)
    records.append(2 * (WARM + MEASURED) // learners)
    ports, clock = connect(PARAMSERVER, folder, shards)
    ready_file(folder, index).touch()
    Worker(stream, a_model(), config, ports, clock, log, LearnerMetrics(), f"learner-{index}").run(
        stop
    )


def wait_for_rows(
    shard: ShardPort,
    model: Model,
    rows: int,
    of_each: int,
    processes: dict[str, "subprocess.Popen[bytes]"],
) -> int:
    """Rows applied, once they are so many, and `of_each` learner's partition."""
    deadline = time.monotonic() + STUCK_S
    while time.monotonic() < deadline:
        progress = shard.progress(model.name).progress
        chains = (
            {}
            if progress is None
            else {c: at.rows for c, at in progress.chains.items() if c.startswith("label/")}
        )
        applied = sum(chains.values())
        if applied >= rows and min(chains.values()) >= of_each:
            return applied
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}")
        time.sleep(0.02)
    raise RuntimeError(f"{rows} rows were not learned within {STUCK_S:.0f} s")


def begin(ports: dict[int, ShardPort], model: Model, learners: int) -> None:
    vector = begin_vector(dict.fromkeys(range(learners), 0), 0)
    deadline = time.monotonic() + STUCK_S
    for port in ports.values():
        while True:
            try:
                port.begin(model.spec, vector, dict(model.initial_dense()))
                break
            except PortUnreachable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


def measure(shards: int, learners: int) -> dict[str, Any]:
    model = a_model()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, ExitStack() as stack:
        processes: dict[str, subprocess.Popen[bytes]] = {}

        def start(role: str, index: int) -> None:
            command = [sys.executable, "-m", "bench.scale", "--role", role, "--index", str(index)]
            command += ["--sizes", f"{shards}x{learners}", "--folder", folder]
            processes[f"{role}-{index}"] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

        def stop() -> None:
            for process in reversed(processes.values()):
                process.terminate()
            for process in processes.values():
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

        stack.callback(stop)
        for index in range(shards):
            start("shard", index)
        ports, clock = connect(PARAMSERVER, folder, shards)
        stack.callback(clock.close)
        for port in ports.values():
            stack.callback(port.close)
        begin(dict(ports), model, learners)
        clock.set_paused(model.name, True)
        for index in range(learners):
            start("learner", index)
        while not all(ready_file(folder, index).exists() for index in range(learners)):
            if any(process.poll() is not None for process in processes.values()):
                raise RuntimeError(f"a process of {shards}x{learners} ended before it began")
            time.sleep(0.05)
        clock.set_paused(model.name, False)
        before = wait_for_rows(
            ports[0], model, WARM * ROWS, WARM // learners // 2 * ROWS, processes
        )
        meter, began = (
            Meter.start({name: process.pid for name, process in processes.items()}),
            time.monotonic(),
        )
        after = wait_for_rows(ports[0], model, before + MEASURED * ROWS, 0, processes)
        seconds, (cpu_s, _) = time.monotonic() - began, meter.stop()
    return report(after - before, seconds, cpu_s)


def beside(systems: int) -> dict[str, Any]:
    """So many systems of one shard and one learner at once, that share the machine and nothing
    else: the mean."""
    with ThreadPoolExecutor(systems) as pool:
        reports = list(pool.map(lambda _: measure(1, 1), range(systems)))
    roles = reports[0]["cpu_s_per_million_examples"]
    mean = {
        role: round(fmean(r["cpu_s_per_million_examples"][role] for r in reports), 2)
        for role in roles
    }
    return {
        "cpu_s_per_million_examples": mean,
        "examples": sum(r["examples"] for r in reports),
        "examples_per_s": sum(r["examples_per_s"] for r in reports),
    }


def report(examples: int, seconds: float, cpu_s: dict[str, float]) -> dict[str, Any]:
    def of(role: str) -> float:
        return round(
            sum(s for name, s in cpu_s.items() if name.startswith(role)) / examples * 1e6, 2
        )

    return {
        "cpu_s_per_million_examples": {
            "shards": of("shard"),
            "learners": of("learner"),
            "all": of(""),
        },
        "examples": examples,
        "examples_per_s": round(examples / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--sizes", default=SIZES, help="shards x learners, with commas between")
    parser.add_argument(
        "--beside", type=int, default=0, help="also so many systems of 1x1 at once, each on its own"
    )
    parser.add_argument("--role", choices=["shard", "learner"], help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    if options.role == "shard":
        return run_shard(options.index, sizes[0][0], options.folder)
    if options.role == "learner":
        return run_learner(options.index, sizes[0][1], sizes[0][0], options.folder)
    found = {f"{shards}x{learners}": measure(shards, learners) for shards, learners in sizes}
    if options.beside:
        found[f"{options.beside} of 1x1"] = beside(options.beside)
    body: dict[str, Any] = {
        "bench": "scale",
        "sizes": found,
        "batch_rows": ROWS,
        "machine": machine(),
    }
    if {"1x1", "4x4"} <= found.keys():
        cost = {size: one["cpu_s_per_million_examples"]["all"] for size, one in found.items()}
        body["cpu_growth_4x4"] = round(cost["4x4"] / cost["1x1"], 3)
        if "4 of 1x1" in cost:
            body["cpu_growth_4x4_beside"] = round(cost["4x4"] / cost["4 of 1x1"], 3)
    print(json.dumps(body, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
