"""The governor: does it leave a setting that trains too fast, stay in one that is good, and come
back when it may?

    python -m bench.governor [--json] [--think-ms 50]

Three runs of 400,000 simulated impressions on virtual time (`bench.learning.virtual_training`),
logistic regression with 8 learners at the rate of the sequence. The product's governor runs beside
them (`bench.learning.virtual_governor`): a cut every 20 batches, of which it compares the next 24
with the same ones trained in sequence (`learners.governor.shadow`), in time and order as its
process would, with a share of batches that is large since the runs are short. `bad` begins with s =
16 and plain Adagrad, `good` with s = 0 and AdaptiveRevision, `back` is `good` begun at one batch at
a time while data age grows. The same settings without a governor, and one learner in sequence,
stand beside them. Takes about 15 CPU seconds and 1 GB.

Keys. `log_loss_last_third`: progressive, per example, over the last third of the data; `decisions`:
every one, with the batch after which it was made. Ratios are to one learner in sequence.
"""

import argparse
import json
import os
import time
from typing import Any

import numpy as np

from bench.learning.staleness import a_model
from bench.learning.virtual_governor import VirtualGovernor
from bench.learning.virtual_training import Setting, VirtualTraining, Work, draw_work
from bench.measuring.machine import machine
from learners import GovernorConfig
from paramserver import Compensation

EXAMPLES, BATCH_ROWS, SEED, RATE, LEARNERS = 400_000, 512, 1, 0.3, 8
EVERY, WINDOW = 20, 24  # batches between two cuts; batches compared after one
BAND = 0.005


def last_third(run: VirtualTraining) -> float:
    """Log loss per example over the last third of the data, by its own time: the same rows in
    every run."""
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
    works: list[Work],
    way: str,
    bound: int,
    think_ms: float,
    sequential: VirtualTraining,
    slowed: bool = False,
) -> dict[str, Any]:
    model, setting = a_model(way, RATE), Setting(LEARNERS, bound, compensation=Compensation(way))
    config = GovernorConfig(
        enabled=True,
        band=BAND,
        window_batches=WINDOW,
        share_max=1.0,
        begin="slowest" if slowed else "loosest",
    )
    governor = VirtualGovernor(config, EVERY, backlog=slowed)
    run = VirtualTraining(model, works, setting, think_ms, on_trained=governor.take).run()
    alone = VirtualTraining(model, works, setting, think_ms).run()
    actions = [d["action"] for d in governor.decisions]
    assert governor.service is not None
    core = governor.service.core
    assert core.governor is not None
    return {
        "begins": {
            "staleness_bound": bound,
            "compensation": way,
            "concurrency": 1 if slowed else 0,
        },
        "ends": core.governor.level._asdict(),
        "slower": actions.count("slower"),
        "faster": actions.count("faster"),
        "estimates": len(actions),
        "comparisons": {
            name.removeprefix("window "): n
            for name, n in core.counts.items()
            if name[:6] == "window"
        },
        "shadow_share": round(core.rows_spent / core.rows_live, 3),
        "governed": figures(run, sequential),
        "not_governed": figures(alone, sequential),
        "decisions": governor.decisions,
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
        "batches_between_cuts": EVERY,
        "batches_compared": WINDOW,
        "bad": scenario(works, "none", 16, think_ms, sequential),
        "good": scenario(works, "adaptive_revision", 0, think_ms, sequential),
        "back": scenario(works, "adaptive_revision", 0, think_ms, sequential, slowed=True),
        "cpu_s": round(time.process_time() - began, 1),
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--think-ms", type=float, default=50.0, help="what a batch takes on a core of its own, ms"
    )
    parser.add_argument(
        "--live", action="store_true", help="real processes, with 4 learners: about five minutes"
    )
    parser.add_argument("--live-examples", type=int, default=400_000, help="of each run of --live")
    parser.add_argument(
        "--live-bound", type=int, default=16, help="the bad staleness bound of --live"
    )
    parser.add_argument(
        "--broker",
        default=os.environ.get("EVERSPUN_KAFKA", "auto"),
        help="--live: auto | kafka | embedded | host:port",
    )
    options = parser.parse_args()
    if options.live:
        from bench.learning import governor_live

        body = governor_live.measure(
            options.live_examples, options.think_ms, options.live_bound, options.broker
        )
    else:
        body = measure(options.think_ms)
    print(json.dumps(body, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
