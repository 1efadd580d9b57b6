"""Does a labeler keep its speed under an attack? What one more verdict costs it, by how many it
holds.

    python -m bench.held_verdicts [--json] [--held 900,36000] [--steps 50]

`ruling_ms`: CPU of a verdict that comes, of a ruling on 128 impressions behind it, and of those
verdicts that took any;
`late_run_ms`: of a late verdict, the run that it ends in, and two records of 128 rows that are
looked through for it. `ruling_ratio`, `late_run_ratio`: the most held to the fewest. `held_bytes`,
`late_bytes`: memory of a verdict on one of 300 sources. Takes half a minute and 500 MB.
"""

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from bench.measuring.machine import machine
from labeler.labels import VerdictIndex, VerdictPoint
from labeler.retraction import LateVerdicts
from stream import Record
from stream.hashing import hash_strings
from stream.internal_topics import REJECT, Verdict, Watermark, encode_verdict

INPUTS = [f"{topic}/{p}" for topic in ("impressions", "clicks") for p in range(3)]
ROWS, SOURCES, VENDORS, EVERY_MS, LASTS_MS = 128, 300, 7, 100, 5_000
#: All that is said comes behind it, and so is late; no verdict is over.
LATE_MS, HORIZON_MS, WAIT_MS = 10**11, 10**12, 1_000
EVIDENCE = {
    "clicks": 9.0,
    "views": 9.0,
    "click_rate": 0.1,
    "chance_share": 1e-9,
    "chance_rate": 1e-5,
}


def verdict(number: int) -> Verdict:
    source, vendor = f"user-{number % SOURCES:016d}", f"vendor-{number % VENDORS}"
    from_ms = number * EVERY_MS
    id = f"burst/{from_ms}/{from_ms + LASTS_MS}/{source}/{vendor}"
    until_ms, reason = from_ms + LASTS_MS, "clicks faster than a person can " * 4
    return Verdict(id, "burst", REJECT, source, vendor, from_ms, until_ms, reason, EVIDENCE)


def records(said: Iterable[Verdict | Watermark], first: int = 0) -> list[Record]:
    return [Record(first + n, 0, None, encode_verdict(one)) for n, one in enumerate(said)]


def names() -> tuple[pa.Array, pa.Array]:
    return (
        pa.array([f"user-{n % SOURCES:016d}" for n in range(ROWS)]),
        pa.array([f"vendor-{n % VENDORS}" for n in range(ROWS)]),
    )


def ruling_ms(held: int, steps: int) -> float:
    index = VerdictIndex(INPUTS, VerdictPoint(0, {}))
    index.read(records(map(verdict, range(held))))
    source, vendor = names()
    ts_ms = np.full(ROWS, held * EVERY_MS)
    table = pa.table({"source": source, "vendor": vendor})
    rows = (hash_strings(source), hash_strings(vendor), ts_ms, ts_ms + WAIT_MS, table)
    coming = records(map(verdict, range(held, held + steps)), held)
    index.rule(*rows)
    began_s = time.process_time()
    for record in coming:
        index.read([record])
        by = index.rule(*rows).by
        for number in np.unique(by[by >= 0]).tolist():
            index.verdict(number)
        index.need(0, 0, 0)
    return 1_000 * (time.process_time() - began_s) / steps


def late_run_ms(held: int, steps: int) -> float:
    late = LateVerdicts(INPUTS[:1], VerdictPoint(0, {}), WAIT_MS, 0, HORIZON_MS)
    marks = [Watermark(INPUTS[0], LATE_MS + n, 0) for n in range(steps + 2)]
    late.read(records([marks[0], *map(verdict, range(held)), marks[1]]))
    late.forget(late.runs[-1].end)
    source, vendor = names()
    ts_ms = np.full(ROWS, held * EVERY_MS)
    rows = pa.record_batch(
        {"ts_ms": ts_ms, "arrival_ms": ts_ms + 10, "source": source, "vendor": vendor}
    )
    coming = [records([verdict(held + n), marks[n + 2]], held + 2 + 2 * n) for n in range(steps)]
    began_s = time.process_time()
    for pair in coming:
        late.read(pair)
        run = late.runs[-1]
        decides = late.late(run)
        for _ in range(2):
            decides.taken(rows, WAIT_MS)
        late.forget(run.end)
    return 1_000 * (time.process_time() - began_s) / steps


def bytes_each(make: Callable[[], Any], held: int) -> float:
    """Of what it holds, its columns among it."""
    said = [Watermark(INPUTS[0], LATE_MS, 0), *map(verdict, range(held))]
    log = records([*said, Watermark(INPUTS[0], LATE_MS + 1, 0)])
    tracemalloc.start()
    try:
        holds = make()
        holds.read(log)
        holds._held.column("to_ms")
        return tracemalloc.get_traced_memory()[0] / held
    finally:
        tracemalloc.stop()


def bench(held: list[int], steps: int) -> dict[str, Any]:
    ruling_ms(min(held), 2), late_run_ms(min(held), 2)  # kernels are loaded
    rulings = {str(count): round(ruling_ms(count, steps), 3) for count in held}
    runs = {str(count): round(late_run_ms(count, steps), 3) for count in held}
    few, many = str(min(held)), str(max(held))
    index = bytes_each(lambda: VerdictIndex(INPUTS, VerdictPoint(0, {})), max(held))
    late = bytes_each(
        lambda: LateVerdicts(INPUTS[:1], VerdictPoint(0, {}), WAIT_MS, 0, HORIZON_MS), max(held)
    )
    return {
        "ruling_ratio": round(rulings[many] / rulings[few], 2),
        "late_run_ratio": round(runs[many] / runs[few], 2),
        "ruling_ms": rulings,
        "late_run_ms": runs,
        "held_bytes": round(index),
        "late_bytes": round(late),
        "steps": steps,
        **machine(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--held",
        default="900,36000",
        help="verdicts; multiples of 300, so that the last name the same sources",
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    result = bench([int(one) for one in chosen.held.split(",")], chosen.steps)
    print(
        json.dumps(result)
        if chosen.json
        else "\n".join(f"{key:14} {value}" for key, value in result.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
