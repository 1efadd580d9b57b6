"""Two real logs, each with every feature that it has: our normalized entropy beside that of plain
learners with the same features and the same label delay.

    python -m bench.real_logs [--json] [--logs ebnerd,movielens] [--few | --row-by-row]

EB-NeRD (`examples/ebnerd`, real click times) and MovieLens 100k (the demo's log and model; its
click times are drawn) are replayed through the real labeler in one process. Its labels are
compared, row by row, with a join written here (`labels_wrong`). Then everybody learns the same
batches in the same order, each predicting before it learns (progressive), and answers the
impressions of each period with what it had learned of the labels decided before it (as served: a
period is a replay barrier of the log's configuration). We are the real encoder, gradient and
tables, in sequence. Beside us stand FTRL row by row (numba), logistic regression and, where our
model is one, a factorization machine (torch, a step a batch), and Vowpal Wabbit (where installed).
Their features are made by other code (`tests/reference/reference_features.py`). Both sides have
their best setting of a few by hindsight, for each loss: alpha, rate and, of ours, the rows of a
batch; row by row is best before learning, and worse as served. `ne_excess` is our progressive
normalized entropy over the best of theirs, less 1, by log; `served_excess` the same as served. With
`--few` ours stays as configured and each of theirs has one setting: that measures less, in a fifth
of the time. With `--row-by-row` ours has batches of one row too: each row is then learned before
the next one is said, as FTRL does it, and what is left of the difference is not the batches'. Takes
5 to 10 CPU minutes and 2 GB; row by row 5 more.
"""

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.baselines.plain_learners import Ftrl, Rows, Step, Torch, run, vowpal_wabbit
from bench.measuring.machine import machine
from everspun import Config
from everspun import config as config_file
from everspun.replay import History, Replayer, history
from labeler import LabelerConfig
from labeler.labels import Labelling
from learners.models import Floats, make_model
from learners.training import gradient
from paramserver.tables import Table
from stream import Partition, position
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import MemoryLog, topic_specs

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "reference"))
import reference_features  # noqa: E402

CACHE = Path("~/.cache/everspun").expanduser()
#: Log -> (its configuration, what is replayed).
LOGS = {
    "ebnerd": (ROOT / "examples" / "ebnerd.toml", str(ROOT / "examples" / "ebnerd")),
    "movielens": (ROOT / "everspun" / "demo.toml", "movielens"),
}
#: Nothing else answers or judges, and no step is waited for.
ALONE = ("replay.predict=false", "replay.attacks=false", "run.fraud=0")
ALPHAS, RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4), (0.1, 0.2)
#: Beside the settings of the configuration, for us: rows of a batch and alpha.
OURS = tuple((rows, alpha) for rows in (0, 4) for alpha in (0.1, 0.2, 0.4))
ROW_BY_ROW = (*OURS, (1, 0.4))
VW_OPTIONS = ("", "-l 0.1", *(f"--ftrl --ftrl_alpha {a} --ftrl_beta 1" for a in (0.02, 0.05, 0.2)))


@dataclass(frozen=True)
class Labelled:
    """A log as `examples` has it: all rows, and which of them each batch holds, in the order in
    which labels were decided."""

    config: Config
    rows: pa.RecordBatch
    ends: list[int]  # batch b holds the rows [ends[b], ends[b + 1])
    decided_ms: list[int]  # of each batch, when its labels were
    ids: list[str]  # of each row's impression

    @property
    def label(self) -> npt.NDArray[np.float64]:
        return self.rows.column("label").to_numpy().astype(np.float64)


def label(config: Config, recorded: History) -> Labelled:
    """Replay and label in this process, by the real code."""
    stream, log = config.stream, MemoryLog(now=lambda: 0)
    for spec in topic_specs(stream):
        log.create(spec.name, spec.partitions)
    at_once = replace(config, replay=replace(config.replay, barrier_ms=0))
    Replayer(at_once, recorded, log, ROOT, b"0" * 32).run(threading.Event())
    labelling = Labelling(stream, LabelerConfig(await_verdicts=False), log)
    labelling.own(range(stream.partitions))
    while labelling.run_once(0, 0):
        pass
    labelling.close()
    partitions = range(stream.partitions)
    records = [r for p in partitions for r in log.records(Partition(stream.examples, p))]
    read = [(BatchHeader.from_headers(r.headers), r.value) for r in records if r.value]
    read.sort(key=lambda one: (one[0].arrival_max_ms, one[0].chain))
    batches = [decode_examples(value) for _, value in read]
    named = {p: _ids(log.records(Partition(stream.impressions, p))) for p in partitions}
    ids = [
        named[int(header.chain.rpartition("/")[2])][at]
        for (header, _), batch in zip(read, batches, strict=True)
        for at in batch.column("position").to_pylist()
    ]
    rows = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    ends = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
    decided = [header.arrival_max_ms + stream.wait_ms for header, _ in read]
    return Labelled(config, rows, ends, decided, ids)


