"""Bytes a row, pauses while growing and rows per second of one table in process, at 1, 10 and 50
million rows.

    python -m bench.table [--rows 1000000,10000000,50000000] [--json]

Keys are hashes, uniform over all rows, none twice in a batch; rows are 16 float32 with element-wise
Adagrad, so 128 bytes of payload. Each number of rows has a process of its own, which fills a table
from nothing by pushes of 32,000 new rows and measures: resident memory over the same process before
the table, by bytes of payload, after growth and at its highest; the longest push less the median
one while growing, in CPU time of the thread and by the clock; then rows/s, pulled and pushed once
each, over batches of 32,000 rows drawn from all. A sample of rows is compared with the formula
(`formula_error`, relative) after that. `by_storage` is the same of 1,000,000 rows in each storage,
bytes still by those of float32's payload; `ratio_bytes_16bit` and `ratio_rows_per_s_16bit` are
float16/bfloat16 to float32. `ratio_kernels_numpy` is another process: Zipf(1.05) batches of about
32,000 unique rows out of 1,000,000, one thread, in turns with bench/baselines/numpy_adagrad.py,
medians of rounds. Takes about 2 minutes and 9 GB.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.baselines.numpy_adagrad import NumpyAdagrad
from bench.measuring.machine import machine
from paramserver import Keys, Rows, TableSpec
from paramserver.process import warm_up
from paramserver.tables import STORAGES, Table

RATE, ACCUMULATOR, EPSILON = 0.05, 0.1, 1e-8
BATCH, CHECKED = 32_000, 2_000
#: Distinct gradients: those of row `id` are the row `id % GRADIENTS` of a table of them.
GRADIENTS = 4_096
STEADY_ROUNDS, STEADY_BATCHES = 5, 16
NUMPY_ROWS, NUMPY_BATCHES, NUMPY_ROUNDS = 1_000_000, 8, 9
#: What the figures are to be.
BYTES_PER_PAYLOAD_BYTE_MAX, RATIO_50M_1M_MIN, PAUSE_MS_MAX, RATIO_NUMPY_MIN = 1.25, 0.5, 50, 2.0

Ids = npt.NDArray[np.int64]


def keys_of(ids: Ids) -> Keys:
    """Distinct 64-bit hashes (the finalizer of splitmix64 is a bijection)."""
    with np.errstate(over="ignore"):
        x = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ x >> np.uint64(31))


def by_key(ids: Ids) -> tuple[Keys, Ids]:
    """Keys as they travel, rising, and the ids in that order."""
    keys = keys_of(ids)
    order = np.argsort(keys)
    return keys[order], ids[order]


def gradients(dim: int) -> Rows:
    rng = np.random.default_rng(5)
    return np.asarray(
        rng.choice([-1, 1], (GRADIENTS, dim)) * rng.uniform(0.01, 0.1, (GRADIENTS, dim)), np.float32
    )


def expected(gradient: Rows, pushes: Ids) -> npt.NDArray[np.float64]:
    """Weights from zero after so many pushes of the same gradients (n, dim), in float64."""
    g = gradient.astype(np.float64)
    weight, total = np.zeros_like(g), np.full_like(g, ACCUMULATOR)
    for step in range(1, int(pushes.max()) + 1):
        total += g**2
        weight -= np.where((pushes >= step)[:, None], RATE * g / (np.sqrt(total) + EPSILON), 0)
    return weight


def formula_error(found: Rows, wanted: npt.NDArray[np.float64]) -> float:
    return float(np.max(np.abs(found - wanted) / np.abs(wanted)))


def new_table(dim: int, storage: str = "float32") -> Table:
    options = {"rate": RATE, "accumulator": ACCUMULATOR, "epsilon": EPSILON}
    return Table(TableSpec("bench", dim, "adagrad", options, storage=storage))


def push(table: Table, keys: Keys, gradient: Rows, version: int) -> None:
    """What a shard does with one table of a push."""
    table.reserve(keys)
    table.advance(version, 1000 * version, len(keys))
    table.apply(keys, gradient, version, 1000 * version)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def sized(rows: int, dim: int, storage: str = "float32") -> dict[str, Any]:
    """All figures of one number of rows."""
    table, of = new_table(dim, storage), gradients(dim)
    empty, highest = resident_bytes(), 0
    cpu_ms, wall_ms = [], []
    for first in range(0, rows, BATCH):
        keys, ids = by_key(np.arange(first, min(first + BATCH, rows)))
        gradient = of[ids % GRADIENTS]
        wall, cpu = time.perf_counter(), time.thread_time()
        push(table, keys, gradient, 1 + first // BATCH)
        cpu_ms.append(1e3 * (time.thread_time() - cpu))
        wall_ms.append(1e3 * (time.perf_counter() - wall))
        del keys, ids, gradient  # the batch is not the table's
        highest = max(highest, resident_bytes())
    resident = resident_bytes() - empty
    payload = rows * 2 * 4 * dim
    rng = np.random.default_rng(rows)
    version, touched, rates = len(cpu_ms), [], []
    for _ in range(STEADY_ROUNDS):
        batches = [by_key(np.unique(rng.integers(0, rows, BATCH))) for _ in range(STEADY_BATCHES)]
        work = [(keys, of[ids % GRADIENTS]) for keys, ids in batches]
        touched += [ids for _, ids in batches]
        started = time.perf_counter()
        for keys, gradient in work:
            version += 1
            table.pull(keys)
            push(table, keys, gradient, version)
        rates.append(sum(len(keys) for keys, _ in work) / (time.perf_counter() - started))
    seen, times = np.unique(np.concatenate(touched), return_counts=True)
    some = rng.choice(len(seen), CHECKED)
    found = table.pull(keys_of(seen[some]))
    return {
        "rows": len(table),
        "bytes_per_payload_byte": round(resident / payload, 3),
        "bytes_per_payload_byte_while_growing": round((highest - empty) / payload, 3),
        "fill_rows_per_s": round(rows / (1e-3 * sum(wall_ms))),
        "push_ms": round(float(np.median(cpu_ms)), 2),
        "longest_pause_ms": round(max(cpu_ms) - float(np.median(cpu_ms)), 2),
        "longest_pause_wall_ms": round(max(wall_ms) - float(np.median(wall_ms)), 2),
        "rows_per_s": round(float(np.median(rates))),
        "rows_per_s_worst": round(min(rates)),
        "formula_error": formula_error(
            found, expected(of[seen[some] % GRADIENTS], times[some] + 1)
        ),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def beside_numpy(dim: int) -> dict[str, Any]:
    """Our kernels and numpy's on the same batches, in turns, one thread each."""
    rng, of = np.random.default_rng(9), gradients(dim)
    weight = np.cumsum(np.arange(1, NUMPY_ROWS + 1, dtype=np.float64) ** -1.05)
    id_of = rng.permutation(NUMPY_ROWS)
    drawn = [
        np.searchsorted(weight, rng.random(4_096 * 26) * weight[-1]) for _ in range(NUMPY_BATCHES)
    ]
    dense_ids = [np.unique(id_of[ranks]) for ranks in drawn]
    dense = [(ids, of[ids % GRADIENTS]) for ids in dense_ids]
    ours = [(keys, of[ids % GRADIENTS]) for keys, ids in map(by_key, dense_ids)]
    rows = sum(len(ids) for ids in dense_ids)
    table, numpy = new_table(dim), NumpyAdagrad(NUMPY_ROWS, dim, RATE, ACCUMULATOR, EPSILON)
    for first in range(0, NUMPY_ROWS, BATCH):
        keys, ids = by_key(np.arange(first, min(first + BATCH, NUMPY_ROWS)))
        push(table, keys, of[ids % GRADIENTS], 1 + first // BATCH)
    every = np.arange(NUMPY_ROWS)
    numpy.push(every, of[every % GRADIENTS])
    version, rates = NUMPY_ROWS, []
    for _ in range(NUMPY_ROUNDS + 1):
        began = time.perf_counter()
        for keys, gradient in ours:
            version += 1
            table.pull(keys)
            push(table, keys, gradient, version)
        between = time.perf_counter()
        for ids, gradient in dense:
            numpy.pull(ids)
            numpy.push(ids, gradient)
        rates.append((rows / (between - began), rows / (time.perf_counter() - between)))
    kernels, baseline = np.median(rates[1:], axis=0)
    seen, times = np.unique(np.concatenate(dense_ids), return_counts=True)
    some = rng.choice(len(seen), CHECKED)
    wanted = expected(of[seen[some] % GRADIENTS], 1 + (NUMPY_ROUNDS + 1) * times[some])
    return {
        "rows_per_batch": rows // NUMPY_BATCHES,
        "kernels_rows_per_s": round(kernels),
        "numpy_rows_per_s": round(baseline),
        "numpy": np.__version__,
        "ratio_kernels_numpy": round(float(np.median([a / b for a, b in rates[1:]])), 2),
        "formula_error": formula_error(table.pull(keys_of(seen[some])), wanted),
        "formula_error_numpy": formula_error(numpy.pull(seen[some]), wanted),
    }


def in_own_process(part: str, dim: int, storage: str = "float32") -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "bench.table",
        "--part",
        part,
        "--dim",
        str(dim),
        "--storage",
        storage,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def report(sizes: list[int], dim: int) -> dict[str, Any]:
    found = {rows: in_own_process(str(rows), dim) for rows in sizes}
    numpy = in_own_process("numpy", dim)
    figures = {
        "bytes_per_payload_byte": max(size["bytes_per_payload_byte"] for size in found.values()),
        "longest_pause_ms": max(size["longest_pause_ms"] for size in found.values()),
        "longest_pause_wall_ms": max(size["longest_pause_wall_ms"] for size in found.values()),
        "ratio_kernels_numpy": numpy["ratio_kernels_numpy"],
    }
    if {1_000_000, 50_000_000} <= set(sizes):
        figures["ratio_50m_1m"] = round(
            found[50_000_000]["rows_per_s"] / found[1_000_000]["rows_per_s"], 3
        )
    others = {
        width: in_own_process("1000000", width)["bytes_per_payload_byte"]
        for width in (4, 8, 32, 64)
    }
    halved = {storage: in_own_process("1000000", dim, storage) for storage in STORAGES}
    by_storage = {
        storage: {
            name: size[name] for name in ("bytes_per_payload_byte", "rows_per_s", "formula_error")
        }
        for storage, size in halved.items()
    }
    figures["ratio_rows_per_s_16bit"] = round(
        by_storage["float16/bfloat16"]["rows_per_s"] / by_storage["float32"]["rows_per_s"], 3
    )
    figures["ratio_bytes_16bit"] = round(
        by_storage["float16/bfloat16"]["bytes_per_payload_byte"]
        / by_storage["float32"]["bytes_per_payload_byte"],
        3,
    )
    return figures | {
        "sizes": found,
        "numpy": numpy,
        "by_storage": by_storage,
        "bytes_per_payload_byte_by_dim": others,
        "machine": machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="1000000,10000000,50000000")
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument(
        "--storage", default="float32", choices=STORAGES, help="of a part that is measured alone"
    )
    parser.add_argument(
        "--part", default="", help="measure this number of rows, or `numpy`, in this very process"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.part:
        warm_up()
        print(
            json.dumps(
                beside_numpy(args.dim)
                if args.part == "numpy"
                else sized(int(args.part), args.dim, args.storage)
            )
        )
        return
    figures = report([int(rows) for rows in args.rows.split(",")], args.dim)
    if args.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        if name not in ("sizes", "by_storage"):
            print(f"{name:28} {value}")
    for rows, size in figures["sizes"].items():
        print(
            f"{rows:>12,} rows",
            "  ".join(f"{name} {value:,}" for name, value in size.items() if name != "rows"),
        )


if __name__ == "__main__":
    main()
