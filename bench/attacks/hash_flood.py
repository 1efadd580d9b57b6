"""How much a flood of keys that are made to collide slows down a shard's table: its inserts, and
what others pull.

    python -m bench.hash_flood [--json] [--keys 40960] [--repeats 5]

Beside 200,000 random rows, which are everybody else's, come as many keys as are said: random ones,
and such as somebody makes who knows the hash and how long its secret is, but not the secret; and
who knows the secret (he then fills many runs of cells just below the guard, and beside them shares
one tag; `paramserver/tables/hash_index.py`). Ratios are of medians of CPU time over those of random
keys. Takes about a minute and 0.3 GB.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from paramserver import TableSpec
from paramserver.tables import DISTANCE_MAX, Table
from stream.kernels import U64

SECRET, GUESSED = 0x5EC2E7, 0
OTHERS, STEP = 200_000, 4_096
_BACK = [pow(factor, -1, 1 << 64) for factor in (0xC4CEB9FE1A85EC53, 0xFF51AFD7ED558CCD)]


def keys_of(hashes: U64, seed: int) -> U64:
    """The keys that the index hashes to these under a seed."""
    h = hashes.copy()
    for factor in _BACK:
        h ^= h >> np.uint64(33)
        h *= np.uint64(factor)
    found: U64 = (h ^ (h >> np.uint64(33))) ^ np.uint64(seed & (1 << 64) - 1)
    return found


def one_tag(count: int, seed: int) -> U64:
    return keys_of(
        np.arange(1, count + 1, dtype=np.uint64) << np.uint64(32) | np.uint64(0x12345678), seed
    )


def runs(count: int, seed: int, rng: np.random.Generator) -> U64:
    """Runs of cells just below the guard, each of one home and of tags that differ."""
    length = DISTANCE_MAX * 3 // 4
    starts = rng.integers(0, 1 << 31, count // length + 1, dtype=np.uint64)
    tags = (starts[:, None] + np.arange(length, dtype=np.uint64)[None, :]).reshape(-1)[:count]
    return keys_of(tags | rng.integers(1, 1 << 30, count, dtype=np.uint64) << np.uint64(32), seed)


def measured(
    craft: Callable[[Table, int], U64], count: int, repeats: int
) -> tuple[float, float, float]:
    """Median CPU ms of inserting the keys, of a pull of others' rows, and of a pull of the keys
    themselves."""
    found = []
    for repeat in range(repeats):
        table, rng = (
            Table(TableSpec("flood", 8, "adagrad", {"rate": 0.1}), secret=SECRET),
            np.random.default_rng(repeat),
        )
        others = np.unique(rng.integers(1, 1 << 63, OTHERS, dtype=np.uint64))
        _insert(table, rng.permutation(others), 1)
        keys = np.setdiff1d(craft(table, repeat), others)
        began = time.process_time()
        _insert(table, np.random.default_rng(repeat).permutation(keys), 1_000)
        inserted = time.process_time() - began
        found.append((inserted, _pull(table, others, rng), _pull(table, keys, rng)))
    insert, theirs, own = (1_000 * float(np.median(column)) for column in zip(*found, strict=True))
    return insert, theirs, own


def _insert(table: Table, keys: U64, version: int) -> None:
    ones = np.ones((STEP, 8), np.float32)
    for number, at in enumerate(range(0, len(keys), STEP)):
        some = np.sort(keys[at : at + STEP])
        table.pull(some)
        table.reserve(some)
        table.advance(version + number, 1_000, len(some), 1_000, version + number)
        table.apply(some, ones[: len(some)], version + number, 1_000)


def _pull(table: Table, keys: U64, rng: np.random.Generator) -> float:
    times = []
    for _ in range(20):
        some = np.sort(rng.choice(keys, STEP, replace=False))
        began = time.process_time()
        table.pull(some)
        times.append(time.process_time() - began)
    return float(np.median(times))


def figures(count: int, repeats: int) -> dict[str, object]:
    def random(_: Table, repeat: int) -> U64:
        return np.random.default_rng(100 + repeat).integers(1, 1 << 63, count, dtype=np.uint64)

    guess = int(Table(TableSpec("guess", 1, "sgd"), secret=GUESSED)._row_store.index.span[2])
    crafted: dict[str, Callable[[Table, int], U64]] = {
        "without_secret": lambda _, repeat: one_tag(count, guess),
        "with_secret_runs": lambda table, repeat: runs(
            count, int(table._row_store.index.span[2]), np.random.default_rng(repeat)
        ),
        "with_secret_one_tag": lambda table, repeat: one_tag(
            count, int(table._row_store.index.span[2])
        ),
    }
    measured(random, min(count, 8_192), 1)  # compiles
    base = measured(random, count, repeats)
    found: dict[str, object] = {"random_ms": [round(ms, 4) for ms in base]}
    for name, craft in crafted.items():
        ratios = [
            a / max(b, 1e-6) for a, b in zip(measured(craft, count, repeats), base, strict=True)
        ]
        for what, ratio in zip(("insert", "others_pull", "own_pull"), ratios, strict=True):
            found[f"{name}_{what}_ratio"] = round(ratio, 2)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keys", type=int, default=40_960, help="keys of the flood (40,960)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="tables that each is measured in (5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    found = {"bench": "hash_flood", "keys": chosen.keys} | figures(chosen.keys, chosen.repeats)
    print(json.dumps(found) if chosen.json else json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