def _ids(records: Iterable[Any]) -> dict[int, str]:
    """Position -> id of the impression that stands there."""
    return {
        position(record.offset, row): shown["id"]
        for record in records
        if record.value
        for row, shown in enumerate(json.loads(record.value)["impressions"])
    }


def labels_wrong(log: Labelled, recorded: History, window_ms: int) -> int:
    """Rows whose label is not what a join says that knows nothing of ours, impressions that have no
    row or two, and rows of none: an impression is clicked that has a click within the window."""
    shown = dict(zip(recorded.ids, recorded.ts_ms.tolist(), strict=True))
    clicked = set()
    for i, ts_ms in zip(
        recorded.click_impression.tolist(), recorded.click_ts_ms.tolist(), strict=True
    ):
        if 0 <= ts_ms - shown[recorded.ids[i]] <= window_ms:
            clicked.add(recorded.ids[i])
    found = dict(zip(log.ids, log.label.tolist(), strict=True))
    wrong = sum(said != (id in clicked) for id, said in found.items())
    return wrong + len(log.ids) - len(found) + len(found.keys() ^ shown.keys())


def schedule(log: Labelled, cut_ms: int) -> list[Step]:
    """Periods of `cut_ms`: the rows that arrive in one are answered by what was decided before it,
    then what is decided within it is learned, batch by batch."""
    arrival = log.rows.column("arrival_ms").to_numpy()
    order = np.argsort(arrival, kind="stable")
    steps, at = [], 0
    last = max(int(arrival.max()), log.decided_ms[-1]) // cut_ms
    for period in range(int(arrival.min()) // cut_ms, last + 1):
        first, end = np.searchsorted(arrival[order], [period * cut_ms, (period + 1) * cut_ms])
        if end > first:
            steps.append(Step(False, order[first:end]))
        while at < len(log.decided_ms) and log.decided_ms[at] < (period + 1) * cut_ms:
            steps.append(Step(True, np.arange(log.ends[at], log.ends[at + 1])))
            at += 1
    return steps


class Ours:
    """The real encoder, gradient and tables, a step a batch."""

    def __init__(self, log: Labelled) -> None:
        self._rows = log.rows
        self._model = make_model(log.config.model)
        self._tables = {spec.name: Table(spec) for spec in self._model.spec.tables}
        self._dense, self._step = self._model.initial_dense(), 0
        assert not self._model.spec.dense.shapes, "kinds with tables alone: lr, fm"

    def learn(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        piece = self._rows.slice(int(rows[0]), len(rows))
        prepared = gradient.prepare(self._model, piece)
        computed = gradient.compute(self._model, prepared, self._pull(prepared), self._dense)
        assert not computed.reason, computed.reason
        self._step += 1
        for name, keys in prepared.keys.items():
            self._tables[name].reserve(keys)
            pushed = computed.gradients[name]
            self._tables[name].apply(keys, pushed, self._step, computed.event_time_max_ms)
        return computed.prediction.astype(np.float64)

    def predict(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        prepared = gradient.prepare(self._model, self._rows.take(pa.array(rows)))
        said = self._model.kind.predict(
            prepared.places, self._pull(prepared), self._dense, prepared.encoded
        )
        return np.asarray(said, np.float64)

    def _pull(self, prepared: gradient.Prepared) -> dict[str, Floats]:
        return {name: self._tables[name].pull(keys) for name, keys in prepared.keys.items()}


def entropies(
    steps: list[Step], said: Iterable[npt.NDArray[np.float64]], label: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Normalized entropy (He et al. 2014) of what was said before learning, and as served."""
    losses = {True: 0.0, False: 0.0}
    for step, p in zip(steps, said, strict=True):
        p, y = np.clip(p, 1e-7, 1 - 1e-7), label[step.rows]
        losses[step.learn] -= float((y * np.log(p) + (1 - y) * np.log(1 - p)).sum())
    rate = label.mean()
    base = -len(label) * (rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    return {
        "progressive": round(losses[True] / base, 5),
        "as_served": round(losses[False] / base, 5),
    }


def plain(
    log: Labelled, steps: list[Step], few: bool = False
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every plain learner, by name with its setting; `few`: each with one."""
    one = slice(-1, None) if few else slice(None)
    model, names = log.config.model, log.rows.schema.names
    wanted = reference_features.columns(model.declared, (*model.categorical, *model.numeric))
    table = log.rows.select([name for name in wanted if name in names]).to_pylist()
    readings = reference_features.read(table, model.declared, model.categorical, model.numeric)
    rows, prior = Rows.of(readings, log.label), model.prior_rate
    for alpha in ALPHAS[one]:
        yield f"ftrl alpha={alpha}", lambda a=alpha: run(Ftrl(rows, prior, a), steps)
    for rate in RATES[one]:
        yield f"torch lr rate={rate}", lambda r=rate: run(Torch(rows, prior, r), steps)
        if model.kind == "fm":
            torch_fm = lambda r=rate: run(Torch(rows, prior, r, model.dim), steps)  # noqa: E731
            yield f"torch fm rate={rate}", torch_fm
    for options in VW_OPTIONS[one]:
        yield f"vw {options}".strip(), lambda o=options: vowpal_wabbit(rows, steps, o)


def ours(
    name: str, recorded: History, more: tuple[tuple[int, float], ...]
) -> Iterator[tuple[str, Labelled]]:
    """The log labelled with each of our settings, by name; that of the configuration first."""
    text, labelled = LOGS[name][0].read_text(), {}
    stated = config_file.loads(text, ALONE)
    settings = [(0, float(stated.model.table_options["alpha"])), *more]
    for rows, alpha in dict.fromkeys(settings):
        batch = (f"stream.batch_rows_max={rows}",) if rows else ()
        config = config_file.loads(text, (*ALONE, *batch))
        if rows not in labelled:
            labelled[rows] = label(config, recorded)
        model = replace(config.model, table_options={"alpha": alpha})
        log = replace(labelled[rows], config=replace(config, model=model))
        yield f"batches of {config.stream.batch_rows_max}, alpha={alpha}", log


def measure(
    name: str, few: bool = False, more: tuple[tuple[int, float], ...] = OURS
) -> dict[str, Any]:
    """Everybody on one log. `few`: one setting each. `more`: our settings beside that of the
    configuration."""
    recorded = history.load(LOGS[name][1], CACHE)
    mine, theirs, wrong = {}, {}, 0
    as_configured: Labelled | None = None
    for who, log in ours(name, recorded, () if few else more):
        as_configured = as_configured or log
        wrong += labels_wrong(log, recorded, log.config.stream.window_ms)
        steps = schedule(log, log.config.replay.barrier_ms)
        mine[who] = entropies(steps, run(Ours(log), steps), log.label)
    assert as_configured is not None
    log, steps = as_configured, schedule(as_configured, as_configured.config.replay.barrier_ms)
    for who, made in plain(log, steps, few):
        try:
            theirs[who] = entropies(steps, made(), log.label)
        except ImportError as error:
            print(f"{who} is left out: {error}", file=sys.stderr)
    return {
        "rows": len(log.ids),
        "clicks": int(log.label.sum()),
        "labels_wrong": wrong,
        "model": log.config.model.kind,
        "features": [*log.config.model.categorical, *log.config.model.numeric],
        "as_configured": mine[next(iter(mine))],
        **{loss: _best(mine, theirs, loss) for loss in ("progressive", "as_served")},
        "ours": mine,
        "plain": theirs,
    }


def _best(
    mine: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]], loss: str
) -> dict[str, Any]:
    """Each side's best by this loss, and by how much ours is above theirs."""
    we, they = (min(side, key=lambda who: side[who][loss]) for side in (mine, theirs))
    excess = mine[we][loss] / theirs[they][loss] - 1
    return {
        "ours": {"name": we, "ne": mine[we][loss]},
        "plain": {"name": they, "ne": theirs[they][loss]},
        "excess": round(excess, 5),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--logs", default=",".join(LOGS), help="of " + ", ".join(LOGS))
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--few", action="store_true", help="one setting each")
    how.add_argument("--row-by-row", action="store_true", help="ours with batches of one row too")
    options = parser.parse_args()
    names = options.logs.split(",")
    if unknown := sorted(set(names) - set(LOGS)):
        parser.error(f"--logs {unknown}: allowed are {', '.join(LOGS)}")
    more = ROW_BY_ROW if options.row_by_row else OURS
    logs = {name: measure(name, options.few, more) for name in names}
    wrong = sum(found["labels_wrong"] for found in logs.values())
    found = {
        "bench": "real_logs",
        "ne_excess": {name: found["progressive"]["excess"] for name, found in logs.items()},
        "served_excess": {name: found["as_served"]["excess"] for name, found in logs.items()},
        "labels_exact": not wrong,
        "logs": logs,
        "machine": machine(),
    }
    print(json.dumps(found, indent=None if options.json else 2))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
