"""Rows per second through one table in process: pull and push of unique keys, without wire or
locks.

    python -m bench.pushpull_kernels [--rows 1000000] [--dim 16] [--batch 16384] [--json]

Each round visits all rows once in random order, in batches of sorted keys as learners send them.
`rows_per_s` counts a row that was pulled and pushed once. Takes about 20 s and 0.5 GB with the
defaults.
"""

import argparse
import json
import time

import numpy as np

from paramserver import TableSpec
from paramserver.tables import Table


def timed_round(
    table: Table, batches: list[np.ndarray], gradients: np.ndarray, version: int
) -> tuple[float, float]:
    """(pull, push) seconds over all batches."""
    pull_s = push_s = 0.0
    for keys in batches:
        started = time.perf_counter()
        table.pull(keys)
        pulled = time.perf_counter()
        table.reserve(keys)
        table.apply(keys, gradients[: len(keys)], version, version)
        push_s += time.perf_counter() - pulled
        pull_s += pulled - started
    return pull_s, push_s


def measure(optimizer: str, rows: int, dim: int, batch: int, rounds: int = 5) -> dict[str, float]:
    rng = np.random.default_rng(1)
    keys = np.unique(rng.integers(0, 1 << 63, rows).astype(np.uint64))
    gradients = rng.normal(0, 0.01, (batch, dim)).astype(np.float32)
    table = Table(TableSpec("bench", dim, optimizer, init_scale=0.01))
    seconds = []
    for version in range(rounds + 1):
        order = rng.permutation(keys)
        batches = [np.sort(order[i : i + batch]) for i in range(0, len(order), batch)]
        seconds.append(timed_round(table, batches, gradients, version))
    fill_s = sum(seconds[0])
    pull_s, push_s = np.median(seconds[1:], axis=0)
    spread = [sum(s) for s in seconds[1:]]
    return {
        "rows": len(keys),
        "fill_rows_per_s": round(len(keys) / fill_s),
        "pull_rows_per_s": round(len(keys) / pull_s),
        "push_rows_per_s": round(len(keys) / push_s),
        "rows_per_s": round(len(keys) / float(np.median(spread))),
        "rows_per_s_worst": round(len(keys) / max(spread)),
        "bytes_per_row": round(table.nbytes / len(keys)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16_384, help="unique keys a pull and a push")
    parser.add_argument("--optimizers", default="adagrad,ftrl,sgd,adam")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {
        name: measure(name, args.rows, args.dim, args.batch) for name in args.optimizers.split(",")
    }
    if args.json:
        print(json.dumps(results))
        return
    for name, figures in results.items():
        print(f"{name:8}", "  ".join(f"{key} {value:,}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
