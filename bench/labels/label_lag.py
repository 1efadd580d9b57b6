"""How long after its deadline an impression stands in `examples`, on the live clock, the fraud
filter in the path.

    python -m bench.label_lag [--json] [--rate N] [--format json_page_views] [--seconds 40]

A broker, one labeler and one fraud filter, as `everspun role` starts them. Window 30 s, grace 2 s.
A shop's events with 2% clicks are written as they happen, at half of `--rate`: give it what
`bench.labeling` measured for the format, impressions a second. Arrival is the broker's time; the
deadline lies window and grace behind it; an impression is in `examples` when this process has read
its batch, so the way to a consumer is in the figure. The first WARM_S seconds of events are not
measured. Takes about three minutes and 2 GB.

Keys. `p50_s`, `p99_s`, `max_s`: from the deadline to "in examples". `feed_behind_s`: the most that
this process was behind in writing; if it is not small, the rate was not reached. `rejected`:
impressions that the fraud filter took out.
"""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bench.labels.labeling_log import PRODUCER, Entry, Shop, click_entries, draw, impression_entries
from bench.measuring.machine import Meter, machine
from bench.measuring.own_run import from_the_beginning, own_arguments, own_run
from everspun import Config, LocalRun
from stream import Partition, StreamConfig
from stream.internal_topics import decode_examples
from stream.log import Log, wall_clock_ms

FORMATS = ("json_page_views", "json_single")
WARM_S = 15
#: So much of the log is drawn at once, for memory's sake.
DRAWN_S = 5
PAGE_ROWS = 20
BEGIN_IN_MS = 1_000
PACE_S = 0.01
STUCK_S = 60.0
#: Every record begins with this, and then its time in 13 digits, which is put in when it is sent.
FRONT = b'{"ts_ms": '
DIGITS = 13


class Failed(RuntimeError):
    """The labels stopped coming; the message says where."""


class Seen(NamedTuple):
    """What one look into `examples` found: when, and the arrivals (n,) of its impressions, ms."""

    at_ms: int
    arrival_ms: npt.NDArray[np.int64]


def prepared(stream: StreamConfig, form: str, rate: float, seconds: float) -> list[Entry]:
    """Impressions and clicks of so many seconds by arrival. Clicks after the last impression are
    left out."""
    entries: list[Entry] = []
    shop, pages = Shop(int(min(DRAWN_S, seconds) * rate), rate), 0
    for number in range(max(1, round(seconds / DRAWN_S))):
        start_ms = Shop.start_ms + round(number * shop.impressions / rate * 1000)
        views = draw(replace(shop, start_ms=start_ms, first_view=pages, seed=number))
        entries += impression_entries(views, stream, form)
        entries += click_entries(views, stream, form)
        pages += shop.impressions // PAGE_ROWS
    entries.sort(key=lambda entry: entry.arrival_ms)
    last = max(i for i, entry in enumerate(entries) if entry.topic == stream.impressions)
    return entries[: last + 1]


class Feed:
    """A thread that writes the entries when they are due."""

    def __init__(self, log: Log, entries: list[Entry], begin_ms: int) -> None:
        self._log, self._entries, self._shift_ms = log, entries, begin_ms - Shop.start_ms
        self.behind_s = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with contextlib.closing(self._log.writer()) as writer:
                for entry in self._entries:
                    due_ms = entry.arrival_ms + self._shift_ms
                    while (ahead_s := due_ms / 1000 - time.time()) > 0:
                        time.sleep(max(PACE_S, ahead_s))
                    self.behind_s = max(self.behind_s, -ahead_s)
                    writer.append(
                        Partition(entry.topic, entry.partition),
                        self._value(entry),
                        entry.key,
                        PRODUCER,
                    )
                writer.flush(60_000)
        except BaseException as error:
            self.failure = error

    def _value(self, entry: Entry) -> bytes:
        """The record with the time at which it happens now."""
        at = len(FRONT)
        assert entry.value.startswith(FRONT)
        ts_ms = int(entry.value[at : at + DIGITS]) + self._shift_ms
        return b"%b%d%b" % (FRONT, ts_ms, entry.value[at + DIGITS :])

    def join(self) -> None:
        self._thread.join()


