"""How long what was learned waits to be served, on one clock, with a checkpoint a second.

    python -m bench.freshness [--json] [--plot] [--rate 30000] [--seconds 40]

A broker, a labeler, a fraud filter, a learner, a shard, a checkpointer and a replica, as `everspun
role` starts them; a logistic regression of five features, two of them crosses, that grows by tens
of thousands of rows a second. A shop's events with 2% clicks are written as they happen. This one
process sees which state the shard has applied, which checkpoint the replica answers with, and what
stands in `examples`; its own monotonic clock is the only one for `learned_to_served`, and the
host's for deadlines, whose arrival is the broker's time. The first WARM_S seconds of events are not
measured. What intervals of publication are worth: `bench.freshness_value`. Takes about three
minutes and 3 GB.

Keys. `learned_to_served_p50_s`, `_p99_s`: from a state seen applied to a replica that answers with
a checkpoint at or above it. `deadline_to_served_p50_s`, `_p99_s`: from the deadline of an
impression (arrival, window and grace) to that. `checkpoints`: how many were served meanwhile;
`histogram_count`, `histogram_mean_s`: what `everspun_learned_to_served_seconds` says of the run.
Exit code 1 if a target is missed.
"""

import argparse
import contextlib
import json
import sys
import time
from collections import deque
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.end_to_end.pipeline import pids
from bench.labels.label_lag import BEGIN_IN_MS, Feed, prepared
from bench.measuring.machine import Meter, machine
from bench.measuring.own_run import from_the_beginning, own_arguments, own_run
from bench.measuring.plotting import waits
from checkpointer.process import LearnedToServed, highest, places_of, served_by
from checkpointer.store import Catalogue, open_store
from everspun import Config, LocalRun
from everspun.status import scrape
from paramserver.wire import connect
from stream import label_chain
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import Log, wall_clock_ms

WARM_S, LOOK_S, PLOTTED_MAX = 15, 0.01, 20_000
AT_MOST = {
    "learned_to_served_p50_s": 0.7,
    "learned_to_served_p99_s": 1.5,
    "deadline_to_served_p99_s": 3.0,
}
PLOT = Path("docs/freshness.png")

Floats = npt.NDArray[np.float64]


class Unserved:
    """Impressions of `examples` that no replica answers for yet, by chain."""

    def __init__(self, config: Config, log: Log) -> None:
        stream = config.stream
        self._reader = from_the_beginning(log, stream.examples, stream.partitions)
        self._waiting: dict[str, deque[tuple[int, npt.NDArray[np.int64]]]] = {
            label_chain(p): deque() for p in range(stream.partitions)
        }
        self.rows = 0

    def read(self) -> None:
        for records in self._reader.poll(500, 1).values():
            for record in records:
                header = BatchHeader.from_headers(record.headers)
                if header.chain not in self._waiting:
                    continue
                if record.value:
                    arrival_ms = decode_examples(record.value).column("arrival_ms").to_numpy()
                    self.rows += len(arrival_ms)
                    self._waiting[header.chain].append((header.end, arrival_ms))

    def served(self, vector: dict[str, int]) -> npt.NDArray[np.int64]:
        """Arrivals (n,) of those that this vector covers, ms."""
        found = [np.empty(0, np.int64)]
        for chain, waiting in self._waiting.items():
            while waiting and waiting[0][0] <= vector.get(chain, -1):
                found.append(waiting.popleft()[1])
        return np.concatenate(found)

    def close(self) -> None:
        self._reader.close()


