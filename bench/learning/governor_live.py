"""`bench.governor --live`: the governor over real processes, a broker and a store, where
training is too fast."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning.virtual_training import PARTITIONS, Setting, VirtualTraining, Work, draw_work
from bench.measuring.machine import Meter, machine
from everspun import LocalRun
from everspun.audit import of_shards
from everspun.launcher import Launcher, log_tail, ordered_scale
from learners import ModelConfig
from learners.models import Model, make_model
from stream import Partition
from stream.internal_topics import BatchHeader, encode_examples
from stream.log import wall_clock_ms

#: Plain SGD at a rate that suits the sequence: nothing mends a setting that is too fast, as a
#: falling rate would.
BATCH_ROWS, SEED, RATE, LEARNERS = 512, 1, 0.003, 4
STUCK_S = 120.0


class Roles(Launcher):
    """What training and governing need: nothing is labelled or served here."""

    def counts(self) -> dict[str, int]:
        governed = {"governor": int(self.governed)}
        return (
            {"shard": self.run.shards, "checkpointer": 1, "learner": LEARNERS}
            | governed
            | ordered_scale(self.dir)
        )


def model_values(think_ms: float) -> dict[str, Any]:
    return {
        "name": "bench",
        "kind": "bench.learning.thinking:Thinking",
        "categorical": ["source", "item", "vendor"],
        "dim": 1,
        "init_scale": 0.0,
        "module_options": {"think_ms": think_ms},
        "table_optimizer": "sgd",
        "table_options": {"rate": RATE},
        "dense_optimizer": "sgd",
        "dense_options": {"rate": RATE},
    }


@dataclass
class Run:
    """What one run of processes did."""

    losses: dict[tuple[str, int], float]  # (chain, start) -> summed log loss
    staleness: list[int]  # by push, in the order of the log
    seconds: float
    decisions: list[str]
    cpu_s: dict[str, float]


@contextmanager
def site(
    works: list[Work],
    think_ms: float,
    bound: int,
    broker: str,
    governed: bool = False,
    shards: int = 1,
) -> Iterator[LocalRun]:
    """A broker with all batches, and the processes that learn them."""
    folder = Path(tempfile.mkdtemp(prefix="everspun-bench-"))
    text = files("bench.learning").joinpath("governor.toml").read_text()
    overrides = [f"model.{key}={toml(value)}" for key, value in model_values(think_ms).items()]
    overrides += [f"paramserver.staleness={bound}", f"governor.enabled={str(governed).lower()}"]
    local = LocalRun.begin(folder / "run", text, broker, (*overrides, f"run.shards={shards}"))
    local.launcher = Roles(local.config_path, local.config.run, local.launcher.overrides, governed)
    try:
        write(local, works)
        local.start()
        yield local
    finally:
        local.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run_processes(
    works: list[Work], think_ms: float, bound: int, governed: bool, broker: str
) -> Run:
    with site(works, think_ms, bound, broker, governed) as local:
        pids = {name: process.popen.pid for name, process in local.launcher.processes.items()}
        meter, began = Meter.start(pids), time.monotonic()
        learn(local, sum(work.batch.rows for work in works))
        seconds = time.monotonic() - began
        cpu_s, _ = meter.stop()
        losses, staleness = evaluations(local, len(works))
        log = local.dir / "logs" / "governor-0.log"
        return Run(losses, staleness, seconds, decisions(log) if governed else [], cpu_s)


def write(local: LocalRun, works: list[Work]) -> None:
    """Every batch as a labeler would, all before training begins: learners are as busy as they
    can be."""
    writer = local.log().writer()
    with closing(writer):
        for work in works:
            batch = work.batch
            # Learners take the oldest batch first, whatever partition it stands in.
            header = BatchHeader(
                batch.chain,
                batch.start,
                batch.end,
                "s",
                "bench",
                labelled=batch.rows,
                arrival_max_ms=batch.time_ms,
            )
            at = Partition(local.config.stream.examples, batch.partition)
            value = encode_examples(work.prepared.rows)
            writer.append(at, value, None, header.to_headers(), wall_clock_ms())
        writer.flush(60_000)


def learn(local: LocalRun, rows: int) -> None:
    """Wait until all is learned. Raises RuntimeError where nothing moves."""
    moved, before = time.monotonic(), -1
    while before < rows:
        standing, _ = of_shards(local.config)
        now = sum(chain.rows for chain in standing[0].progress.chains.values()) if standing else 0
        if now != before:
            moved, before = time.monotonic(), now
        local.launcher.raise_if_failed()
        if time.monotonic() - moved > STUCK_S:
            tail = log_tail(local.dir / "logs" / "learner-0.log")
            raise RuntimeError(
                f"nothing was learned for {STUCK_S:.0f} s after {before} rows:\n{tail}"
            )
        time.sleep(0.1)


def evaluations(local: LocalRun, batches: int) -> tuple[dict[tuple[str, int], float], list[int]]:
    reader, at = local.log().reader(), Partition(local.config.stream.evaluations, 0)
    losses: dict[tuple[str, int], float] = {}
    staleness: list[int] = []
    with closing(reader):
        reader.assign([at])
        reader.seek(at, 0)
        deadline = time.monotonic() + 30
        while len(losses) < batches and time.monotonic() < deadline:
            for record in reader.poll(1_000, 200).get(at, []):
                said = json.loads(record.value or b"{}")
                losses.setdefault((said["chain"], said["start"]), said["log_loss_sum"])
                staleness += said["staleness"]
    return losses, staleness


def decisions(log: Path) -> list[str]:
    """What the governor's log says it decided."""
    found = []
    for line in log.read_text().splitlines():  # time, process, level, words
        _, mark, said = line.partition(" governor-0 ")
        level, _, words = said.partition(" ")
        if (
            mark
            and level in ("INFO", "WARNING")
            and words.split(":")[0] in ("hold", "slower", "faster")
        ):
            found.append(f"{line[11:19]} {words}")
    return found


