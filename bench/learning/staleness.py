"""Models can train too fast: what more learners and a looser bound cost in log loss, and what they
gain in speed.

    python -m bench.staleness [--json] [--plot docs/staleness.png] [--think-ms 50]

Learners 1, 2, 4, 8 x staleness bound s 0, 1, 4, 16, unbounded x four compensations, each setting at
the best of RATES, over 200,000 simulated impressions in batches of 512: logistic regression with
element-wise Adagrad. The reference is one learner in sequence, at its own best rate. Settings run
on virtual time (`bench.learning.virtual_training`): the product's own clocks, pacing, shard and
gradient, where a batch takes `--think-ms` give or take a fifth on a core of the learner's own, a
pull or push 3 ms, a control call 1 ms. Takes about 2 CPU minutes and 1 GB. With `--live`, and
nothing else, 4 learners, 2 shards and a broker as processes show how stale pushes are while an
operator gives orders; a batch sleeps the think time instead. Takes about two minutes and 3 GB.

Keys. `recommended`: the fastest setting with at least 4 learners, logloss_ratio_to_sequential <=
1.001 and speedup_to_sequential >= 2.5. `bad`: a setting faster still that loses more than 0.5%.
`staleness`: mean, median, 99th percentile and largest number of updates between read and write.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.learning.virtual_training import Setting, VirtualTraining, Work, draw_work
from bench.measuring.machine import machine
from learners import ModelConfig
from learners.models import Model, make_model
from paramserver import WAYS, Compensation

EXAMPLES, BATCH_ROWS, SEED = 200_000, 512, 1
LEARNERS = (1, 2, 4, 8)
BOUNDS = (0, 1, 4, 16, -1)
RATES = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4)
STRENGTH = 0.01
LOSS_RATIO_MAX, SPEEDUP_MIN, LEARNERS_MIN, BAD_RATIO = 1.001, 2.5, 4, 1.005


@dataclass(frozen=True)
class Found:
    """One setting at its best rate."""

    setting: Setting
    rate: float
    log_loss: float
    seconds: float  # virtual
    staleness: dict[str, float]
    losses: dict[float, float]  # by rate

    def report(self, sequential: "Found") -> dict[str, Any]:
        return {
            "learners": self.setting.learners,
            "staleness_bound": self.setting.staleness,
            "compensation": self.setting.compensation.way,
            "rate": self.rate,
            "log_loss": round(self.log_loss, 6),
            "logloss_ratio_to_sequential": round(self.log_loss / sequential.log_loss, 5),
            "examples_per_virtual_s": round(EXAMPLES / self.seconds),
            "speedup_to_sequential": round(sequential.seconds / self.seconds, 3),
            "staleness": self.staleness,
        }


def a_model(way: str, rate: float) -> Model:
    """AdaptiveRevision is Adagrad where nothing is applied meanwhile, so all four have one
    optimizer at s = 0."""
    optimizer = way if way == "adaptive_revision" else "adagrad"
    return make_model(
        ModelConfig(
            kind="lr",
            categorical=("source", "item", "vendor"),
            bias=True,
            table_optimizer=optimizer,
            table_options={"rate": rate, "accumulator": 0.1},
        )
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    found = np.array(values, float)
    middle, tail = np.percentile(found, [50, 99])
    return {
        "mean": round(float(found.mean()), 2),
        "p50": float(middle),
        "p99": float(tail),
        "max": float(found.max()),
    }


def try_setting(works: Sequence[Work], setting: Setting, think_ms: float) -> Found:
    runs = {}
    for rate in RATES:
        runs[rate] = VirtualTraining(
            a_model(setting.compensation.way, rate), works, setting, think_ms
        ).run()
    losses = {rate: run.log_loss for rate, run in runs.items()}
    best = min(losses, key=lambda rate: losses[rate])
    run = runs[best]
    return Found(
        setting,
        best,
        losses[best],
        run.now_ms / 1_000,
        spread([t.staleness for t in run.trained]),
        losses,
    )


def settings() -> Iterator[Setting]:
    for way in WAYS:
        for learners in LEARNERS:
            for bound in BOUNDS:
                yield Setting(learners, bound, compensation=Compensation(way, STRENGTH))


def choose(found: Sequence[Found], sequential: Found) -> tuple[Found | None, Found | None]:
    """(recommended, bad); None where no setting is one."""
    good = [
        f
        for f in found
        if f.setting.learners >= LEARNERS_MIN
        and f.log_loss <= LOSS_RATIO_MAX * sequential.log_loss
        and sequential.seconds >= SPEEDUP_MIN * f.seconds
    ]
    recommended = min(good, key=lambda f: (f.seconds, f.log_loss), default=None)
    faster = [
        f
        for f in found
        if f.log_loss > BAD_RATIO * sequential.log_loss
        and (not recommended or f.seconds < recommended.seconds)
    ]
    plain = [f for f in faster if f.setting.compensation.way == "none"] or faster
    return recommended, min(plain, key=lambda f: (f.seconds, -f.log_loss), default=None)


def measure(think_ms: float) -> dict[str, Any]:
    began = time.process_time()
    works = draw_work(a_model("none", RATES[0]), EXAMPLES, BATCH_ROWS, SEED)
    found = [try_setting(works, setting, think_ms) for setting in settings()]
    sequential = found[0]
    recommended, bad = choose(found, sequential)
    swept_cpu_s = time.process_time() - began
    body: dict[str, Any] = {
        "bench": "staleness",
        "examples": EXAMPLES,
        "batches": len(works),
        "batch_rows": BATCH_ROWS,
        "think_ms": think_ms,
        "rates": RATES,
        "dc_asgd_lambda": STRENGTH,
        "virtual_time": "settings run on virtual time; --think-ms a batch stands in for a core of "
        "its own",
        "sequential": sequential.report(sequential),
        "recommended": recommended and recommended.report(sequential),
        "bad": bad and bad.report(sequential),
        "bad_at_recommended_rate": None,
        "settings": [f.report(sequential) for f in found],
        "cpu_s": round(swept_cpu_s, 1),
        "machine": machine(),
    }
    if recommended and bad:
        ratio = bad.losses[recommended.rate] / sequential.log_loss
        body["bad_at_recommended_rate"] = {
            "logloss_ratio_to_sequential": round(ratio, 5),
            "rate": recommended.rate,
        }
    return body


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--plot",
        type=Path,
        nargs="?",
        const=Path("docs/staleness.png"),
        help="write the picture here",
    )
    parser.add_argument(
        "--think-ms", type=float, default=50.0, help="what a batch takes on a core of its own, ms"
    )
    parser.add_argument(
        "--live", action="store_true", help="real processes, and an operator's orders"
    )
    parser.add_argument(
        "--broker",
        default=os.environ.get("EVERSPUN_KAFKA", "auto"),
        help="--live: auto | kafka | embedded | host:port",
    )
    arguments = parser.parse_args()
    if arguments.live:
        from bench.learning import staleness_live

        body = staleness_live.measure(arguments.think_ms, arguments.broker)
        print(json.dumps(body, indent=None if arguments.json else 2))
        return
    body = measure(arguments.think_ms)
    if arguments.plot:
        from bench.measuring import plotting

        plotting.staleness(body, arguments.plot)
    print(json.dumps(body, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
