"""A catalogue with more rows than memory is given: what reading it takes, and what it gives.

    python -m bench.catalogue_rows [--rows 1000000] [--bytes-max 268435456] [--json]

Rows of a title of 60 bytes, a list of three and a number go through a labeler's reading of a
catalogue (`labeler.catalogues`), with heartbeats between them; one in ten is written again later.
Then batches of 1,000 impressions of random items are joined. `read_us` is CPU time a record,
`join_us` an impression; `process_mb` is what the process has grown by. Rows lie in a
RocksDB in a temporary folder, and --bytes-max of them in memory too. Takes 1 CPU minute and 0.5 GB
for a million rows.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.measuring.machine import machine
from labeler.catalogues import CatalogueBegin, JoinedCatalogues
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Record, StreamConfig
from stream.columns import Feature, Impressions, impression_schema
from stream.decoding.catalogues import HEARTBEAT_KEY
from stream.log.rows import RocksStorage, StoredRows

START_MS, CHUNK, BATCHES, BATCH_ROWS = 1_700_000_000_000, 2_000, 200, 1_000
WORDS = "abcdefghij klmnopqrst uvwxyz"
DECLARED = {
    "title": Feature(kind="text", catalogue="items"),
    "tags": Feature(kind="list", catalogue="items"),
    "price": Feature(kind="numeric", catalogue="items"),
}


def records(rows: int, rng: np.random.Generator) -> Iterator[list[Record]]:
    """In chunks, a heartbeat at the end of each."""
    again, offset = rng.integers(0, rows, rows // 10), 0
    keys = np.concatenate([np.arange(rows), again])
    for at in range(0, len(keys), CHUNK):
        chunk, ms = [], START_MS + at
        for key in keys[at : at + CHUNK].tolist():
            title = f"{WORDS[key % 20 :]} {key} {WORDS[key % 7 :]} again"[:60]
            value = {"title": title, "tags": ["one", "two", f"t{key % 99}"], "price": key / 7}
            chunk.append(Record(offset, ms, f"item-{key}".encode(), json.dumps(value).encode()))
            offset += 1
        headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(ms).encode()))
        chunk.append(Record(offset, ms, HEARTBEAT_KEY, None, headers))
        offset += 1
        yield chunk


def impressions(rows: int, ms: int, rng: np.random.Generator) -> Impressions:
    """Of random items, one in fifty unknown."""
    n, nobody = BATCH_ROWS, np.zeros(BATCH_ROWS, np.uint64)
    items = [f"item-{key}" for key in rng.integers(0, rows + rows // 50, n).tolist()]
    schema = impression_schema(())
    empty: dict[str, Any] = {f.name: [""] * n for f in schema if pa.types.is_string(f.type)}
    empty |= {f.name: [0] * n for f in schema if not pa.types.is_string(f.type)}
    table = pa.table(empty | {"item": items}, schema=schema)
    times = np.full(n, ms)
    return Impressions(np.arange(n), times, times, nobody, nobody, nobody, table)


def measure(rows: int, bytes_max: int, folder: Path) -> dict[str, Any]:
    stream = StreamConfig(declared=DECLARED)
    rng, grown_from = np.random.default_rng(1), peak_mb()
    held = StoredRows(RocksStorage(folder / "rows"), bytes_max)
    joined = JoinedCatalogues(stream, lambda name: held, {"items": CatalogueBegin(0)})
    read_s = join_s = 0.0
    count, end_ms = 0, START_MS + 2 * rows
    joined.need(0, end_ms)
    for chunk in records(rows, rng):
        began = time.process_time()
        joined.read("items", chunk)
        read_s += time.process_time() - began
        count += len(chunk)
    for _ in range(BATCHES):
        batch = impressions(rows, end_ms, rng)
        began = time.process_time()
        joined.joined(batch)
        join_s += time.process_time() - began
    found = {
        "rows": rows,
        "bytes_max": bytes_max,
        "held_bytes": held.memory_bytes,
        "misses": held.misses,
        "process_mb": round(peak_mb() - grown_from),
        "read_us": round(1e6 * read_s / count, 2),
        "join_us": round(1e6 * join_s / BATCHES / BATCH_ROWS, 2),
    }
    joined.close()
    return found


def peak_mb() -> float:
    """Most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bytes-max", type=int, default=268_435_456)
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.rows, options.bytes_max, Path(folder))
    print(
        json.dumps(
            {"bench": "catalogue_rows", **found, "machine": machine()},
            indent=None if options.json else 2,
        )
    )


if __name__ == "__main__":
    main()
