"""What freshness is worth: the same events, served by models that are cut each 1, 7 and 30 days.

    python -m bench.freshness_value [--json] [--plot] [--days 1,7,30] [--limit N] [--broker
    auto|kafka|embedded]

Replays MovieLens 100k through all roles as real processes, keeping step: an impression is answered
by the cut at the barrier before it, so its model version is a function of its event time. For each
interval the system's own two losses stand beside those of an independent replay of the very same
batches and cuts (`tests/reference/examples.py`), at staleness 0, for that one has none: rows of one
user follow each other, and at staleness 1 the progressive loss is 0.002 higher, as served the same.
The model is logistic regression on ids, so that all it knows of a person was learned. Normalized
entropy: log loss over the entropy of the mean label; lower is better. Exit code 1 if the order is
not strict, or 30 days cost less than 0.004 over 7, or system and reference differ by more than
0.002. Takes five minutes.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.learning.replayed import Replayed, replay
from bench.measuring.machine import machine
from bench.measuring.plotting import freshness
from everspun.replay import DELAY_NOTE

DAY_MS = 86_400_000
DAYS = "1,7,30"
#: `ne_30d - ne_7d` is at least this, and system and reference differ by at most that.
WORTH_MIN, DIFFERENCE_MAX = 0.004, 0.002
PLOT = Path("docs/freshness_value.png")
#: The demo's model with ids alone: what is asked is the worth of what was learned of them.
IDS_ALONE = (
    'model.categorical=["source","item"]',
    "model.table_options={alpha=0.4}",
    "stream.batch_rows_max=128",
    "replay.seen_max=0",
)


def row_of(days: float, run: Replayed) -> dict[str, Any]:
    """One line of the result."""
    quality, progress = run.quality, run.progress
    cuts = len(progress.cuts)
    return {
        "days": days,
        "as_served": round(quality.served_normalized_entropy, 5),
        "as_served_reference": round(run.reference["as_served"], 5),
        "progressive": round(quality.normalized_entropy, 5),
        "progressive_reference": round(run.reference["progressive"], 5),
        "as_served_calibration": round(quality.served_calibration, 4),
        "rows": int(quality.rows),
        "served_rows": int(quality.served_rows),
        "reference_rows": run.reference["rows"],
        "batches": run.reference["batches"],
        "cuts": cuts,
        "cuts_rejected": run.rejected_cuts,
        "seconds": round(progress.elapsed_s, 1),
        "waited_s_per_cut": round(progress.waited_s / max(1, cuts), 3),
        "cpu_s": {name: round(spent, 1) for name, spent in sorted(run.cpu_s.items())},
        "restarts": run.restarts,
        "cpu_s_of_others": round(run.others_cpu_s, 1),
    }


def judge(rows: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be."""
    wrong = []
    for row in rows:
        for loss in ("as_served", "progressive"):
            difference = abs(row[loss] - row[f"{loss}_reference"])
            if difference > DIFFERENCE_MAX:
                wrong.append(
                    f"{row['days']:g} days: {loss} differs from the reference by {difference:.4f}"
                )
        if row["served_rows"] != row["rows"] or row["rows"] != row["reference_rows"]:
            wrong.append(
                f"{row['days']:g} days: {row['served_rows']} rows served, {row['rows']} learned"
            )
    served = {row["days"]: row["as_served"] for row in rows}
    if any(
        fresh >= stale
        for fresh, stale in zip(list(served.values()), list(served.values())[1:], strict=False)
    ):
        wrong.append(f"as served does not rise with the interval: {served}")
    if 7 in served and 30 in served and served[30] - served[7] < WORTH_MIN:
        wrong.append(
            f"ne_30d - ne_7d = {served[30] - served[7]:.4f}, expected at least {WORTH_MIN}"
        )
    return wrong


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--plot", type=Path, nargs="?", const=PLOT, help=f"write a picture (default {PLOT})"
    )
    parser.add_argument(
        "--days", default=DAYS, help="intervals between cuts, days of event time, ascending"
    )
    parser.add_argument(
        "--limit", type=int, default=0, help="only the first so many impressions; 0 = all"
    )
    parser.add_argument(
        "--broker",
        default=os.environ.get("EVERSPUN_KAFKA", "auto"),
        help="auto | kafka | embedded | host:port",
    )
    parser.add_argument(
        "--dir", type=Path, default=None, help="folder of the runs, kept (default: temporary ones)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one key"
    )
    return parser


def measure(options: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for days in (float(text) for text in options.days.split(",")):
        folder = (
            options.dir / f"{days:g}"
            if options.dir
            else Path(tempfile.mkdtemp(prefix="everspun-bench-"))
        )
        wanted = (
            f"replay.barrier_ms={int(days * DAY_MS)}",
            f"replay.limit={options.limit}",
            "replay.attacks=false",
            "paramserver.staleness=0",
            *IDS_ALONE,
            *options.set,
        )
        try:
            rows.append(
                row_of(days, replay(folder, options.broker, wanted, say=f"cuts each {days:g} d"))
            )
        finally:
            if not options.dir:
                shutil.rmtree(folder, ignore_errors=True)
    served = {f"ne_{row['days']:g}d": row["as_served"] for row in rows}
    note = f"MovieLens 100k; {DELAY_NOTE}"
    return {
        "bench": "freshness_value",
        "data": note,
        **served,
        "runs": rows,
        "wrong": judge(rows),
        "machine": machine(),
    }


def main() -> int:
    options = arguments().parse_args()
    found = measure(options)
    if options.plot is not None:
        freshness(found["runs"], options.plot)
    print(json.dumps(found, indent=None if options.json else 2))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
