"""The governor: does it leave a setting that trains too fast, stay in one that is good, and come back when it may?

    python -m bench.governor [--json] [--think-ms 50]

Three runs of 400,000 simulated impressions on virtual time (`bench.virtual_training`), logistic regression with 8
learners at the rate of the sequence. Every 40 batches a copy of the state is taken, and the next 24 batches as they
were applied are also trained in sequence on it (`learners.shadow`); the governor judges the two losses. `bad` begins
with s = 16 and plain Adagrad, `good` with s = 0 and AdaptiveRevision, `back` is `good` slowed down to one batch at a
time while data age grows. The same settings without a governor, and one learner in sequence, stand beside them. Takes
about 10 CPU seconds and 1 GB.

Keys. `log_loss_last_third`: progressive, per example, over the last third of the data; `decisions`: every one, with
the batch after which it was made. Ratios are to one learner in sequence.
"""

import argparse
import json
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.machine import machine
from bench.staleness import a_model
from bench.virtual_training import Setting, Trained, VirtualTraining, Work, draw_work
from learners.model import Model
from learners.shadow import Shadow, touched_only
from paramserver.bounds import Rung
from paramserver.compensation import Compensation
from paramserver.governor import Governor, estimate, ladder
from paramserver.state import Snapshot

EXAMPLES, BATCH_ROWS, SEED, RATE, LEARNERS = 400_000, 512, 1, 0.3, 8
EVERY, WINDOW = 40, 24  # batches between two copies; batches compared after each
BAND = 0.005


@dataclass
class Governed:
    """Takes copies, pairs losses, and does what the governor says. `speed_wanted` stands in for a growing data age."""

    model: Model
    governor: Governor
    speed_wanted: bool
    decisions: list[dict[str, Any]] = field(default_factory=list)
    copy: Snapshot | None = None
    window: list[Trained] = field(default_factory=list)

    def take(self, world: VirtualTraining, trained: Trained) -> None:
        if self.copy is not None:
            self.window.append(trained)
        if len(self.window) == WINDOW:
            self.judge(world)
        if len(world.trained) % EVERY == 0:
            self.copy, self.window = world.shard.snapshot(self.model.name), []

    def judge(self, world: VirtualTraining) -> None:
        assert self.copy is not None
        keys = {
            name: np.unique(np.concatenate([t.work.prepared.keys[name] for t in self.window]))
            for name in self.copy.tables
        }
        shadow = Shadow(self.model, [touched_only(self.copy, keys)])
        sequence = [shadow.train(t.work.batch, t.work.prepared) for t in self.window]
        found = estimate([t.log_loss for t in self.window], sequence)
        self.copy, self.window = None, []
        decision = self.governor.decide(found, self.speed_wanted)
        if decision.action != "hold":
            put(world, decision.rung)
        said = {"after_batches": len(world.trained), "action": decision.action, "reason": decision.reason}
        bound = {"staleness_bound": decision.rung.staleness, "concurrency": decision.rung.concurrency}
        self.decisions.append(said | bound | {"excess": round(found.excess, 5), "error": round(found.error, 5)})


def put(world: VirtualTraining, rung: Rung) -> None:
    world.clocks.set_staleness(world.model.name, rung.staleness)
    world.clocks.set_concurrency(world.model.name, rung.concurrency)


def last_third(run: VirtualTraining) -> float:
    """Log loss per example over the last third of the data, by its own time: the same rows in every run."""
    wanted = {(w.batch.partition, w.batch.start) for w in run.works[2 * len(run.works) // 3 :]}
    part = [t for t in run.trained if (t.work.batch.partition, t.work.batch.start) in wanted]
    return sum(t.log_loss for t in part) / sum(t.work.batch.rows for t in part)


def figures(run: VirtualTraining, sequential: VirtualTraining) -> dict[str, float]:
    staleness = [t.staleness for t in run.trained[2 * len(run.trained) // 3 :]]
    return {
        "logloss_ratio_to_sequential": round(run.log_loss / sequential.log_loss, 5),
        "last_third_ratio_to_sequential": round(last_third(run) / last_third(sequential), 5),
        "log_loss_last_third": round(last_third(run), 6),
        "speedup_to_sequential": round(sequential.now_ms / run.now_ms, 3),
        "staleness_mean_last_third": round(float(np.mean(staleness)), 2),
    }


def scenario(
    works: list[Work], way: str, bound: int, think_ms: float, sequential: VirtualTraining, slowed: bool = False
) -> dict[str, Any]:
    model, setting = a_model(way, RATE), Setting(LEARNERS, bound, compensation=Compensation(way))
    governor = Governor(ladder(bound, LEARNERS), BAND)
    governed = Governed(model, governor, speed_wanted=slowed)
    run = VirtualTraining(model, works, setting, think_ms, on_trained=governed.take)
    if slowed:
        governor.at = len(governor.rungs) - 1
        put(run, governor.rungs[-1])
    run.run()
    alone = VirtualTraining(model, works, setting, think_ms).run()
    actions = [d["action"] for d in governed.decisions]
    return {
        "begins": {"staleness_bound": bound, "compensation": way, "concurrency": 1 if slowed else 0},
        "ends": governor.rungs[governor.at]._asdict(),
        "slower": actions.count("slower"),
        "faster": actions.count("faster"),
        "estimates": len(actions),
        "governed": figures(run, sequential),
        "not_governed": figures(alone, sequential),
        "decisions": governed.decisions,
    }


def measure(think_ms: float) -> dict[str, Any]:
    began = time.process_time()
    works = draw_work(a_model("none", RATE), EXAMPLES, BATCH_ROWS, SEED)
    sequential = VirtualTraining(a_model("none", RATE), works, Setting(1, 0), think_ms).run()
    return {
        "bench": "governor",
        "examples": EXAMPLES,
        "batches": len(works),
        "learners": LEARNERS,
        "rate": RATE,
        "band": BAND,
        "think_ms": think_ms,
        "share_of_batches_in_shadow": round(WINDOW / EVERY, 3),
        "bad": scenario(works, "none", 16, think_ms, sequential),
        "good": scenario(works, "adaptive_revision", 0, think_ms, sequential),
        "back": scenario(works, "adaptive_revision", 0, think_ms, sequential, slowed=True),
        "cpu_s": round(time.process_time() - began, 1),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--think-ms", type=float, default=50.0, help="what a batch takes on a core of its own, ms")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.think_ms), indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