class Watch:
    """All looks of one process, one after the other."""

    def __init__(self, local: LocalRun, unserved: Unserved) -> None:
        config = self._config = local.config
        self._unserved, self._known = unserved, -1
        self._shards, self._clock = connect(config.paramserver, config.run.dir, config.run.shards)
        (self._place,) = places_of(local.dir / "roles")
        self._replica = HTTPConnection(self._place, timeout=5)
        self._catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        self._waits = LearnedToServed()
        self.learned_s: list[tuple[float, float]] = []  # when served, how long it waited
        self.late_s: list[tuple[float, Floats]] = []  # when served, behind the deadline
        self.checkpoints = 0

    def look(self) -> None:
        number = served_by(self._place, self._replica)
        now_s, now_ms = time.monotonic(), wall_clock_ms()
        if number is not None and number != self._known:
            self._known, self.checkpoints = number, self.checkpoints + 1
            self._serves(number, now_s, now_ms)
        reply = self._shards[0].progress(self._config.model.name)
        if reply.progress is not None:
            ends = {chain: at.end for chain, at in reply.progress.chains.items()}
            self._waits.learned(highest([ends]), time.monotonic())
        self._unserved.read()

    def _serves(self, number: int, now_s: float, now_ms: int) -> None:
        name = next(n for n in self._catalogue.names() if int(n.split("-")[0]) == number)
        vector = self._catalogue.manifest(name).vector
        self._waits.published(number, vector)
        self.learned_s += [(now_s, wait) for wait in self._waits.served(number, now_s)]
        late_ms = now_ms - self._unserved.served(vector) - self._config.stream.wait_ms
        self.late_s.append((now_s, late_ms / 1_000))

    def close(self) -> None:
        for end in (self._replica, self._shards, self._clock):
            end.close()


def measure(local: LocalRun, options: argparse.Namespace) -> dict[str, Any]:
    config, log = local.config, local.log()
    seconds = WARM_S + options.seconds
    entries = prepared(config.stream, "json_page_views", options.rate, seconds)
    local.start()
    meter = Meter.start(pids(local))
    begin_ms = wall_clock_ms() + BEGIN_IN_MS
    feed = Feed(log, entries, begin_ms)
    began_s = time.monotonic() + BEGIN_IN_MS / 1_000
    with (
        contextlib.closing(Unserved(config, log)) as unserved,
        contextlib.closing(Watch(local, unserved)) as watch,
    ):
        while time.monotonic() < began_s + seconds:
            watch.look()
            time.sleep(LOOK_S)
        if feed.failure is not None:
            raise feed.failure
        local.launcher.raise_if_failed()
    spent, others_s = meter.stop()
    histogram = scrape(local.dir)["checkpointer-0"]
    count = histogram.value("everspun_learned_to_served_seconds_count")
    total = histogram.value("everspun_learned_to_served_seconds_sum")
    return {
        **figures(watch, began_s + WARM_S, options.plot),
        "histogram_count": int(count),
        "histogram_mean_s": round(total / count, 3) if count else None,
        "examples_per_s": round(unserved.rows / seconds),
        "feed_behind_s": round(feed.behind_s, 3),
        "cpu_s": {name: round(cpu_s, 1) for name, cpu_s in spent.items()},
        "cores_used_by_others": round(others_s / seconds, 2),
    }


def figures(watch: Watch, from_s: float, plot: Path | None) -> dict[str, Any]:
    learned = [wait for at_s, wait in watch.learned_s if at_s >= from_s]
    late = np.concatenate([[], *(late for at_s, late in watch.late_s if at_s >= from_s)])
    if not learned or not len(late):
        raise RuntimeError("nothing was served after the first seconds; see the logs of the run")
    if plot is not None:
        some = np.random.default_rng(0).choice(late, min(len(late), PLOTTED_MAX), replace=False)
        waits({"learned to served": learned, "deadline to served": some.tolist()}, plot)
    found: dict[str, Any] = {"checkpoints": sum(at_s >= from_s for at_s, _ in watch.late_s)}
    for name, values in (("learned_to_served", learned), ("deadline_to_served", late)):
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            found[f"{name}_{label}_s"] = round(float(np.quantile(values, share)), 3)
    return found | {"states": len(learned), "impressions": len(late)}


def arguments() -> argparse.ArgumentParser:
    parser = own_arguments(__doc__)
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"write a picture (default {PLOT})"
    )
    parser.add_argument("--rate", type=float, default=30_000, help="impressions a second")
    parser.add_argument("--seconds", type=float, default=40, help=f"after the first {WARM_S} s")
    return parser


def main() -> int:
    options = arguments().parse_args()
    with own_run("bench.end_to_end", "freshness.toml", options.broker, options.set) as local:
        found = measure(local, options)
    missed = [name for name, most in AT_MOST.items() if found[name] > most]
    found = {"bench": "freshness", **found, "rate": options.rate, "broker": local.broker.kind,
             "missed": missed, "machine": machine()}  # fmt: skip
    print(json.dumps(found, indent=None if options.json else 2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
