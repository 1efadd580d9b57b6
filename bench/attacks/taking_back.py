"""Taking back: what a verdict one day late leaves of an attack in the model, with and without a
retraction.

    python -m bench.taking_back [--json] [--plot] [--seeds 0,1,2] [--optimizers ftrl,adagrad]

Five sources click on one of twenty vendors for six hours. The verdict comes a day after the attack
ended; the rows that it covers go through the retraction's core, the learner's and a table: no
process, no broker, no clock. Beside it learn a model that never saw the attack, from the same
honest rows in the same batches, and one whose rows are not taken back. For comparison, what was
tried and is not done: the opposite gradient, and a negative in the place of each click. The
attacked vendor has as much honest traffic as others (40 events an hour), a tenth, a fortieth, or
ten times as much. `rate_error`: the vendor's mean predicted click rate on the honest impressions of
the last day over that of the model that never saw the attack, less 1; `loss_change`: the same for
the log loss of all other vendors' impressions; as soon as the record is learned (+0.0h) and a day
later. Exit code 1 if, a day after the verdict, `rate_error` of the model that took back is beyond
5%, or the rest of it is worse by 0.1% than if it had not. Takes about 30 s of one core and 0.4 GB.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.measuring.machine import machine
from bench.measuring.plotting import taking_back
from labeler.retraction import Gathered, Held, Late, held_columns, record_rows, values_of
from learners import ModelConfig
from learners.models import clip, make_model
from learners.training import gradient, log_losses
from learners.training import unlearning as relearning
from paramserver.tables import Table
from stream.columns import GrowingColumns
from stream.internal_topics import REJECT, Again, Verdict

HOUR_MS = 3_600_000
START_MS = 1_700_000_000_000
VENDOR, VENDORS, ITEMS, SOURCES, ATTACKERS = 3, 20, 5, 2_000, 5
ATTACK_H, VERDICT_H, END_H, PROBED_H = (24.0, 30.0), 54.0, 78.0, 102.0
LOOKS_H = (30.0, 53.5, 60.0, 66.0, 78.0)
PER_HOUR, ATTACK_PER_HOUR, BATCH = 800, 80, 128
ROWS_MAX, SHARE_MIN = 10_000, 0.002
#: Honest events of the attacked vendor over those of another.
SIZES = (1.0, 0.1, 0.025, 10.0)
TAKEN_BACK = "learned again"
RATE_MAX, LOSS_MAX = 0.05, 0.001
PLOT = Path("docs/taking_back.png")


class World(NamedTuple):
    """Rows in order of time; honest ones, and the attack's."""

    rows: pa.RecordBatch
    hour: npt.NDArray[np.float64]
    attack: npt.NDArray[np.bool_]


def draw(seed: int, size: float) -> World:
    rng = np.random.default_rng(seed)
    honest, bad = int(PER_HOUR * PROBED_H), int(ATTACK_PER_HOUR * (ATTACK_H[1] - ATTACK_H[0]))
    hour = np.concatenate([rng.uniform(0, PROBED_H, honest), rng.uniform(*ATTACK_H, bad)])
    of = np.ones(VENDORS)
    of[VENDOR] = size
    vendor = np.concatenate([rng.choice(VENDORS, honest, p=of / of.sum()), np.full(bad, VENDOR)])
    item = vendor * ITEMS + rng.integers(0, ITEMS, honest + bad)
    source = np.concatenate(
        [rng.integers(0, SOURCES, honest), SOURCES + rng.integers(0, ATTACKERS, bad)]
    )
    likes = [
        rng.normal(0, deviation, size)
        for deviation, size in ((0.4, VENDORS), (0.3, VENDORS * ITEMS))
    ]
    logit = -2.2 + likes[0][vendor] + likes[1][item]
    attack = np.arange(honest + bad) >= honest
    label = (rng.random(honest + bad) < 1 / (1 + np.exp(-logit))) | attack
    order = np.argsort(hour, kind="stable")
    ts_ms = START_MS + (hour[order] * HOUR_MS).astype(np.int64)
    columns = {
        "position": np.arange(len(order)),
        "ts_ms": ts_ms,
        "arrival_ms": ts_ms,
        "label": label[order].astype(np.int8),
        "click_delay_ms": np.full(len(order), -1),
        "weight": np.ones(len(order), np.float32),
        "source": pa.array([f"u{one}" for one in source[order]]),
        "vendor": pa.array([f"v{one}" for one in vendor[order]]),
        "item": pa.array([f"i{one}" for one in item[order]]),
        "shown_at": np.zeros(len(order), np.int32),
        "prediction": np.full(len(order), np.nan, np.float32),
        "model_version": pa.array([""] * len(order)),
    }
    return World(pa.record_batch(columns), hour[order], attack[order])


