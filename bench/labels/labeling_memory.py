"""The memory side of `bench.labeling`: does a labeler's memory follow the window, or the clicks
that wait in it (L5)?

Two labelers, one with a window of an hour and one of 24, each on a log of SPAN windows at one rate
of impressions: the second reads 24 times the impressions, and clicks are so much rarer that as many
wait. Each is measured where it stands at the end of its log, a full window of clicks waiting, as it
would all day.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.labels.labeling_log import ARRIVAL_LAG_MS, Shop, draw, write
from bench.measuring.own_run import own_run
from everspun import LocalRun
from everspun.status import Report, scrape

HOUR_MS = 3_600_000
SPAN = 1.2
RATE = 25.0  # impressions a second
#: Waiting clicks: those of the window, and of the grace before and behind it.
PENDING = 80_000
MIB = 1 << 20
STUCK_S = 120.0
LOOK_S = 0.5
#: It stands still when nothing was labelled for so long, s.
STILL_S = 3.0
#: Batches and records are of minutes rather than of a second, so that a day is written in seconds,
#: not minutes.
CALM = ("stream.heartbeat_ms=20000", "stream.signal_ms=60000", "stream.flush_ms=60000")
#: What is read ahead has a limit of its own, which a busy site fills in minutes: here an hour's log
#: fills it too.
READ_AHEAD = ("labeler.feed_records_max=1000", "labeler.read_ahead_rows_max=4096")


class Unsteady(RuntimeError):
    """A labeler did not reach the end of its log; the message says where it stands."""


def measure(broker: str, hours: int, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """One labeler with a window of so many hours, full of clicks. Raises Unsteady."""
    chosen = (*CALM, *READ_AHEAD, f"stream.window_ms={hours * HOUR_MS}", *overrides)
    with own_run("bench.labels", "labeling.toml", broker, chosen) as local:
        stream = local.config.stream
        share = PENDING / (RATE * (stream.wait_ms + stream.early_ms) / 1000)
        views = draw(Shop(int(SPAN * hours * HOUR_MS / 1000 * RATE), RATE, share))
        head_ms = int(views.ts_ms[-1]) + ARRIVAL_LAG_MS - stream.wait_ms
        due = int(np.searchsorted(views.ts_ms, head_ms - 2 * stream.flush_ms - stream.heartbeat_ms))
        written = write(local.log(), stream, views, "arrow", close=False)
        del views
        local.start(roles=("labeler",))
        report = _still(local, due)
        status = _status(local.launcher.processes["labeler-0"].popen.pid)
    clicks = report.value("everspun_labeler_pending_clicks")
    return {
        "rss_mib": round(status["VmRSS"] / MIB, 1),
        "rss_peak_mib": round(status["VmHWM"] / MIB, 1),
        "impressions": written.impressions,
        "clicks": written.clicks,
        "queue_bytes": int(report.value("everspun_labeler_queue_bytes")),
        "pending_clicks": int(clicks),
        "pending_clicks_bytes": int(report.value("everspun_labeler_pending_clicks_bytes")),
    }


def _still(local: LocalRun, due: int) -> Report:
    """What the labeler reports once it has labelled at least `due` impressions and stands still."""
    labelled, moved = -1.0, time.monotonic()
    while True:
        report, now = scrape(local.dir).get("labeler-0", Report({})), time.monotonic()
        found = report.value("everspun_labeler_impressions_total", **{"class": "labelled"})
        if found > labelled:
            labelled, moved = found, now
        elif found >= due and now - moved > STILL_S:
            return report
        elif now - moved > STUCK_S:
            raise Unsteady(f"{found:.0f} impressions labelled, {due} are due, and nothing moves")
        local.launcher.raise_if_failed()
        time.sleep(LOOK_S)


def _status(pid: int) -> dict[str, int]:
    """Sizes of a process, bytes, by their names in /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(kib) * 1024 for name, kib, _ in sizes}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Both windows, the ratio of their memory, and what a waiting click takes in the larger one."""
    try:
        hour, day = (measure(options.broker, hours, tuple(options.set)) for hours in (1, 24))
    except Unsteady as error:
        print(f"memory not measured: {error}", file=sys.stderr)
        return {"memory": {"failed": str(error)}}
    return {
        "memory": {"1h": hour, "24h": day},
        "rss_ratio_24h_1h": round(day["rss_mib"] / hour["rss_mib"], 3),
        "bytes_per_pending_click": round(day["pending_clicks_bytes"] / day["pending_clicks"], 1),
    }
