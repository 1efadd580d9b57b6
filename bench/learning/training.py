"""Examples a second from Kafka through learner and shard to applied updates, beside plain torch on
the same cores.

    python -m bench.training [--json] [--kind dlrm|mlp] [--staleness 2] [--rounds 7] [--seconds 2]
    python -m bench.training --model lr [--json]

26 features x 16 floats, 999,986 rows, Zipf(1.05) values, hidden layers 64-32, batches of 4,096,
Adagrad on both sides (`--kind dlrm`: dot products of embeddings; `mlp`: embeddings side by side).
(a) plain torch, one process, from memory, 1 and 2 threads (`bench.baselines.torch_dlrm`); (b)
fbgemm's table-batched embedding on the CPU, where installed; (c) ours: records of `examples` in a
broker -> a learner process -> a shard process over gRPC. They take turns within each round; those
that wait stand still (SIGSTOP), so each has all cores for itself and all see the same load. Both
sides begin with the same values, and after four batches in step a sample of rows must agree.
`ratio_torch` is (c) over the better (a), median of rounds. `--model lr`: logistic regression by
FTRL on the same features, one weight each, beside Vowpal Wabbit reading its own file: 1,048,576
examples once, the loss over all of them on both sides. Takes about three minutes, 3 GB of memory
and 1.5 GB of disk.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bench.learning.training_data import (
    BATCHES_LR,
    FEATURES,
    NAMES,
    VALUES,
    Drawn,
    draw,
    keys_of,
    sample_ids,
    write_folder,
    write_text,
)
from bench.learning.training_site import RECORDS_A_SECOND, Site, Turn, TwoRoles
from bench.measuring.machine import machine
from learners import ModelConfig

#: Batches learned in step before anything is timed; a sample of rows is compared after them.
CHECKED = 4
ADAGRAD = {"rate": 0.05, "accumulator": 0.1, "epsilon": 1e-8}
#: Largest difference of a weight, ours to theirs, after the batches in step.
TOLERANCE = 2e-5
NOT_INSTALLED = 3


class Baseline:
    """A process that trains when it is its turn (`bench.baselines.turns`)."""

    def __init__(self, module: str, folder: Path, kind: str, threads: int):
        command = [sys.executable, "-m", f"bench.baselines.{module}", str(folder), "--kind", kind]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.facts: dict[str, Any] = (
            json.loads(line)
            if line
            else {"missing": f"it ended with exit code {self.process.wait()}"}
        )
        self.turns: list[dict[str, Any]] = []

    @property
    def there(self) -> bool:
        return "missing" not in self.facts

    def go(self, order: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        self.last: dict[str, Any] = json.loads(self.process.stdout.readline())
        return self.last

    def turn(self, seconds: float) -> None:
        self.turns.append(self.go(f"{seconds}"))

    def report(self) -> dict[str, Any]:
        speed = [t["examples"] / t["seconds"] for t in self.turns]
        cpu = [t["cpu_s"] / t["examples"] * 1e6 for t in self.turns]
        return (
            summary(speed)
            | {"cpu_s_per_million_examples": round(float(np.median(cpu)), 2)}
            | self.facts
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def summary(speed: list[float]) -> dict[str, Any]:
    low, median, high = np.percentile(speed, [25, 50, 75])
    return {"examples_per_s": round(median), "spread": round((high - low) / median, 3)}


def ours_report(turns: list[Turn]) -> dict[str, Any]:
    million = sum(turn.examples for turn in turns) / 1e6
    roles = sorted({name for turn in turns for name in turn.cpu_s})
    spent = {name: sum(turn.cpu_s.get(name, 0.0) for turn in turns) / million for name in roles}
    used = sum(turn.others_s for turn in turns) / sum(turn.seconds for turn in turns)
    by_role = {name.removesuffix("-0"): round(value, 2) for name, value in spent.items()}
    return summary([turn.examples / turn.seconds for turn in turns]) | {
        "cpu_s_per_million_examples": by_role | {"all": round(sum(spent.values()), 2)},
        "cores_used_by_others": round(used, 2),
    }


# --- networks beside torch
# --------------------------------------------------------------------------------------


def network_config(kind: str) -> dict[str, Any]:
    return {
        "name": "bench",
        "kind": kind,
        "categorical": list(NAMES),
        "dim": 16,
        "hidden": [64, 32],
        "reduction": "mean",
        "table_optimizer": "adagrad",
        "table_options": ADAGRAD,
        "dense_optimizer": "adagrad",
        "dense_options": ADAGRAD,
        "prior_rate": 0.2,
    }


def measure_network(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    drawn, values = draw(options.batch_rows, options.seed), network_config(options.kind)
    config = ModelConfig.from_dict(values)
    write_folder(folder, drawn, config)
    baselines = {
        f"{name}_{threads}": Baseline(module, folder, options.kind, threads)
        for name, module in (("torch", "torch_dlrm"), ("fbgemm", "fbgemm_dlrm"))
        for threads in (1, 2)
    }
    site = start_site(options, folder, values, drawn)
    try:
        site.learn(CHECKED * drawn.rows)
        mine = site.pull(keys_of(sample_ids(drawn), config))
        theirs = np.array(baselines["torch_1"].go(f"{CHECKED}n")["sample"], np.float32)
        turns = take_turns(options, site, baselines)
        torch_losses = baselines["torch_1"].last["losses"]
        batches = min(len(torch_losses), site.rows_learned // drawn.rows)
        losses = site.losses(batches)
    finally:
        site.stop()
        for baseline in baselines.values():
            baseline.stop()
    found = {name: b.report() for name, b in baselines.items() if b.there}
    best = {name: b["examples_per_s"] for name, b in found.items()}
    ours, torch_best = ours_report(turns), max(best["torch_1"], best["torch_2"])
    fbgemm = [best[name] for name in ("fbgemm_1", "fbgemm_2") if name in best]
    difference = float(np.abs(mine - theirs).max())
    return {
        "ratio_torch": round(ours["examples_per_s"] / torch_best, 3),
        "ratio_fbgemm": round(ours["examples_per_s"] / max(fbgemm), 3) if fbgemm else None,
        "fbgemm_missing": None if fbgemm else baselines["fbgemm_1"].facts["missing"],
        "examples_per_s": ours["examples_per_s"],
        "cpu_s_per_million_examples": ours["cpu_s_per_million_examples"],
        "ours": ours,
        **found,
        "log_loss": round(float(np.mean(losses)), 5),
        "log_loss_torch": round(float(np.mean(torch_losses[:batches])), 5),
        "batches_compared": batches,
        "rows_checked": len(mine),
        "largest_difference_in_step": difference,
        "updates_right": bool(difference <= TOLERANCE),
    }


def take_turns(
    options: argparse.Namespace, site: Site, baselines: dict[str, Baseline]
) -> list[Turn]:
    """Warm up, then let everybody go once a round. The first round counts for nobody."""
    site.clock.set_staleness("bench", options.staleness)
    ahead = round(options.seconds * RECORDS_A_SECOND * 4_096 / options.batch_rows)
    site.pause()
    turns = []
    for number in range(options.rounds + 1):
        for baseline in baselines.values():
            if baseline.there:
                baseline.turn(options.seconds)
        turns.append(site.turn(options.seconds, ahead))
        if number == 0:
            turns.clear()
            for baseline in baselines.values():
                baseline.turns.clear()
    site.resume()
    site.rows_learned = site.rows()
    return turns


def start_site(
    options: argparse.Namespace,
    folder: Path,
    model: dict[str, Any],
    drawn: Drawn,
    launcher: type[TwoRoles] = TwoRoles,
) -> Site:
    text = files("bench.learning").joinpath("training.toml").read_text()
    text += (
        "\n[model]\n" + "\n".join(f"{key} = {toml(value)}" for key, value in model.items()) + "\n"
    )
    overrides = (f"stream.categorical_features={json.dumps(NAMES)}", *options.set)
    site = Site.begin(
        folder / "run", text, options.broker, overrides, drawn, options.seed, launcher
    )
    try:
        site.records.append(CHECKED)
        site.start()
    except BaseException:
        site.stop()
        raise
    return site


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


# --- logistic regression beside Vowpal Wabbit
# -------------------------------------------------------------------


def measure_lr(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    ftrl = {"alpha": options.alpha, "beta": 1.0}
    values = {
        "name": "bench",
        "kind": "lr",
        "categorical": list(NAMES),
        "prior_rate": 0.5,
        "table_options": ftrl,
    }
    drawn = draw(options.batch_rows, options.seed, BATCHES_LR)
    write_text(folder / "examples.vw", drawn)
    site = start_site(options, folder, values, drawn)
    baseline: list[dict[str, Any]] = []
    try:
        site.learn(CHECKED * drawn.rows)
        sample = sample_ids(drawn)
        mine = site.pull(keys_of(sample, ModelConfig.from_dict(values)))[:, 0]
        difference = float(
            np.abs(mine - ftrl_weights(drawn, CHECKED, options.alpha, 1.0)[sample]).max()
        )
        site.clock.set_staleness("bench", options.staleness)
        ahead = round(options.seconds * RECORDS_A_SECOND * 4_096 / options.batch_rows)
        site.pause()
        turns = []
        for _ in range(options.rounds + 1):
            baseline.append(vowpal_wabbit(folder / "examples.vw", options.alpha))
            turns.append(site.turn(options.seconds, ahead))
        site.resume()
        site.learn(drawn.labels.size)
        losses = site.losses(len(drawn.labels))
    finally:
        site.stop()
    ours = ours_report(turns[1:])
    found: dict[str, Any] = {
        "log_loss": round(float(np.mean(losses)), 5),
        "batches_compared": len(losses),
    }
    if "missing" in baseline[0]:
        found |= {"ratio_vw": "vowpalwabbit is not installed"}
    else:
        speed = summary([one["examples"] / one["seconds"] for one in baseline[1:]])
        theirs = baseline[-1] | speed
        found |= {
            "ratio_vw": round(ours["examples_per_s"] / theirs["examples_per_s"], 3),
            "log_loss_ratio_vw": round(found["log_loss"] / theirs["log_loss"], 4),
            "vw": theirs
            | {"cpu_s_per_million_examples": round(theirs["cpu_s"] / theirs["examples"] * 1e6, 2)},
        }
    return found | {
        "examples_per_s": ours["examples_per_s"],
        "cpu_s_per_million_examples": ours["cpu_s_per_million_examples"],
        "ours": ours,
        "rows_checked": len(mine),
        "largest_difference_in_step": difference,
        "updates_right": difference <= TOLERANCE,
    }


def vowpal_wabbit(path: Path, alpha: float) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "bench.baselines.vowpal_wabbit",
        str(path),
        "--alpha",
        str(alpha),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NOT_INSTALLED:
        return {"missing": done.stderr}
    done.check_returncode()
    return cast(dict[str, Any], json.loads(done.stdout.splitlines()[-1]))


def ftrl_weights(drawn: Drawn, batches: int, alpha: float, beta: float) -> npt.NDArray[np.float64]:
    """Every id's weight after the first batches: McMahan et al. 2013, a batch's gradients
    summed, in float64."""
    z, n, w = (np.zeros(FEATURES * VALUES) for _ in range(3))
    for ids, labels in zip(drawn.ids[:batches], drawn.labels[:batches], strict=True):
        error = 1 / (1 + np.exp(-w[ids].sum(axis=1))) - labels
        g = np.bincount(ids.reshape(-1), np.repeat(error, FEATURES), len(w))
        z += g - (np.sqrt(n + g * g) - np.sqrt(n)) / alpha * w
        n += g * g
        w = -z / ((beta + np.sqrt(n)) / alpha)
    return w


# --- the command
# ------------------------------------------------------------------------------------------------


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--model", choices=("network", "lr"), default="network")
    parser.add_argument("--kind", choices=("dlrm", "mlp"), default="dlrm", help="of the network")
    parser.add_argument(
        "--staleness", type=int, default=2, help="batches the learner may run ahead of its pushes"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--batch-rows", type=int, default=4_096)
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="lr: FTRL's step size, on both sides"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--broker",
        default=os.environ.get("EVERSPUN_KAFKA", "auto"),
        help="auto | kafka | embedded | host:port",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key"
    )
    return parser


def main() -> int:
    options = arguments().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="everspun-bench-"))
    try:
        found = (measure_lr if options.model == "lr" else measure_network)(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    what = {
        name: getattr(options, name)
        for name in ("model", "kind", "staleness", "rounds", "seconds", "batch_rows")
    }
    found = {"bench": "training"} | found | what | {"seed": options.seed, "machine": machine()}
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