class Learner:
    """One model and its table."""

    def __init__(self, config: ModelConfig):
        self.model = make_model(config)
        self.spec = self.model.spec.tables[0]
        self.table, self.steps = Table(self.spec), 0

    def learn(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        self.steps += 1
        prepared = gradient.prepare(self.model, rows)
        pulled = {self.spec.name: self.table.pull(prepared.keys[self.spec.name])}
        computed = gradient.compute(self.model, prepared, pulled, {})
        if computed.reason:
            raise RuntimeError(computed.reason)
        keys = computed.keys[self.spec.name]
        self.table.reserve(keys)
        self.table.apply(
            keys, computed.gradients[self.spec.name], self.steps, computed.event_time_max_ms
        )

    def take_back(self, record: pa.RecordBatch, again: Again) -> None:
        """Rows that are learned again from a record take the place of what the table has."""
        self.steps += 1
        prepared = gradient.prepare(self.model, record)
        pulled = {self.spec.name: self.table.pull(prepared.keys[self.spec.name])}
        found = relearning.relearn(self.model, prepared, pulled, {}, again.encode())
        if found.reason:
            raise RuntimeError(found.reason)
        for name, keys in found.keys.items():
            self.table.rewrite(keys, found.gradients[name], self.steps, found.event_time_max_ms)

    def answers(self, rows: pa.RecordBatch) -> npt.NDArray[np.float32]:
        prepared = gradient.prepare(self.model, rows)
        pulled = {self.spec.name: self.table.pull(prepared.keys[self.spec.name])}
        return clip(self.model.kind.predict(prepared.places, pulled, {}, prepared.encoded))


def verdicts() -> list[Verdict]:
    """One for each attacker, over the attack."""
    from_ms, to_ms = (START_MS + int(hour * HOUR_MS) for hour in ATTACK_H)
    return [
        Verdict(
            f"late/{one}",
            "self_click",
            REJECT,
            f"u{SOURCES + one}",
            f"v{VENDOR}",
            from_ms,
            to_ms,
            "found late",
        )
        for one in range(ATTACKERS)
    ]


def retraction(trained: pa.RecordBatch) -> tuple[pa.RecordBatch, Again]:
    """The record that the labeler writes of what was trained."""
    held = [Held(said, offset, START_MS + int(1e12)) for offset, said in enumerate(verdicts())]
    late = Late(GrowingColumns(held_columns, held), 0, len(held))
    batches = range(0, trained.num_rows, BATCH)
    judged = {at: late.judge(trained.slice(at, BATCH), 0) for at in batches}
    back = trained.filter(pa.array(np.concatenate([by_run for by_run, _ in judged.values()])))
    gathered = Gathered(values_of(back), ROWS_MAX)
    for at in batches:
        by_run, clean = judged[at]
        gathered.add((at, 0, at), trained.slice(at, BATCH), by_run, clean)
    return record_rows(back, gathered, SHARE_MIN)


def opposite(trained: pa.RecordBatch, attack: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    back = trained.filter(pa.array(attack))
    at = back.schema.get_field_index("weight")
    return back.set_column(at, "weight", pa.array(-back.column("weight").to_numpy()))


def negative(trained: pa.RecordBatch, attack: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    back = trained.filter(pa.array(attack))
    at = back.schema.get_field_index("label")
    return back.set_column(at, "label", pa.array(np.zeros(back.num_rows, np.int8)))


def run(seed: int, size: float, config: ModelConfig) -> list[dict[str, Any]]:
    """One row for each look at each of the models that saw the attack."""
    world = draw(seed, size)
    never = Learner(config)
    saw = {name: Learner(config) for name in ("left", TAKEN_BACK, "opposite", "negative")}
    last = (world.hour > END_H) & ~world.attack
    own = world.rows.column("vendor").to_numpy(zero_copy_only=False) == f"v{VENDOR}"
    probes = [world.rows.filter(pa.array(last & own)), world.rows.filter(pa.array(last & ~own))]
    looks, out, told = list(LOOKS_H), [], False

    def look(hours: float) -> None:
        common = {
            "optimizer": config.table_optimizer,
            "seed": seed,
            "size": size,
            "hours_from_verdict": hours,
        }
        out.extend(
            common | {"model": name} | compare(one, never, probes) for name, one in saw.items()
        )

    for at in range(0, len(world.hour), BATCH):
        now = float(world.hour[at])
        if now >= VERDICT_H and not told:
            told, trained = True, world.rows.slice(0, at)
            saw[TAKEN_BACK].take_back(*retraction(trained))
            for name, way in (("opposite", opposite), ("negative", negative)):
                saw[name].learn(way(trained, world.attack[:at]))
            look(0.0)
        while looks and now >= looks[0]:
            look(looks.pop(0) - VERDICT_H)
        if not looks:
            break
        rows = world.rows.slice(at, BATCH)
        for learner in saw.values():
            learner.learn(rows)
        never.learn(rows.filter(pa.array(~world.attack[at : at + BATCH])))
    return out


def compare(one: Learner, never: Learner, probes: list[pa.RecordBatch]) -> dict[str, float]:
    rates = [float(model.answers(probes[0]).mean()) for model in (one, never)]
    label = probes[1].column("label").to_numpy().astype(np.float64)
    losses = [
        float(log_losses(model.answers(probes[1]).astype(np.float64), label).mean())
        for model in (one, never)
    ]
    return {
        "rate_error": rates[0] / rates[1] - 1,
        "loss_change": losses[0] / losses[1] - 1,
        "rate_never": rates[1],
    }


def judge(rows: list[dict[str, Any]]) -> list[str]:
    """What is beyond the figures a day after the verdict."""
    final = [row for row in rows if row["hours_from_verdict"] == LOOKS_H[-1] - VERDICT_H]
    left = {_case(row): row for row in final if row["model"] == "left"}
    wrong = []
    for row in (row for row in final if row["model"] == TAKEN_BACK):
        said = f"{row['optimizer']}, size {row['size']}, seed {row['seed']}"
        if abs(row["rate_error"]) > RATE_MAX:
            wrong.append(f"{said}: rate_error {row['rate_error']:.3f}")
        worse = (1 + row["loss_change"]) / (1 + left[_case(row)]["loss_change"]) - 1
        if worse > LOSS_MAX:
            wrong.append(f"{said}: the rest is worse by {worse:.5f}")
    return wrong


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["optimizer"], row["size"], row["seed"]


def worst(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By optimizer, size and model, then by hours from the verdict, the rate error furthest from
    0."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        of = found.setdefault(f"{row['optimizer']}, size {row['size']}", {}).setdefault(
            row["model"], {}
        )
        at = f"{row['hours_from_verdict']:+.1f}h"
        of[at] = round(max(of.get(at, 0.0), row["rate_error"], key=abs), 4)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.taking_back", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--plot", action="store_true", help=f"write {PLOT}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--optimizers", default="ftrl,adagrad", help="of the logistic regression")
    asked = parser.parse_args()
    began = time.process_time()
    rows = []
    for optimizer in asked.optimizers.split(","):
        config = ModelConfig(
            categorical=("source", "vendor", "item"), prior_rate=0.1, table_optimizer=optimizer
        )
        rows += [
            row
            for size in SIZES
            for seed in asked.seeds.split(",")
            for row in run(int(seed), size, config)
        ]
    wrong = judge(rows)
    taken = [row for row in rows if row["model"] == TAKEN_BACK and row["hours_from_verdict"] >= 0]
    found = {
        "bench": "taking_back",
        "rate_error_worst": worst(rows),
        "rate_error_worst_at_once": max(
            (r["rate_error"] for r in taken if not r["hours_from_verdict"]), key=abs
        ),
        "rate_error_worst_day_later": max(
            (r["rate_error"] for r in taken if r["hours_from_verdict"] == 24.0), key=abs
        ),
        "loss_change_worst": max(row["loss_change"] for row in taken),
        "rows": rows,
        "wrong": wrong,
        "cpu_s": round(time.process_time() - began, 1),
        "machine": machine(),
    }
    if asked.plot:
        taking_back(rows, PLOT)
    print(json.dumps(found, indent=None if asked.json else 2))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
