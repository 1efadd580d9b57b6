"""Examples a second from impressions in Kafka to applied push, and what each role spends on them.

    python -m bench.pipeline [--json] [--impressions 400000] [--format json|arrow] [--broker
    auto|kafka|embedded]

A broker and all roles are real processes on this machine. A short simulated log is learned first,
so that every kernel is compiled and every connection made. Then the labelers are stopped (SIGSTOP),
a day of simulated traffic with one attack of each direction is written, and the clock runs from
their going on (SIGCONT) until every shard has applied the last impression. CPU seconds are read
from /proc, children included. Takes about two minutes and 3 GB.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.end_to_end.pipeline_log import FORMATS, Written, write
from bench.measuring.machine import Meter, machine
from bench.measuring.own_run import own_arguments
from bench.measuring.plotting import cpu_by_role
from everspun import Config, LocalRun
from everspun.replay import TrafficConfig, simulate
from everspun.status import StatusFollower, quantile, scrape
from paramserver import PortUnreachable, Progress, ShardPort
from paramserver.wire import connect
from stream import label_chain

WARM_IMPRESSIONS = 30_000
WARM_DAYS = 0.25
POLL_S = 0.02
PLOT = Path("docs/pipeline_cpu.png")
#: Without any progress for this long the run has failed.
STUCK_S = 120.0


class Failed(RuntimeError):
    """The pipeline stood still; the message says where."""


@dataclass
class Shards:
    """Where the shards stand."""

    config: Config
    ports: dict[int, ShardPort]

    @classmethod
    @contextlib.contextmanager
    def of(cls, config: Config) -> "Iterator[Shards]":
        ports, clock = connect(config.paramserver, config.run.dir, config.run.shards)
        try:
            yield cls(config, dict(ports))
        finally:
            for port in (clock, *ports.values()):
                port.close()

    def progress(self) -> list[Progress]:
        """Of every shard that has the model; one that does not answer has none."""
        found = []
        for port in self.ports.values():
            with contextlib.suppress(PortUnreachable):
                found.append(port.progress(self.config.model.name).progress)
        return [one for one in found if one is not None]

    def rows(self) -> int:
        """Rows that every shard has applied."""
        standing = self.progress()
        if len(standing) < len(self.ports):
            return 0
        return min(sum(chain.rows for chain in one.chains.values()) for one in standing)

    def wait_for(self, ends: dict[int, int], local: LocalRun) -> float:
        """Until every shard has applied all positions below these; the monotonic time of that."""
        moved, before = time.monotonic(), -1
        while True:
            standing = self.progress()
            now = time.monotonic()
            if len(standing) == len(self.ports) and all(
                one.chains[label_chain(p)].end >= end for one in standing for p, end in ends.items()
            ):
                return now
            rows = sum(chain.rows for one in standing for chain in one.chains.values())
            if rows != before:
                moved, before = now, rows
            local.launcher.raise_if_failed()
            if now - moved > STUCK_S:
                raise Failed(f"no push was applied for {STUCK_S:.0f} s; logs: {local.dir / 'logs'}")
            time.sleep(POLL_S)


def measure(local: LocalRun, options: argparse.Namespace) -> dict[str, Any]:
    """Warm up, write the log, let it be learned, and say what that took."""
    config, log = local.config, local.log()
    traffic = traffic_config(options)
    warm = simulate(
        traffic_config(options, impressions=WARM_IMPRESSIONS, days=WARM_DAYS, seed=options.seed + 1)
    ).history
    last_ms = (
        int(max(warm.ts_ms[-1], warm.click_ts_ms[-1]))
        + config.stream.wait_ms
        + config.stream.signal_ms
    )
    start_ms = (last_ms // config.stream.flush_ms + 2) * config.stream.flush_ms
    history = simulate(traffic_config(options, start_ms=start_ms)).history
    with Shards.of(config) as shards:
        shards.wait_for(write(log, config, warm, options.format).ends(), local)
        time.sleep(1.0)  # the closing heartbeats are done with
        labelers = [p.popen.pid for p in local.launcher.processes.values() if p.role == "labeler"]
        for pid in labelers:
            os.kill(pid, signal.SIGSTOP)
        written = write(log, config, history, options.format)
        before, meter, began = shards.rows(), Meter.start(pids(local)), time.monotonic()
        for pid in labelers:
            os.kill(pid, signal.SIGCONT)
        seconds = shards.wait_for(written.ends(), local) - began
        spent, others_s = meter.stop()
        rows = shards.rows() - before
    return report(local, options, written, rows, seconds, spent, others_s) | {
        "traffic": vars(traffic)
    }


def report(
    local: LocalRun,
    options: argparse.Namespace,
    written: Written,
    rows: int,
    seconds: float,
    spent: dict[str, float],
    others_s: float,
) -> dict[str, Any]:
    by_role: Counter[str] = Counter()
    for name, cpu_s in spent.items():
        by_role[name.rpartition("-")[0] or name] += cpu_s
    broker_s = by_role.pop("broker", 0.0)
    roles_s = sum(by_role.values())
    cores = machine()["cores"]
    million = rows / 1e6
    return {
        "bench": "pipeline",
        "examples_per_s": round(rows / seconds),
        "seconds": round(seconds, 2),
        "examples": rows,
        "impressions": written.impressions,
        "clicks": written.clicks,
        "cpu_s_per_million_examples": {
            **{role: round(cpu_s / million, 1) for role, cpu_s in sorted(by_role.items())},
            "all_roles": round(roles_s / million, 1),
        },
        "broker_cpu_s_per_million_examples": round(broker_s / million, 1),
        "producer_cpu_s_per_million_examples": round(
            written.cpu_s / (written.impressions / 1e6), 1
        ),
        "examples_per_s_if_alone": round(cores * rows / (roles_s + broker_s)),
        "cores_used": round((roles_s + broker_s) / seconds, 2),
        "cores_used_by_others": round(others_s / seconds, 2),
        **learning(local),
        "broker": local.broker.kind,
        "format": options.format,
        "record_bytes": round(written.bytes / written.records),
        "impressions_per_record": round(written.impressions / written.impression_records, 1),
        "seed": options.seed,
        "config": settings(local.config),
        "machine": machine(),
    }


def learning(local: LocalRun) -> dict[str, Any]:
    """What was learned meanwhile: progressive losses, and how stale the pushes were."""
    follower = StatusFollower(local.config, local.log())
    while follower.read_evaluations(500):
        pass
    follower.close()
    buckets: Counter[str] = Counter()
    for name, found in scrape(local.dir).items():
        if name.startswith("learner"):
            buckets.update(found.by_label("everspun_learner_staleness_updates_bucket", "le"))
    return {
        "progressive_normalized_entropy": round(follower.quality.normalized_entropy, 4),
        "progressive_calibration": round(follower.quality.calibration, 4),
        "staleness_p50": quantile(dict(buckets), 0.5),
        "staleness_p99": quantile(dict(buckets), 0.99),
    }


def settings(config: Config) -> dict[str, Any]:
    """What a figure depends on."""
    run, stream, model = config.run, config.stream, config.model
    return {
        "labelers": run.labelers,
        "fraud": run.fraud,
        "shards": run.shards,
        "learners": run.learners,
        "replicas": run.replicas,
        "partitions": stream.partitions,
        "batch_rows_max": stream.batch_rows_max,
        "flush_ms": stream.flush_ms,
        "signal_ms": stream.signal_ms,
        "window_ms": stream.window_ms,
        "grace_ms": stream.grace_ms,
        "model": model.kind,
        "categorical": list(model.categorical),
        "staleness": config.paramserver.staleness,
        "checkpoint_interval_ms": config.checkpointer.interval_ms,
    }


def pids(local: LocalRun) -> dict[str, int]:
    found = {name: process.popen.pid for name, process in local.launcher.processes.items()}
    return found if local.broker.pid is None else found | {"broker": local.broker.pid}


def traffic_config(options: argparse.Namespace, **changed: Any) -> TrafficConfig:
    given = {
        "impressions": options.impressions,
        "users": options.users,
        "items": options.items,
        "vendors": options.vendors,
        "click_rate": options.click_rate,
        "days": options.days,
        "views_max": options.views_max,
        "seed": options.seed,
        "attacks": "impressions" not in changed,
    }
    return TrafficConfig(**{**given, **changed})


def arguments() -> argparse.ArgumentParser:
    parser = own_arguments(__doc__)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="json",
        help="page views as JSON, or batches as Arrow IPC",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=None,
        help="folder of the run, emptied first; kept (default: a temporary one)",
    )
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"write a picture (default {PLOT})"
    )
    parser.add_argument("--seed", type=int, default=1)
    shop = TrafficConfig()
    for name, default, help in (
        ("impressions", 400_000, "impressions of the measured log"),
        ("users", 50_000, "people"),
        ("items", 20_000, "items"),
        ("vendors", 500, "vendors"),
        ("views-max", 20, "most impressions of one page view"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=help)
    parser.add_argument(
        "--click-rate", type=float, default=shop.click_rate, help="mean click probability"
    )
    parser.add_argument(
        "--days", type=float, default=1.0, help="event time of the measured log, days"
    )
    parser.add_argument(
        "--batch-rows", type=int, default=4_096, help="most impressions of one training batch"
    )
    return parser


def main() -> int:
    options = arguments().parse_args()
    folder = options.dir or Path(tempfile.mkdtemp(prefix="everspun-bench-"))
    text = files("bench.end_to_end").joinpath("pipeline.toml").read_text()
    overrides = (f"stream.batch_rows_max={options.batch_rows}", *options.set)
    local = LocalRun.begin(folder.absolute(), text, options.broker, overrides)
    try:
        local.start()
        found = measure(local, options)
    finally:
        local.stop()
        if options.dir is None:
            shutil.rmtree(folder, ignore_errors=True)
    if options.plot is not None:
        cpu_by_role(found, options.plot)
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
