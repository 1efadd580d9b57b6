"""What a new checkpoint costs a replica, by rows that changed and rows that it holds.

    python -m bench.swap [--rows 1000000,5000000] [--changed 200,10000,100000] [--json]

A replica of a logistic regression (weights of 1 float32) in this process follows checkpoints in a
folder on this machine's disk, as `checkpointer.serving.loading.load` does: manifest and files are
read, their checksums compared, and the tables take what changed, the keys drawn uniformly; a tenth
of a delta are tombstones of keys that the next one brings back. Then a base whose parent it holds,
and at the end one whose parent it does not. Takes about a minute and 2 GB.

Keys, by rows held and rows changed. `cpu_ms`: CPU of this process for one delta, all threads, the
median of seven; `allowed_ms`: 2 + 1 us a row. `base_followed_cpu_ms`: of a base where 10,000 rows
changed since the parent that is held; `base_cpu_s`: of one that must be read whole.
`growth_with_model`: `cpu_ms` at most rows to that at fewest, the largest of all deltas.
`extra_memory_ratio`: peak while deltas were taken to resident before. `stall_ms_max`: how long a
second thread, that wakes each millisecond, was kept from running, less what it sees when nothing is
loaded (`quiet_ms_max`), and less the time for which it, or the thread that loads, was ready and got
no processor (other processes' doing; Linux says it of each thread); `base_stall_ms_max` the same
while a base is loaded, `late_ms_max` with that time. `exact`: whether every key answered as the
deltas said, at each cut.
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
import numpy.typing as npt

from bench.measuring.machine import machine
from checkpointer.serving import ServedModel, load, rehearse
from checkpointer.store import Catalogue, Evaluation, Manifest, Part, open_store
from learners import ModelConfig
from learners.models import make_model
from paramserver import SLOTS, ChainProgress, Keys, Progress, Rows
from paramserver.parts import ServingPart, encode_serving

ROWS, CHANGED, TIMES = "1000000,5000000", "200,10000,100000", 7
FOLLOWED = 10_000
MODEL = make_model(ModelConfig(name="clicks", categorical=("source", "vendor", "item")))
TABLE = MODEL.spec.tables[0].name


class MadeCheckpoints:
    """Checkpoints as shards and checkpointer would write them, and what they say."""

    def __init__(self, rows: int, root: str) -> None:
        self.rng = np.random.default_rng(1)
        self.keys = np.unique(self.rng.integers(1, 1 << 63, rows, dtype=np.uint64))
        self.weights: Rows = self.rng.random((len(self.keys), 1), dtype=np.float32)
        self.living = np.ones(len(self.keys), np.bool_)
        self.catalogue = Catalogue(open_store(root), MODEL.name)
        self.head: Manifest | None = None

    def base(self) -> Manifest:
        return self._write([self._part(self.living, None, self.keys[:0])])

    def change(self, count: int) -> tuple[npt.NDArray[np.bool_], Keys]:
        """A tenth of the drawn rows die; those that died before come back."""
        chosen = np.sort(self.rng.choice(len(self.keys), count, replace=False))
        gone = chosen[::10]
        changed = np.union1d(np.setdiff1d(chosen, gone), np.flatnonzero(~self.living))
        changed = np.setdiff1d(changed, gone)
        self.weights[changed] = self.rng.random((len(changed), 1), dtype=np.float32)
        self.living[changed], self.living[gone] = True, False
        is_changed = np.zeros(len(self.keys), np.bool_)
        is_changed[changed] = True
        return is_changed, self.keys[gone]

    def delta(self, count: int, beside_a_base: bool = False) -> Manifest:
        changed, gone = self.change(count)
        assert self.head is not None
        parts = [self._part(changed, self.head.sha256, gone)]
        if beside_a_base:
            parts.insert(0, self._part(self.living, None, gone[:0]))
        return self._write(parts)

    def _part(self, which: Any, parent: str | None, gone: Keys) -> ServingPart:
        number = 0 if self.head is None else self.head.number + 1
        progress = Progress({"label/0": ChainProgress(number, 0, 0, number)}, {}, number, 0)
        slots = np.arange(SLOTS, dtype=np.int32)
        tables = {TABLE: (self.keys[which], self.weights[which])}
        gone_ = {} if parent is None else {TABLE: gone}
        return ServingPart(
            MODEL.name, MODEL.spec.digest, 0, slots, progress, tables, {}, parent, gone_
        )

    def _write(self, parts: list[ServingPart]) -> Manifest:
        head = self.head
        files = []
        for encoded in map(encode_serving, parts):
            files.append(encoded.file)
            number = 0 if head is None else head.number + 1
            path = f"{MODEL.name}/{number:08d}-c/{encoded.file.path}"
            self.catalogue.files.write(path, b"".join(encoded.pieces))
        kind = "full" if parts[0].parent is None else "delta"
        part = Part(0, "part-0.safetensors", "", 0, files[0].rows, 0, kind, tuple(files))
        self.head = Manifest(
            model=MODEL.name, number=0 if head is None else head.number + 1, cut="c",
            spec=MODEL.spec, model_config=MODEL.config.to_dict(), chains=parts[0].progress.chains,
            next_record={}, event_time_max_ms=0, created_ms=0, evaluation=Evaluation(),
            parent=None if head is None else head.sha256, code_version="", parts=(part,),
            parent_name="" if head is None else head.name,
        )  # fmt: skip
        self.catalogue.write_manifest(self.head)
        return self.head

    def is_exact(self, served: ServedModel) -> bool:
        """Whether the replica's rows are those of the story."""
        keys, rows = served.weights.tables[TABLE].items()
        return bool(
            np.array_equal(keys, self.keys[self.living])
            and np.array_equal(rows, self.weights[self.living])
        )