def figures(run: Run, works: list[Work], sequential: VirtualTraining) -> dict[str, Any]:
    """Losses to those of one learner in sequence, over the same batches: all, and the last third
    by their own time."""
    reference = {(t.work.batch.chain, t.work.batch.start): t.log_loss for t in sequential.trained}
    ratios: dict[str, Any] = {}
    tenths = np.array_split(np.arange(len(run.losses)), 10)
    keys = list(run.losses)  # in the order in which they were learned
    ratios["ratio_to_sequential_by_tenth"] = [
        round(sum(run.losses[keys[i]] for i in part) / sum(reference[keys[i]] for i in part), 4)
        for part in tenths
    ]
    for name, part in (("logloss", works), ("last_third", works[2 * len(works) // 3 :])):
        scored = [key for w in part if (key := (w.batch.chain, w.batch.start)) in run.losses]
        ratios[f"{name}_ratio_to_sequential"] = round(
            sum(run.losses[k] for k in scored) / sum(reference[k] for k in scored), 5
        )
    tail = run.staleness[2 * len(run.staleness) // 3 :]
    return ratios | {
        "batches_scored": len(run.losses),
        "staleness_mean": round(float(np.mean(run.staleness)), 2),
        "staleness_mean_last_third": round(float(np.mean(tail)), 2),
        "seconds": round(run.seconds, 1),
        "governor_cpu_s": round(run.cpu_s.get("governor-0", 0.0), 2),
        "learners_cpu_s": round(
            sum(s for name, s in run.cpu_s.items() if name.startswith("learner")), 2
        ),
        "decisions": run.decisions,
    }


def measure(examples: int, think_ms: float, bound: int, broker: str) -> dict[str, Any]:
    model: Model = make_model(ModelConfig.from_dict(model_values(0.0)))
    works = draw_work(model, examples, BATCH_ROWS, SEED)
    sequential = VirtualTraining(model, works, Setting(1, 0)).run()
    body: dict[str, Any] = {
        "bench": "governor --live",
        "examples": examples,
        "batches": len(works),
        "partitions": PARTITIONS,
        "learners": LEARNERS,
        "rate": RATE,
        "staleness_bound": bound,
        "think_ms": think_ms,
    }
    for name, governed, s in (
        ("governed", True, bound),
        ("not_governed", False, bound),
        ("good_governed", True, 0),
    ):
        body[name] = figures(run_processes(works, think_ms, s, governed, broker), works, sequential)
    return body | {"machine": machine()}


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)
