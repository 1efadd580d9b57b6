"""What a cut costs a shard: how long a mark holds pushes up, and what full parts and deltas take,
by size of the table.

    python -m bench.cuts [--rows 1000000,10000000] [--touched 0.01] [--json]

One shard in this process, rows of 16 float32 with element-wise Adagrad. Between two cuts a share of
the rows is touched, drawn uniformly. While a part is copied and written, as the server does it,
another thread pushes 4,096 rows at a time. Parts go to a folder on this machine's disk, synced.
Takes about 1 minute and 8 GB.

Keys, by number of rows. `mark_ms`: how long the shard's lock is held by a mark, median and largest;
`mark_ms_at_once`: the same where a mark copies all rows (median). `full`, `delta`: seconds and CPU
seconds of this process for a part, pushes aside as far as they can be told, its bytes, and the
longest hold of the lock in between. `composed`: what it would take another process to make a base
of base and delta. `push_ms`: median and 99th percentile of a push without a cut, and while the full
part was copied and written.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.measuring.machine import machine
from bench.parameters.table import by_key
from paramserver import (
    AllowRequest,
    DenseSpec,
    Epoch,
    Keys,
    ModelSpec,
    Outcome,
    ParamServerConfig,
    PushRequest,
    SlotMap,
    TableSpec,
)
from paramserver.parts import part_name, whole
from paramserver.process import warm_up
from paramserver.server import Metrics, ShardService, read_part, write_part
from paramserver.shard import Shard

DIM, FILLED, PUSHED, MARKS = 16, 100_000, 4_096, 9
EPOCH, MODEL, CHAIN = Epoch(1, 1), "cuts", "label/0"
ROWS, TOUCHED = "1000000,10000000", 0.01


class System:
    """A shard of so many rows, and who pushes to it."""

    def __init__(self, rows: int) -> None:
        self.rows, self.end, self.rng = rows, 0, np.random.default_rng(1)
        shard = Shard(0, 1, SlotMap.even(1))
        shard.allow(AllowRequest(1, 1, (EPOCH,)))
        table = TableSpec("t", DIM, "adagrad", {"rate": 0.05}, init_scale=0.01)
        shard.begin(ModelSpec(MODEL, "1", (table,), DenseSpec({})), {CHAIN: 0}, {})
        self.service = ShardService(shard, ParamServerConfig(), Metrics())
        for at in range(0, rows, FILLED):
            self.push(by_key(np.arange(at, min(at + FILLED, rows)))[0])

    def push(self, keys: Keys) -> float:
        """Milliseconds that it took, waiting for the lock included."""
        gradients = np.full((len(keys), DIM), 0.01, np.float32)
        request = PushRequest(
            MODEL, EPOCH, 1, 1, CHAIN, self.end, self.end + 1, 0, self.end + 1, 0, 0, 1, self.end,
            keys={"t": keys}, gradients={"t": gradients},
        )  # fmt: skip
        began = time.perf_counter()
        with self.service.lock:
            assert self.service.shard.push(request).outcome is Outcome.APPLIED
        self.end += 1
        return 1e3 * (time.perf_counter() - began)

    def draw(self, count: int) -> Keys:
        return by_key(np.unique(self.rng.integers(0, self.rows, count)))[0]

    def touch(self, share: float) -> None:
        for _ in range(int(share * self.rows / PUSHED) + 1):
            self.push(self.draw(PUSHED))

    def mark(self, cut: str) -> float:
        """Milliseconds that the lock is held."""
        began = time.perf_counter()
        with self.service.lock:
            assert self.service.shard.mark(MODEL, cut, {CHAIN: self.end}).marked
        return 1e3 * (time.perf_counter() - began)

    def marks(self) -> list[float]:
        """Each after pushes, so that none finds the copy of the one before it."""
        found = []
        for number in range(MARKS):
            self.push(self.draw(PUSHED))
            found.append(self.mark(f"mark-{number}"))
            self.service.shard.unmark(MODEL, f"mark-{number}")
        return found

    def marks_at_once(self) -> list[float]:
        """What a mark would take that copies all rows while the lock is held."""
        found = []
        for _ in range(3):
            began = time.perf_counter()
            self.service.shard.snapshot(MODEL)
            found.append(1e3 * (time.perf_counter() - began))
        return found

    def part(
        self, cut: str, folder: str, upon: str | None, pushes: "Pushes | None"
    ) -> dict[str, Any]:
        """Mark, copy and write, as the server does; settled afterwards as the manifest `cut`."""
        self.mark(cut)
        holds = Holds(self.service)
        copy = self.service.shard.copying(MODEL, cut, upon)
        if pushes is not None:
            pushes.start()
        began, cpu = time.perf_counter(), time.process_time()
        info = holds.write(copy, f"{folder}/{cut}")
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        if pushes is not None:
            pushes.stop()
        self.service.shard.settle(MODEL, cut, cut)
        assert info.kind == ("full" if upon is None else "delta")
        return {
            "seconds": round(seconds, 3),
            "cpu_s": round(cpu_s, 3),
            "bytes": info.bytes,
            "rows": info.rows,
            "hold_ms_max": round(holds.longest_ms, 2),
        }


def compose(folder: str) -> dict[str, float]:
    """A new base out of a base and one delta, as another process would make it: read both, put
    together, write."""
    began, cpu = time.perf_counter(), time.process_time()
    base, delta = (read_part(f"{folder}/{cut}/{part_name(0)}") for cut in ("full", "delta"))
    write_part(whole([("full", [base]), ("delta", [delta])]), 0, f"{folder}/composed")
    return {
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
    }


class Holds:
    """Writes a part as the server does, and notes the longest hold of the lock."""

    def __init__(self, service: ShardService) -> None:
        self.parts, self.lock, self.longest_ms = service.parts, service.lock, 0.0

    def write(self, copy: Any, url: str) -> Any:
        more = self.parts.copy_more

        def timed(copy: Any) -> bool:
            with self.lock:
                began = time.perf_counter()
            found = more(copy)
            self.longest_ms = max(self.longest_ms, 1e3 * (time.perf_counter() - began))
            return found

        self.parts.copy_more = timed  # type: ignore[method-assign]
        try:
            return self.parts.write(copy, url)
        finally:
            del self.parts.copy_more  # type: ignore[method-assign]


class Pushes:
    """A thread that pushes one batch after another, twenty a second at most."""

    def __init__(self, system: System) -> None:
        self.system, self.took_ms = system, list[float]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.took_ms.append(self.system.push(self.system.draw(PUSHED)))


def spread(values: list[float], high: float = 1.0) -> list[float]:
    return [round(median(values), 3), round(float(np.quantile(values, high)), 3)]


def measure(rows: int, touched: float, folder: str) -> dict[str, Any]:
    system = System(rows)
    quiet = [system.push(system.draw(PUSHED)) for _ in range(50)]
    marks = system.marks()
    at_once = system.marks_at_once()
    busy = Pushes(system)
    body: dict[str, Any] = {"full_beside_pushes": system.part("busy", folder, None, busy)}
    full = system.part("full", folder, None, None)
    system.touch(touched)
    delta = system.part("delta", folder, "full", None)
    return body | {
        "mark_ms": spread(marks),
        "mark_ms_at_once": round(median(at_once), 1),
        "full": full,
        "delta": delta,
        "composed": compose(folder),
        "push_ms": {
            "quiet": spread(quiet, 0.99),
            "beside_a_full_part": spread(busy.took_ms or [0.0], 0.99),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument(
        "--rows", default=ROWS, help=f"sizes of the table, with commas between ({ROWS})"
    )
    parser.add_argument(
        "--touched", type=float, default=TOUCHED, help=f"share touched between cuts ({TOUCHED})"
    )
    parser.add_argument("--folder", help="where parts are written (default: a temporary folder)")
    options = parser.parse_args()
    warm_up()
    System(1_000).marks()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="cuts-") as folder:
        sizes = {
            rows: measure(int(rows), options.touched, str(Path(folder) / rows))
            for rows in options.rows.split(",")
        }
    body = {"bench": "cuts", "touched": options.touched, "rows": sizes, "machine": machine()}
    print(
        json.dumps(
            body | {"load": round(os.getloadavg()[0], 1)}, indent=None if options.json else 2
        )
    )


if __name__ == "__main__":
    main()