def without_processor_ms(thread: int) -> float:
    """For how long a thread of this process was ready, so far, and had to wait for a processor."""
    fields = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
    return int(fields[1]) / 1e6


class Ticker:
    """A thread that wakes each millisecond, and notes how late it was at most: in all, and less the
    time for which it or the thread that made it waited for a processor."""

    def __init__(self) -> None:
        self.late_ms, self.stalled_ms, self._stop = 0.0, 0.0, threading.Event()
        self._maker = threading.get_native_id()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        threads = (self._maker, threading.get_native_id())
        waited_ms = sum(map(without_processor_ms, threads))
        while not self._stop.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            late_ms = 1e3 * (time.perf_counter() - began) - 1
            before_ms, waited_ms = waited_ms, sum(map(without_processor_ms, threads))
            self.late_ms = max(self.late_ms, late_ms)
            self.stalled_ms = max(self.stalled_ms, late_ms - (waited_ms - before_ms))

    def __enter__(self) -> "Ticker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def take(
    story: MadeCheckpoints, manifest: Manifest, held: ServedModel | None
) -> tuple[ServedModel, float]:
    """The replica at this checkpoint, and CPU seconds."""
    catalogue = story.catalogue
    catalogue._manifests.pop(manifest.name, None)  # what a replica has not seen it reads
    began = time.process_time()
    served = load(catalogue, manifest.name, manifest.sha256, held)
    return served, time.process_time() - began


def measure(rows: int, changed: list[int], root: str) -> dict[str, Any]:
    story = MadeCheckpoints(rows, root)
    base, base_s = take(story, story.base(), None)
    body: dict[str, Any] = {"base_cpu_s": round(base_s, 3), "exact": story.is_exact(base)}
    with Ticker() as ticker:
        time.sleep(1.0)
    quiet_ms = ticker.stalled_ms
    body["quiet_ms_max"] = round(quiet_ms, 2)
    held, late_ms, stalled_ms = base, 0.0, 0.0
    del base
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    for count in changed:
        costs = []
        for _ in range(TIMES):
            manifest = story.delta(count)
            with Ticker() as ticker:
                held, cpu_s = take(story, manifest, held)
            late_ms = max(late_ms, ticker.late_ms)
            stalled_ms = max(stalled_ms, ticker.stalled_ms)
            costs.append(1e3 * cpu_s)
        body[str(count)] = {"cpu_ms": round(median(costs), 2), "allowed_ms": 2 + count / 1e3}
    body["extra_memory_ratio"] = round(status_bytes("VmHWM") / before, 3)
    body["exact"] &= story.is_exact(held)
    manifest = story.delta(FOLLOWED, beside_a_base=True)
    with Ticker() as ticker:
        held, cpu_s = take(story, manifest, held)
    body["base_followed_cpu_ms"] = round(1e3 * cpu_s, 2)
    body["exact"] &= story.is_exact(held) and held.upon != ""
    body["stall_ms_max"] = round(max(stalled_ms, ticker.stalled_ms) - quiet_ms, 2)
    body["late_ms_max"] = round(max(late_ms, ticker.late_ms), 2)
    with Ticker() as ticker:
        anew, _ = take(story, manifest, None)
    body["base_stall_ms_max"] = round(ticker.stalled_ms - quiet_ms, 2)
    body["exact"] &= story.is_exact(anew)
    return body


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--rows", default=ROWS, help=f"rows held, with commas between ({ROWS})")
    parser.add_argument("--changed", default=CHANGED, help=f"rows of a delta ({CHANGED})")
    options = parser.parse_args()
    rehearse(MODEL.spec, MODEL.config.to_dict())
    changed = [int(text) for text in options.changed.split(",")]
    sizes: dict[str, dict[str, Any]] = {}
    for rows in options.rows.split(","):
        with tempfile.TemporaryDirectory(prefix="swap-") as folder:
            sizes[rows] = measure(int(rows), changed, folder)
    first, *_, last = [*sizes.values(), *sizes.values()]
    growth = max(last[str(count)]["cpu_ms"] / first[str(count)]["cpu_ms"] for count in changed)
    body: dict[str, Any] = {"bench": "swap", "rows": sizes, "growth_with_model": round(growth, 2)}
    for name in ("extra_memory_ratio", "stall_ms_max", "base_stall_ms_max", "late_ms_max"):
        body[name] = max(size[name] for size in sizes.values())
    body |= {"exact": all(size["exact"] for size in sizes.values()), "machine": machine()}
    print(
        json.dumps(
            body | {"load": round(os.getloadavg()[0], 1)}, indent=None if options.json else 2
        )
    )


if __name__ == "__main__":
    main()
