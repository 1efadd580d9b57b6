"""Which label strategy to choose when: calibration and log loss by share of late clicks and drift.

    python -m bench.delayed_feedback [--json] [--plot] [--shares 0,0.1,0.3,0.4] [--drifts 0,0.5]
    [--seeds 0,1,2]

Simulated traffic of which every click is known goes through the labeling core, and its examples
through the learner's gradient core into a table, each batch at the time at which its label is
known: no process, no broker, no clock. Each impression is answered at its arrival, before anything
later is learned, and scored with the true label. The oracle learns the true label at the arrival;
the others wait or correct. A click is late when it comes after the window of one hour; all come
within four hours, which `eager` waits for. The first ten hours of 26 are not scored. What waiting
costs where things change, no correction can give back: so beside the oracle stands one that knows
every click too but learns it only when a strategy hears of it (`oracle_waiting`: after the window;
for `eager` that is `window_long`, which misses no click), and `loss_over_waiting` is what the
correction itself leaves. Exit code 1 if, at 30% late clicks, a corrected strategy leaves a
calibration of 0.98 to 1.02, or 0.5% of the log loss of the oracle (without drift) or of the one
that waits as long (with drift), or the uncorrected one is not visibly off. Takes about five minutes
of one core and 1 GB.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.labels.delayed_traffic import (
    GRACE_MS,
    HOUR_MS,
    LATE_WINDOW_MS,
    START_MS,
    WINDOW_MS,
    Traffic,
    draw,
    label,
    logs,
)
from bench.measuring.machine import machine
from bench.measuring.plotting import delayed_feedback
from labeler.join import label_strategies
from labeler.labels import Emission
from learners import ModelConfig
from learners.models import clip, make_model
from learners.models import delayed_feedback as delay
from learners.training import Prepared, gradient, log_losses
from paramserver.tables import Table
from stream import StreamConfig
from stream.internal_topics import decode_examples

COMMON = {
    "partitions": 1,
    "grace_ms": GRACE_MS,
    "heartbeat_ms": 60_000,
    "flush_ms": 300_000,
    "batch_rows_max": 500,
}
WINDOW = StreamConfig(window_ms=WINDOW_MS, **COMMON)  # type: ignore[arg-type]
EAGER = StreamConfig(window_ms=LATE_WINDOW_MS, label_strategy="eager", **COMMON)  # type: ignore[arg-type]
CORRECT = replace(WINDOW, label_strategy="window+correct", late_window_ms=LATE_WINDOW_MS)
COUNT = replace(CORRECT, late_clicks="count")
SHORT_MS = 600_000  # a window in which about two thirds of the clicks in time come
STRATEGIES = {
    "window": WINDOW,
    "window_long": replace(WINDOW, window_ms=LATE_WINDOW_MS),
    "eager_weights": EAGER,
    "eager_calibration": replace(EAGER, delay_correction="calibration"),
    "correct_weights": CORRECT,
    "correct_calibration": replace(CORRECT, delay_correction="calibration"),
    "count_weights": COUNT,
    "count_calibration": replace(COUNT, delay_correction="calibration"),
    "count_short": replace(COUNT, window_ms=SHORT_MS),
}
WAITING = "oracle_waiting"  # the true label of every impression, at the end of the window
AS_LONG = {
    name: "window_long" if name.startswith(("eager", "window_long")) else WAITING
    for name in STRATEGIES
}
CORRECTED = tuple(name for name in STRATEGIES if not name.startswith("window"))
MODEL = ModelConfig(
    categorical=("item",), prior_rate=0.25, table_optimizer="sgd", table_options={"rate": 0.02}
)
WARM_UP_MS = 10 * HOUR_MS
CALIBRATION, LOSS_MAX, OFF_MIN, JUDGED = (0.98, 1.02), 0.005, 0.05, 0.3
PLOT = Path("docs/delayed_feedback.png")


class Late(NamedTuple):
    """What decides a `late` chain here."""

    strategy: str
    window_ms: int
    clicks: str

    @classmethod
    def of(cls, stream: StreamConfig) -> "Late":
        return cls(stream.label_strategy, stream.window_ms, stream.late_clicks)


class Task(NamedTuple):
    """What happens at a time: impressions are answered, or a batch is learned."""

    at_ms: int
    order: int  # answers come before what is learned at the same time
    chunk: int
    late: bool = False


@dataclass
class Cell:
    """One stream of events, labelled by every reading there is."""

    traffic: Traffic
    chunks: list[Prepared] = field(default_factory=list)  # every impression, in order
    arrival_ms: list[int] = field(default_factory=list)
    first: dict[int, list[npt.NDArray[np.int8]]] = field(
        default_factory=dict
    )  # window -> labels by chunk
    late: dict[Late, list[tuple[Emission, Prepared | None]]] = field(default_factory=dict)
    truth: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))


def labelled(traffic: Traffic, model: Any) -> Cell:
    cell = Cell(traffic)
    views, cell.truth = draw(traffic)
    made = logs(views, WINDOW)
    eager = label_strategies(EAGER)
    for emission in label(EAGER, eager[0], *made):
        if emission.value:
            cell.chunks.append(gradient.prepare(model, decode_examples(emission.value)))
            cell.arrival_ms.append(emission.arrival_ms)
    for stream in (WINDOW, STRATEGIES["window_long"], STRATEGIES["count_short"]):
        emissions = [e for e in label(stream, label_strategies(stream)[0], *made) if e.value]
        cell.first[stream.window_ms] = [
            decode_examples(e.value).column("label").to_numpy().astype(np.int8) for e in emissions
        ]
    for stream in (EAGER, CORRECT, COUNT, STRATEGIES["count_short"]):
        cell.late[Late.of(stream)] = [
            (e, gradient.prepare(model, decode_examples(e.value)) if e.value else None)
            for e in label(stream, label_strategies(stream)[1], *made)
            if e.header.impressions or e.header.end > e.header.start
        ]
    rows = sum(c.rows.num_rows for c in cell.chunks)
    if rows != len(cell.truth) or any(
        len(labels) != len(cell.chunks) for labels in cell.first.values()
    ):
        raise RuntimeError(f"{rows} of {len(cell.truth)} impressions were labelled")
    return cell


def with_labels(chunk: Prepared, labels: npt.NDArray[Any]) -> Prepared:
    rows = chunk.rows
    at = rows.schema.get_field_index("label")
    return replace(
        chunk, rows=rows.set_column(at, rows.schema.field(at), pa.array(labels.astype(np.int8)))
    )


def run(cell: Cell, model: Any, stream: StreamConfig | None, wait_ms: int = 0) -> dict[str, float]:
    """Answers in order of time, and what they were worth; None is an oracle, which learns the
    truth after `wait_ms`."""
    table = Table(model.spec.tables[0])
    share, step = delay.LateShare(WINDOW.late_share_prior), 0
    corrects = delay.NONE if stream is None else delay.correction(stream, share)
    firsts = np.split(cell.truth, np.cumsum([c.rows.num_rows for c in cell.chunks])[:-1])
    answers: list[npt.NDArray[np.float32]] = []

    def learn(prepared: Prepared, at_ms: int) -> None:
        nonlocal step
        step += 1
        name = model.spec.tables[0].name
        keys = prepared.keys[name]
        computed = gradient.compute(model, prepared, {name: table.pull(keys)}, {}, corrects)
        table.reserve(computed.keys[name])
        table.apply(computed.keys[name], computed.gradients[name], step, at_ms)

    for task in sorted(tasks(cell, stream, wait_ms)):
        if task.order == 0:
            answers.append(answer(model, cell.chunks[task.chunk], table, corrects))
        elif task.late:
            assert stream is not None
            emission, prepared = cell.late[Late.of(stream)][task.chunk]
            share.take(0, emission.header.late_micro, emission.header.on_time_micro)
            corrects = delay.correction(stream, share)
            if prepared is not None:
                learn(prepared, task.at_ms)
        else:
            labels = firsts[task.chunk]
            if stream is not None and stream.label_strategy == "eager":
                labels = np.zeros(len(labels), np.bool_)
            elif stream is not None:
                labels = cell.first[stream.window_ms][task.chunk]
            learn(with_labels(cell.chunks[task.chunk], labels), task.at_ms)
    return scored(
        cell,
        np.concatenate(answers),
        share.share if stream is not None and stream.corrects else None,
    )


def tasks(cell: Cell, stream: StreamConfig | None, wait_ms: int = 0) -> list[Task]:
    first_ms = wait_ms if stream is None else label_strategies(stream)[0].wait_ms
    out = [Task(at, 0, n) for n, at in enumerate(cell.arrival_ms)]
    out += [Task(at + first_ms, 1, n) for n, at in enumerate(cell.arrival_ms)]
    if stream is not None and len(label_strategies(stream)) > 1:
        late_ms = label_strategies(stream)[1].wait_ms
        chain = cell.late[Late.of(stream)]
        out += [Task(e.arrival_ms + late_ms, 2, n, True) for n, (e, _) in enumerate(chain)]
    return out


def answer(
    model: Any, chunk: Prepared, table: Table, corrects: delay.Correction
) -> npt.NDArray[np.float32]:
    name = model.spec.tables[0].name
    said = model.kind.predict(chunk.places, {name: table.pull(chunk.keys[name])}, {}, chunk.encoded)
    return clip(corrects.answer(said))


def scored(cell: Cell, said: npt.NDArray[np.float32], share: float | None) -> dict[str, float]:
    ts_ms = np.concatenate([c.rows.column("ts_ms").to_numpy() for c in cell.chunks])
    warm = ts_ms >= START_MS + WARM_UP_MS
    truth, prediction = cell.truth[warm].astype(np.float64), said[warm].astype(np.float64)
    found = {
        "log_loss": float(log_losses(prediction, truth).mean()),
        "calibration": float(prediction.sum() / truth.sum()),
    }
    return found if share is None else found | {"late_share_estimated": share}


def rows_of(
    shares: list[float], drifts: list[float], seeds: list[int], impressions: int
) -> list[dict[str, Any]]:
    """One row for each strategy, share and drift: mean and worst over the seeds."""
    model = make_model(MODEL)
    out = []
    for drift in drifts:
        for late_share in shares:
            runs: dict[str, list[dict[str, float]]] = {
                name: [] for name in ("oracle", WAITING, *STRATEGIES)
            }
            clicks = []
            for seed in seeds:
                cell = labelled(Traffic(impressions, late_share, drift, seed), model)
                clicks.append(int(cell.truth.sum()))
                found = {
                    "oracle": run(cell, model, None),
                    WAITING: run(cell, model, None, label_strategies(WINDOW)[0].wait_ms),
                }
                found |= {name: run(cell, model, stream) for name, stream in STRATEGIES.items()}
                for name, one in found.items():
                    runs[name].append(one | against(found, name))
            out += [
                summary(name, late_share, drift, found, min(clicks)) for name, found in runs.items()
            ]
            print(f"drift {drift:g}, {late_share:.0%} late: done", file=sys.stderr)
    return out


def against(found: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    """Log loss over the oracle's, and over that of the oracle which waits as long."""
    loss = found[name]["log_loss"]
    waiting = found[AS_LONG.get(name, name)]["log_loss"]
    return {
        "loss_over_oracle": loss / found["oracle"]["log_loss"] - 1,
        "loss_over_waiting": loss / waiting - 1,
    }


