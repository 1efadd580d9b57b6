"""Impressions per CPU second of a labeler, by format: impressions in, examples out, through a real
broker.

    python -m bench.labeling [--json] [--formats arrow,json_page_views,json_single] [--impressions
    N] [--rate N]

One labeler process as `everspun role labeler` starts it, and a broker; nothing else runs. Per
format, on a broker of its own: a short log is labelled first, so that every kernel is compiled and
every connection made; the labeler is stopped (SIGSTOP); a log of `--impressions` with 2% clicks is
written; the labeler goes on (SIGCONT), and the clock runs until all its impressions stand in
`examples` and all its buckets in `signals`. CPU seconds are the labeler's alone, from /proc: all
its threads, the Kafka client included, the broker and the writing of the log not.

Both readers run: the joining and delayed ones, and the counting ones, which read every record a
second time and write `signals`. No fraud filter runs, so labels do not wait for verdicts
(`await_verdicts` = false): waiting costs no CPU. The log's events arrive at `--rate` a second, so
buckets and batches are those of a site as busy as that.

`ratio_faust_join` and `ratio_faust_join_arrow` compare `json_single` and `arrow` with a plain Faust
app (`bench/baselines/faust_join.py`) on fewer of the same single JSON events, measured in the same
way; the reason is printed where it cannot run. `rss_ratio_24h_1h` is a labeler's memory with a
window of 24 hours to that with one of an hour, as many clicks waiting, and
`bytes_per_pending_click` what each of them takes (`bench/labels/labeling_memory.py`). Takes about
five minutes and 2 GB.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from typing import Any

from bench.labels import labeling_memory
from bench.labels.labeling_log import (
    FORMATS,
    WARM_BEFORE_MS,
    WARM_FIRST_VIEW,
    Shop,
    Written,
    draw,
    write,
)
from bench.labels.labeling_peer import compare
from bench.measuring.machine import machine, process_cpu_s
from bench.measuring.own_run import own_arguments, own_run
from everspun import Config, LocalRun
from stream import SIGNALS_PARTITIONS, Partition
from stream.log import Log, Reader

#: Impressions of the measured log: a few CPU seconds of each.
IMPRESSIONS = {"arrow": 2_000_000, "json_page_views": 600_000, "json_single": 200_000}
WARM_IMPRESSIONS = 20_000
STUCK_S = 120.0
LOOK_S = 0.1


class Failed(RuntimeError):
    """The labeler stood still, or its classes do not add up; the message says where."""


class Outputs:
    """Follows `examples` and `signals` from their beginning: the ends of their chains, and what
    was counted."""

    def __init__(self, config: Config, log: Log):
        stream = config.stream
        self._reader: Reader = log.reader()
        partitions = [Partition(stream.examples, p) for p in range(stream.partitions)]
        partitions += [Partition(stream.signals, p) for p in range(SIGNALS_PARTITIONS)]
        self._reader.assign(partitions)
        for at in partitions:
            self._reader.seek(at, 0)
        self.ends: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def read(self) -> bool:
        """Take what is new; true if anything was."""
        polled = self._reader.poll(2_000, 0)
        for records in polled.values():
            for record in records:
                headers = dict(record.headers)
                chain = headers["chain"].decode()
                self.ends[chain] = max(self.ends.get(chain, 0), int(headers["end"]))
                self.counts["signals" if chain.startswith("signal/") else "batches"] += 1
                self.counts["bytes"] += len(record.value or b"")
                for name in (
                    "labelled",
                    "duplicate",
                    "quarantined",
                    "positives",
                    "clicks_read",
                    "unknown",
                ):
                    self.counts[name] += int(headers.get(name, b"0"))
        return bool(polled)

    def wait_for(self, ends: dict[str, int], local: LocalRun) -> None:
        """Until each of these chains has reached its end. Raises Failed."""
        moved = time.monotonic()
        while not all(self.ends.get(chain, 0) >= end for chain, end in ends.items()):
            if self.read():
                moved = time.monotonic()
                continue
            local.launcher.raise_if_failed()
            if time.monotonic() - moved > STUCK_S:
                raise Failed(
                    f"nothing was written for {STUCK_S:.0f} s; ends {self.ends}, wanted {ends}"
                )
            time.sleep(LOOK_S)

    def close(self) -> None:
        self._reader.close()


def wanted_ends(config: Config, written: Written) -> dict[str, int]:
    """Chain -> the position behind the last event written."""
    stream = config.stream
    ends = {f"label/{p}": end for p, end in written.ends(stream.impressions).items()}
    for topic in (stream.impressions, stream.clicks):
        ends |= {f"signal/{topic}/{p}": end for p, end in written.ends(topic).items()}
    return ends


def measure(local: LocalRun, form: str, shop: Shop) -> dict[str, Any]:
    """Warm up, write the log, and let it be labelled."""
    config, log = local.config, local.log()
    warm = draw(
        Shop(
            WARM_IMPRESSIONS,
            shop.rate,
            start_ms=shop.start_ms - WARM_BEFORE_MS,
            first_view=WARM_FIRST_VIEW,
        )
    )
    warmed = write(log, config.stream, warm, form)
    local.start(roles=("labeler",))
    pid = local.launcher.processes["labeler-0"].popen.pid
    with contextlib.closing(Outputs(config, log)) as outputs:
        outputs.wait_for(wanted_ends(config, warmed), local)
        views = draw(shop)
        os.kill(pid, signal.SIGSTOP)
        written = write(log, config.stream, views, form)
        before = Counter(outputs.counts)
        cpu_s, began = process_cpu_s(pid), time.monotonic()
        os.kill(pid, signal.SIGCONT)
        outputs.wait_for(wanted_ends(config, written), local)
        cpu_s, seconds = process_cpu_s(pid) - cpu_s, time.monotonic() - began
        counts = Counter({name: n - before[name] for name, n in outputs.counts.items()})
    check(written, counts)
    return {
        "impressions_per_cpu_s": round(written.impressions / cpu_s),
        "cpu_s": round(cpu_s, 2),
        "seconds": round(seconds, 2),
        "impressions": written.impressions,
        "clicks": written.clicks,
        "positives": counts["positives"],
        "records": written.records,
        "record_bytes": round(written.bytes / written.records),
        "batches": counts["batches"],
        "signals": counts["signals"],
    }


def check(written: Written, counts: Counter[str]) -> None:
    """Every impression ended in a class, none was bad, and most clicks found theirs."""
    if counts["labelled"] != written.impressions or counts["unknown"]:
        raise Failed(
            f"{counts['labelled']} of {written.impressions} impressions labelled: {dict(counts)}"
        )
    if not 0.9 * written.clicks <= counts["positives"] <= written.clicks:
        raise Failed(f"{counts['positives']} positives of {written.clicks} clicks")


def run_format(form: str, options: argparse.Namespace) -> dict[str, Any]:
    shop = Shop(options.impressions or IMPRESSIONS[form], options.rate, options.click_share)
    with own_run("bench.labels", "labeling.toml", options.broker, options.set) as local:
        return measure(local, form, shop) | {"broker": local.broker.kind}


def arguments() -> argparse.ArgumentParser:
    parser = own_arguments(__doc__)
    parser.add_argument(
        "--formats", default=",".join(FORMATS), help=f"which of {', '.join(FORMATS)}; may be empty"
    )
    parser.add_argument(
        "--impressions", type=int, default=0, help=f"of the measured log (default: {IMPRESSIONS})"
    )
    parser.add_argument(
        "--rate", type=float, default=50_000, help="impressions a second of arrival time"
    )
    parser.add_argument("--click-share", type=float, default=0.02, help="clicks an impression")
    parser.add_argument(
        "--baseline",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the plain Faust app too",
    )
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure memory by window too",
    )
    return parser


def main() -> int:
    options = arguments().parse_args()
    found: dict[str, Any] = {"bench": "labeling", "rate": options.rate}
    for form in filter(None, options.formats.split(",")):
        found[form] = run_format(form, options)
    if options.baseline:
        found |= compare(found, options)
    if options.memory:
        found |= labeling_memory.compare(options)
    found["machine"] = machine()
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
