"""A window of 30 days: the waiting clicks of one partition, with and without a limit on memory, and
a restart.

    python -m bench.click_spill [--json] [--clicks 5000000] [--bytes-max 67108864]

One partition's `ClickBuffer`, without a broker: clicks of 30 days are read, a click a record, then
impressions are matched batch by batch while the window moves on by a day; a clicked one finds its
click days later in 3 cases of 100, else within the hour. Once with all clicks in memory, once with
those above `--bytes-max` in the local copy, each in a process of its own; then a new reader begins
at the same resume point with the copy. Takes about two minutes and 1 GB.

Keys, by `memory` and `spilled`: `rss_mib`, what the process took more than before the first click;
`held_mib`, what it says of itself; `matched_per_s`, impressions a second; `clicks_found`, which
must agree. `restart_s`: from the copy.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.measuring.machine import machine
from labeler.click_cache import ClickCopy
from labeler.join import Read, ResumePoint, label_strategies
from labeler.labels import ClickBuffer, Passed
from stream import StreamConfig
from stream.columns import Clicks, Impressions
from stream.log.rows import RocksStorage

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
WINDOW_DAYS, MOVED_DAYS = 30, 1
START_MS = 1_700_000_000_000
READ_ROWS, BATCH_ROWS = 2_000, 4_096
CLICK_SHARE, LATE_SHARE = 0.02, 0.03
STREAM = StreamConfig(partitions=1, window_ms=WINDOW_DAYS * DAY_MS, grace_ms=HOUR_MS)
MIB = 1 << 20


def _ids(number: Any) -> Any:
    return (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


def _clicks(first: int, last: int, gap_ms: float) -> Read[Clicks]:
    """Clicks numbered `[first, last)`, a record each."""
    number = np.arange(first, last)
    at_ms = START_MS + (number * gap_ms).astype(np.int64)
    nothing, empty = np.zeros(len(number), np.uint64), Clicks.empty()
    clicks = Clicks(number << 20, at_ms, at_ms, _ids(number), nothing, nothing, empty.table)
    return Read(number, at_ms, np.ones(len(number), np.int32), clicks, [], [])


def _batch(rng: np.random.Generator, k: int, gap_ms: float, clicks: int) -> Impressions:
    """A batch of impressions: CLICK_SHARE of them have one of the clicks to come."""
    row_ms = gap_ms * CLICK_SHARE
    at_ms = START_MS + ((k * BATCH_ROWS + np.arange(BATCH_ROWS)) * row_ms).astype(np.int64)
    later = np.where(
        rng.random(BATCH_ROWS) < LATE_SHARE,
        rng.random(BATCH_ROWS) * STREAM.window_ms,
        rng.random(BATCH_ROWS) * 3_600_000,
    )
    number = np.minimum(((at_ms - START_MS + later) / gap_ms).astype(np.int64), clicks - 1)
    clicked = rng.random(BATCH_ROWS) < CLICK_SHARE
    ids = np.where(clicked, _ids(number), rng.integers(1, 1 << 63, BATCH_ROWS).astype(np.uint64))
    nothing = np.zeros(BATCH_ROWS, np.uint64)
    table = Impressions.empty(()).table
    return Impressions(np.arange(BATCH_ROWS), at_ms, at_ms, ids, nothing, nothing, table)


def run(clicks: int, bytes_max: int, folder: str | None) -> dict[str, Any]:
    """Read them all, then match and let go for MOVED_DAYS."""
    gap_ms = (STREAM.window_ms + 2 * STREAM.grace_ms) / clicks
    _match(_line(None, ResumePoint(0), 0), 10_000, gap_ms)  # kernels are loaded
    line = _line(folder, ResumePoint(0), bytes_max)
    before = _rss()
    done = _match(line, clicks, gap_ms)
    result = {
        "rss_mib": round((_rss() - before) / MIB, 1),
        "held_mib": round(line.bytes / MIB, 1),
        "spilled": line.spilled,
        "matched_per_s": round(done.impressions / done.seconds),
        "clicks_found": done.found,
    }
    if folder is not None:
        point = ResumePoint(1, 0, done.arrival_ms, done.passed.offset, done.passed.arrival_max_ms)
        began = time.monotonic()
        again = _line(folder, point, bytes_max)
        result |= {"restart_s": round(time.monotonic() - began, 2), "restored": again.restored}
    return result


class Matched(NamedTuple):
    """A day of impressions, labelled."""

    impressions: int
    found: int
    seconds: float
    arrival_ms: int
    passed: Passed


def _match(line: ClickBuffer, clicks: int, gap_ms: float) -> Matched:
    """Read all clicks, then label MOVED_DAYS."""
    for first in range(0, clicks, READ_ROWS):
        line.add(_clicks(first, min(clicks, first + READ_ROWS), gap_ms))
    strategy, rng, found = label_strategies(STREAM)[0], np.random.default_rng(1), 0
    moved_ms = min(MOVED_DAYS * DAY_MS, clicks * gap_ms / WINDOW_DAYS)
    batches = int(moved_ms / (BATCH_ROWS * gap_ms * CLICK_SHARE))
    began = time.monotonic()
    for k in range(max(1, batches)):
        batch = _batch(rng, k, gap_ms, clicks)
        found += int(line.match(batch, strategy).label.sum())
        passed = line.passed(int(batch.arrival_ms[-1]))
    return Matched(
        max(1, batches) * BATCH_ROWS,
        found,
        time.monotonic() - began,
        int(batch.arrival_ms[-1]),
        passed,
    )


_OPEN: dict[str, RocksStorage] = {}


def _line(folder: str | None, point: ResumePoint, bytes_max: int) -> ClickBuffer:
    if folder is None:
        return ClickBuffer(STREAM, point)
    pages = _OPEN.setdefault(folder, RocksStorage(Path(folder)))
    return ClickBuffer(STREAM, point, ClickCopy(pages, "label/clicks/0", "", ()), bytes_max)


def _rss() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--clicks", type=int, default=5_000_000, help="waiting clicks of the partition"
    )
    parser.add_argument(
        "--bytes-max", type=int, default=67_108_864, help="pending_clicks_bytes_max"
    )
    options = parser.parse_args()
    found: dict[str, Any] = {
        "bench": "click_spill",
        "clicks": options.clicks,
        "bytes_max": options.bytes_max,
    }
    with tempfile.TemporaryDirectory(prefix="everspun-bench-") as folder:
        places = {"memory": None, "spilled": f"{folder}/clicks"}
        for name, place in places.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name] = pool.apply(run, (options.clicks, options.bytes_max, place))
    if found["memory"]["clicks_found"] != found["spilled"]["clicks_found"]:
        print("the two do not find the same clicks", file=sys.stderr)
        return 1
    found["machine"] = machine()
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