class Labels:
    """Follows `examples` from its beginning."""

    def __init__(self, config: Config, log: Log) -> None:
        stream = config.stream
        self._reader = from_the_beginning(log, stream.examples, stream.partitions)
        self.seen: list[Seen] = []
        self.counts: Counter[str] = Counter()

    def read(self) -> bool:
        """Take what is new; true if any impression was."""
        polled = self._reader.poll(500, 50)
        at_ms, before = wall_clock_ms(), sum(self.counts.values())
        for record in (record for records in polled.values() for record in records):
            headers = dict(record.headers)
            for name in ("labelled", "duplicate", "rejected", "withheld", "quarantined"):
                self.counts[name] += int(headers.get(name, b"0"))
            if record.value:
                rows = decode_examples(record.value)
                self.seen.append(Seen(at_ms, rows.column("arrival_ms").to_numpy()))
        return sum(self.counts.values()) > before

    def close(self) -> None:
        self._reader.close()


def measure(local: LocalRun, options: argparse.Namespace) -> dict[str, Any]:
    """Write, label, and say how late. Raises Failed."""
    config, log, rate = local.config, local.log(), options.rate / 2
    entries = prepared(config.stream, options.format, rate, WARM_S + options.seconds)
    impressions = sum(entry.rows for entry in entries if entry.topic == config.stream.impressions)
    local.start(roles=("labeler", "fraud"))
    meter = Meter.start(
        {name: process.popen.pid for name, process in local.launcher.processes.items()}
    )
    begin_ms = wall_clock_ms() + BEGIN_IN_MS
    feed = Feed(log, entries, begin_ms)
    with contextlib.closing(Labels(config, log)) as labels:
        moved = time.monotonic() + config.stream.wait_ms / 1000
        while sum(labels.counts.values()) < impressions:
            if labels.read():
                moved = max(moved, time.monotonic())
            local.launcher.raise_if_failed()
            if feed.failure is not None:
                raise feed.failure
            if time.monotonic() - moved > STUCK_S:
                raise Failed(
                    f"no label for {STUCK_S:.0f} s: {dict(labels.counts)} of {impressions} "
                    f"impressions"
                )
    feed.join()
    spent, _ = meter.stop()
    return {
        **lags(labels.seen, begin_ms + WARM_S * 1000, config.stream.wait_ms),
        "impressions_per_s": round(rate),
        "impressions": impressions,
        "labelled": labels.counts["labelled"],
        "rejected": labels.counts["rejected"],
        "feed_behind_s": round(feed.behind_s, 3),
        "cpu_s": {name: round(cpu_s, 1) for name, cpu_s in spent.items()},
    }


def lags(seen: list[Seen], from_ms: int, wait_ms: int) -> dict[str, Any]:
    """Percentiles over the impressions that arrived at or after `from_ms`."""
    arrival = np.concatenate([one.arrival_ms for one in seen])
    at = np.repeat([one.at_ms for one in seen], [len(one.arrival_ms) for one in seen])
    lag_s = (at - arrival - wait_ms)[arrival >= from_ms] / 1000
    if not len(lag_s):
        raise Failed("no impression was labelled after the first seconds")
    return {
        "p50_s": round(float(np.quantile(lag_s, 0.5)), 3),
        "p99_s": round(float(np.quantile(lag_s, 0.99)), 3),
        "max_s": round(float(lag_s.max()), 3),
        "measured": len(lag_s),
    }


def arguments() -> argparse.ArgumentParser:
    parser = own_arguments(__doc__)
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    parser.add_argument(
        "--rate", type=float, default=20_000, help="impressions a second; half of it is written"
    )
    parser.add_argument(
        "--seconds", type=float, default=40, help=f"of events, after the first {WARM_S} s"
    )
    return parser


def main() -> int:
    options = arguments().parse_args()
    with own_run("bench.labels", "label_lag.toml", options.broker, options.set) as local:
        found = measure(local, options)
    found = {
        "bench": "label_lag",
        **found,
        "format": options.format,
        "broker": local.broker.kind,
        "machine": machine(),
    }
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