def summary(
    name: str, share: float, drift: float, runs: list[dict[str, float]], clicks: int
) -> dict[str, Any]:
    calibration = [one["calibration"] for one in runs]
    over, waiting = ([one[f"loss_over_{which}"] for one in runs] for which in ("oracle", "waiting"))
    found = {
        "strategy": name,
        "late_share": share,
        "drift": drift,
        "clicks_min": clicks,
        "calibration_mean": round(float(np.mean(calibration)), 4),
        "calibration_worst": round(max(calibration, key=lambda c: abs(c - 1)), 4),
        "log_loss_mean": round(float(np.mean([one["log_loss"] for one in runs])), 5),
        "loss_over_oracle_mean": round(float(np.mean(over)), 5),
        "loss_over_oracle_worst": round(max(over), 5),
        "loss_over_waiting_mean": round(float(np.mean(waiting)), 5),
        "loss_over_waiting_worst": round(max(waiting), 5),
    }
    estimates = [one["late_share_estimated"] for one in runs if "late_share_estimated" in one]
    return found | (
        {"late_share_estimated": round(float(np.mean(estimates)), 4)} if estimates else {}
    )


def judge(rows: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be at the judged share."""
    wrong = []
    for row in (r for r in rows if r["late_share"] == JUDGED):
        where = f"{row['strategy']} at {JUDGED:.0%} late, drift {row['drift']:g}"
        if row["strategy"] in CORRECTED:
            if not CALIBRATION[0] <= row["calibration_worst"] <= CALIBRATION[1]:
                wrong.append(
                    f"{where}: calibration {row['calibration_worst']}, expected {CALIBRATION}"
                )
            whose = "waiting" if row["drift"] else "oracle"
            if row[f"loss_over_{whose}_worst"] > LOSS_MAX:
                wrong.append(
                    f"{where}: log loss {row[f'loss_over_{whose}_worst']:.2%} over the oracle's "
                    f"({whose})"
                )
        elif row["strategy"] == "window" and row["calibration_mean"] > 1 - OFF_MIN:
            wrong.append(
                f"{where}: calibration {row['calibration_mean']}, expected visibly below 1"
            )
    return wrong


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--plot", action="store_true", help=f"draw {PLOT}")
    parser.add_argument("--shares", default="0,0.1,0.3,0.4", help="shares of late clicks")
    parser.add_argument(
        "--drifts", default="0,0.5", help="amplitudes of the swing of an item's logit in 12 hours"
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--impressions", type=int, default=280_000, help="of one stream; about 27%% are clicked"
    )
    return parser


def main() -> int:
    asked = arguments().parse_args()
    shares, drifts = (
        [float(one) for one in text.split(",")] for text in (asked.shares, asked.drifts)
    )
    seeds = [int(one) for one in asked.seeds.split(",")]
    began = time.process_time()
    rows = rows_of(shares, drifts, seeds, asked.impressions)
    wrong = judge(rows)
    found = {
        "bench": "delayed_feedback",
        "seeds": seeds,
        "impressions": asked.impressions,
        "rows": rows,
        "wrong": wrong,
        "cpu_s": round(time.process_time() - began, 1),
        "machine": machine(),
    }
    if asked.plot:
        delayed_feedback(rows, PLOT)
    print(json.dumps(found, indent=None if asked.json else 2))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
