"""What a checkpoint a second costs training: examples a second with cuts to without, how long a cut
stops starts, the bytes that replicas read, and whether deltas add up to the table.

    python -m bench.checkpoint [--json] [--plot] [--rows 999986] [--touched 0.01] [--pairs 7]
    [--serving-bits 32]

A broker, a learner, a shard and a checkpointer as processes. A factorization machine of 26
features, rows of 16 float32 with Adagrad, batches of 1,024, as fast as they go. First every row is
touched once; then examples are drawn so that `--touched` of the rows is touched between two cuts.
Turns with a cut each second and turns without are taken in pairs: the checkpointer stands still in
the latter, from the moment at which a checkpoint was published. Takes about three minutes and 3 GB.

Keys. `training_slowdown`: 1 - examples/s with cuts to without, median of the pairs, `slowdowns` all
of them. `cut_hold_ms_p50`, `_p99`: how long cuts stopped starts. `cuts_per_s`: in turns with cuts.
`delta_bytes_ratio`: bytes of serving deltas to 8 (key) and 64 (weights) for each row touched.
`rounding_log_loss`: what rounding the weights of those files adds to the log loss of the examples
that are learned, a share of it; `rounding_answers`: by how much it moves an answer's log odds, rms.
`composed_equals_table`: whether base and deltas of the last checkpoint, put together, are the
shard's weights bit for bit. Exit code 1 if a target is missed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from bench.learning.training import start_site
from bench.learning.training_data import FEATURES, NAMES, VALUES, Drawn, Records, value_of
from bench.learning.training_site import Site, TwoRoles
from bench.measuring.machine import machine
from bench.measuring.plotting import pairs
from checkpointer.serving import ServedModel, load, served_at
from checkpointer.store import Catalogue, Manifest, open_store
from checkpointer.tables import ModelTables
from paramserver.parts import Snapshot, serving_part, whole
from paramserver.server import read_part

BATCH, WIDTH, BATCHES = 1_024, 16, 64
#: More than is learned, examples a second: so many are always ahead.
AHEAD_PER_S = 100_000
#: A pair of turns takes so much longer than both: it waits for checkpoints, and to settle.
SPARE_S = 6.0
LOOK_S, STUCK_S, SETTLED_S = 0.005, 60.0, 0.5
AT_MOST = {"training_slowdown": 0.10, "cut_hold_ms_p99": 50.0, "rounding_log_loss": 0.001}
#: `delta_bytes_ratio`, by bits of a weight.
BYTES_AT_MOST = {32: 1.1, 16: 0.65, 8: 0.4}
PLOT = Path("docs/checkpoint.png")
_HELD = re.compile(r"\(cut \d+, held (\d+)\)")


class ThreeRoles(TwoRoles):
    """And who takes the cuts."""

    def counts(self) -> dict[str, int]:
        return {**super().counts(), "checkpointer": 1}


class Cuts:
    """The checkpointer of a site: what it has published, and when it stands still."""

    def __init__(self, site: Site) -> None:
        config = site.local.config
        self._site = site
        self._catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        self.published: dict[str, Manifest] = {}
        self.log = site.local.dir / "logs" / "checkpointer-0.log"

    def look(self) -> bool:
        """Whether another one is published than before."""
        found = self._catalogue.published()
        if found is None or found.name in self.published:
            return False
        self.published[found.name] = self._catalogue.manifest(found.name)
        return True

    def next(self) -> Manifest:
        """The next one that is published."""
        end = time.monotonic() + STUCK_S
        while not self.look():
            self._site.local.launcher.raise_if_failed()
            if time.monotonic() > end:
                raise RuntimeError(f"nothing was published for {STUCK_S:.0f} s; see {self.log}")
            time.sleep(LOOK_S)
        return list(self.published.values())[-1]

    def at(self, vector: dict[str, int]) -> Manifest:
        """The one that holds all that is learned, once that stands still."""
        end = time.monotonic() + STUCK_S
        while not self.published or (last := list(self.published.values())[-1]).vector != vector:
            self._site.local.launcher.raise_if_failed()
            if time.monotonic() > end:
                raise RuntimeError(
                    f"{vector} was not published for {STUCK_S:.0f} s; see {self.log}"
                )
            self.look()
            time.sleep(LOOK_S)
        return last

    def send(self, signal_number: int) -> None:
        os.kill(self._site.local.launcher.processes["checkpointer-0"].popen.pid, signal_number)

    def url(self, manifest: Manifest, shard: int) -> str:
        return self._catalogue.part_url(manifest, shard)

    def load(self, manifest: Manifest) -> ServedModel:
        """As a replica does."""
        return load(self._catalogue, manifest.name)

    def chain(self, manifest: Manifest) -> tuple[Manifest, ...]:
        return self._catalogue.chain(manifest)


def files_of(manifest: Manifest) -> list[Any]:
    return [file for part in manifest.parts for file in part.serving]


def drawn_all(rows: int) -> Drawn:
    """Batches that touch each of the rows once (and some of them twice)."""
    values = rows // FEATURES
    batches = -(-values // BATCH)
    number = np.arange(batches * BATCH) % values
    ids = number[:, None] + np.arange(FEATURES) * VALUES
    return labelled(ids.reshape(batches, BATCH, FEATURES), 1)


def drawn_some(rows: int, touched: float) -> Drawn:
    """Batches that touch so large a share of the rows between them."""
    values = rows // FEATURES
    few = max(1, round(touched * values))
    rng = np.random.default_rng(2)
    ids = rng.choice(values, few, replace=False)[rng.integers(0, few, (BATCHES, BATCH, FEATURES))]
    return labelled(ids + np.arange(FEATURES) * VALUES, 3)


def labelled(ids: Any, seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    return Drawn(ids, (rng.random(ids.shape[:2]) < 0.2).astype(np.int64))


def begun(options: argparse.Namespace, folder: Path, first: Drawn) -> Site:
    model = {
        "name": "bench", "kind": "fm", "categorical": list(NAMES), "dim": WIDTH - 1,
        "table_optimizer": "adagrad", "table_options": {"rate": 0.05}, "prior_rate": 0.2,
    }  # fmt: skip
    options.set = [
        "checkpointer.interval_ms=1000", "checkpointer.entropy_max=0",
        "checkpointer.evaluation_wait_ms=0", "checkpointer.keep_hours=0",
        "checkpointer.keep_days=0", f"paramserver.serving_bits={options.serving_bits}",
        *options.set,
    ]  # fmt: skip
    return start_site(options, folder, model, first, ThreeRoles)


def turn(site: Site, cuts: Cuts, seconds: float) -> tuple[float, int]:
    """(examples a second, checkpoints published)."""
    before, count, began = site.rows(), len(cuts.published), time.monotonic()
    while time.monotonic() < began + seconds:
        cuts.look()
        time.sleep(4 * LOOK_S)
    return (site.rows() - before) / (time.monotonic() - began), len(cuts.published) - count


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    first = drawn_all(options.rows)
    site = begun(options, folder, first)
    cuts = Cuts(site)
    try:
        site.records.append(len(first.ids) - site.records.written)
        site.learn(first.labels.size)
        some = Records(drawn_some(options.rows, options.touched), site.local.log().writer(),
                       site.local.config.stream.examples, options.seed)  # fmt: skip
        some.written, site.records = site.records.written, some
        ahead = round((2 * options.seconds + SPARE_S) * AHEAD_PER_S / BATCH)
        cuts.next()
        found: list[tuple[float, float]] = []
        rates: list[float] = []
        for number in range(options.pairs + 1):
            site.top_up(ahead)
            cuts.next()
            with_cuts, count = turn(site, cuts, options.seconds)
            cuts.next()
            cuts.send(signal.SIGSTOP)
            time.sleep(SETTLED_S)
            without, _ = turn(site, cuts, options.seconds)
            cuts.send(signal.SIGCONT)
            if site.rows() >= site.records.written * BATCH:
                raise RuntimeError(f"nothing was left to learn: {without:,.0f} examples/s")
            if number:  # the first pair warms up
                found.append((with_cuts, without))
                rates.append(count / options.seconds)
        return report(site, cuts, found, rates, options)
    finally:
        cuts.send(signal.SIGCONT)
        site.stop()


def report(
    site: Site,
    cuts: Cuts,
    found: list[tuple[float, float]],
    rates: list[float],
    options: argparse.Namespace,
) -> dict[str, Any]:
    site.learn(site.records.written * BATCH)
    progress = site.shard.progress(site.model.name).progress
    assert progress is not None
    last = cuts.at({chain: one.end for chain, one in progress.chains.items()})
    held = [int(ms) for ms in _HELD.findall(cuts.log.read_text())]
    deltas = [file for m in cuts.published.values() for file in files_of(m) if file.parent]
    slowdowns = [1 - with_cuts / without for with_cuts, without in found]
    composed = composed_of(cuts, last)
    if options.plot is not None:
        pairs(found, options.plot)
    return {
        "training_slowdown": round(median(slowdowns), 3),
        "slowdowns": [round(one, 3) for one in slowdowns],
        "examples_per_s": round(median(with_cuts for with_cuts, _ in found)),
        "examples_per_s_without": round(median(without for _, without in found)),
        "cuts_per_s": round(median(rates), 2),
        "cut_hold_ms_p50": float(np.quantile(held, 0.5)),
        "cut_hold_ms_p99": float(np.quantile(held, 0.99)),
        "cuts": len(held),
        "delta_rows": round(median(file.rows for file in deltas)),
        "delta_bytes_ratio": round(
            sum(file.bytes for file in deltas) / sum((8 + 4 * WIDTH) * f.rows for f in deltas), 3
        ),
        **rounding(cuts, last, composed, drawn_some(options.rows, options.touched)),
        "composed_equals_table": equals_table(site, composed),
    }


def composed_of(cuts: Cuts, last: Manifest) -> Snapshot:
    return whole(
        [
            (manifest.sha256, [read_part(cuts.url(manifest, p.shard)) for p in manifest.parts])
            for manifest in cuts.chain(last)
        ]
    )


def rounding(cuts: Cuts, last: Manifest, composed: Snapshot, drawn: Drawn) -> dict[str, float]:
    """What answers lose by the bits of served weights, against those of the shard."""
    served = cuts.load(last)
    tables = ModelTables(last.spec, {})
    tables.apply([serving_part(composed)])
    exact = served_at(last, tables.publish(), None, served)
    ids, labels = drawn.ids[: BATCHES // 4].reshape(-1, FEATURES), drawn.labels[: BATCHES // 4]
    columns = pa.table({f"f_{name}": value_of(ids[:, f]) for f, name in enumerate(NAMES)})
    y, odds, loss = labels.reshape(-1), [], []
    for one in (exact, served):
        p = one.predict(columns).astype(np.float64)
        odds.append(np.log(p / (1 - p)))
        loss.append(-np.mean(np.where(y, np.log(p), np.log1p(-p))))
    return {
        "log_loss": round(float(loss[0]), 5),
        "rounding_log_loss": round(float(loss[1] / loss[0] - 1), 7),
        "rounding_answers": round(float(np.sqrt(np.mean((odds[1] - odds[0]) ** 2))), 6),
    }


def equals_table(site: Site, composed: Snapshot) -> bool:
    (rows,) = composed.tables.values()
    weights = np.ascontiguousarray(rows.rows[:, :WIDTH]).view(np.uint32)
    return bool((weights == site.pull(rows.keys).view(np.uint32)).all())


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"write a picture (default {PLOT})"
    )
    parser.add_argument("--broker", default=os.environ.get("EVERSPUN_KAFKA", "auto"))
    parser.add_argument("--rows", type=int, default=FEATURES * VALUES, help="at most the default")
    parser.add_argument("--touched", type=float, default=0.01, help="share between two cuts")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serving-bits", type=int, default=32, choices=sorted(BYTES_AT_MOST))
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    return parser


def main() -> int:
    options = arguments().parse_args()
    if not FEATURES <= options.rows <= FEATURES * VALUES:
        raise SystemExit(f"--rows {options.rows}: allowed is {FEATURES} to {FEATURES * VALUES}")
    folder = Path(tempfile.mkdtemp(prefix="everspun-bench-"))
    try:
        found = measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    most_of = AT_MOST | {"delta_bytes_ratio": BYTES_AT_MOST[options.serving_bits]}
    missed = [name for name, most in most_of.items() if found[name] > most]
    missed += ["composed_equals_table"] * (not found["composed_equals_table"])
    found = {"bench": "checkpoint", **found, "rows": options.rows, "touched": options.touched,
             "serving_bits": options.serving_bits, "missed": missed,
             "machine": machine()}  # fmt: skip
    print(json.dumps(found, indent=None if options.json else 2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
