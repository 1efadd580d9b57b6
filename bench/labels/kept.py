"""What counters and sequences cost an impression in the labeler, CPU time, one thread.

    python -m bench.kept [--json] [--impressions 1000000] [--users 200000]
    python -m bench.kept --keys 10000000 [--json] [--impressions 300000] [--slices 60]

Labelled rows of a shop, a tenth of them clicked, 1,000 a second of arrival over four partitions,
users and items of a long tail; in records of 4,096 rows and buckets of a minute. `add_us` is what
the adder takes to add a row up, buckets closed and encoded; `join_us` what a labeler takes to read
those records and to join one impression; of two counters (of item and of user) alone, of a sequence
of 20 items by user with its ages alone, and of both, whose sum is `state_us`. Before it, every user
has `--held` clicks, so that the state is as large as it would be later. `state_bytes`: memory of
the rows; `published_bytes`: of a bucket. Takes 3 CPU minutes and 1.5 GB.

With `--keys` (`bench.labels.kept_keys`) so many items and users are kept from the beginning, on
disk, and as many items stand in a catalogue; memory is bounded by the labeler's defaults.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from bench.labels.kept_keys import kept_keys
from bench.labels.kept_rows import (
    A_SECOND,
    CLICKED,
    COUNTERS,
    PARTITIONS,
    ROWS,
    SEQUENCES,
    START_MS,
    impressions_of,
    long_tail,
    record_of,
    rows_of,
)
from bench.measuring.machine import machine
from labeler.counts import Adder, JoinedCounts
from stream import Record, StreamConfig
from stream.columns import Feature
from stream.internal_topics import encode_counts

IMPRESSIONS, USERS, HELD = 1_000_000, 200_000, 10
KEYS_IMPRESSIONS = 300_000
ITEMS, SEED = 100_000, 1


def shop(impressions: int, users: int, held: int) -> list[tuple[pa.RecordBatch, int]]:
    """(rows of a record, its arrival maximum), in order: first the clicks that everybody has."""
    rng, out, at_ms = np.random.default_rng(SEED), list[tuple[pa.RecordBatch, int]](), START_MS
    for n in [ROWS] * (users * held // ROWS) + [0] * PARTITIONS + [ROWS] * (impressions // ROWS):
        before = len(out) < users * held // ROWS
        if not n:
            at_ms += 60_000
            out.append(
                (
                    rows_of(
                        rng, *(np.zeros(1, np.int64),) * 2, np.full(1, at_ms), np.zeros(1, bool)
                    ),
                    at_ms,
                )
            )
            continue
        who = rng.integers(0, users, n) if before else long_tail(rng, users, n)
        span_ms = 10 if before else n * 1_000 // A_SECOND
        arrived = at_ms + np.sort(rng.integers(0, span_ms, n))
        clicked = np.ones(n, np.bool_) if before else rng.random(n) < CLICKED
        at_ms += span_ms
        out.append((rows_of(rng, who, long_tail(rng, ITEMS, n), arrived, clicked), at_ms))
    return out


def records_of(rows: list[tuple[pa.RecordBatch, int]]) -> Iterator[tuple[int, Record]]:
    """(partition, record of `examples`)."""
    for i, (batch, arrival_ms) in enumerate(rows):
        yield i % PARTITIONS, record_of(batch, arrival_ms, i % PARTITIONS, i // PARTITIONS)


def measure(declared: dict[str, Feature], rows: list[Any], first: int) -> dict[str, float]:
    """Of the rows from the record `first` on."""
    stream = StreamConfig(partitions=PARTITIONS, window_ms=600_000, grace_ms=0, declared=declared)
    adder, index = Adder(stream), JoinedCounts(stream, 0)
    index.need(0, START_MS + stream.wait_ms)
    impressions = sum(batch.num_rows for batch, _ in rows[first:])
    add_s = join_s = 0.0
    offset = published = buckets = 0
    for i, (p, record) in enumerate(records_of(rows)):
        began = time.process_time()
        adder.take(p, record)
        closed = adder.step()
        adder.commit()
        values = [v for one in closed for v in encode_counts(one, stream.record_bytes_max)]
        took = time.process_time() - began
        add_s += took if i >= first else 0.0
        batch = impressions_of(rows[i][0], stream.wait_ms - 240_000)
        began = time.process_time()
        index.read(Record(offset + k, 0, None, *value) for k, value in enumerate(values))
        if i >= first:
            index.need(0, int(batch.arrival_ms[0]))
            index.joined(batch)
            join_s += time.process_time() - began
        offset += len(values)
        published += sum(len(value) for value, _ in values) if i >= first else 0
        buckets += sum(not one.quiet for one in closed) if i >= first else 0
    found = {"add_us": 1e6 * add_s / impressions, "join_us": 1e6 * join_s / impressions}
    found["published_bytes"] = published / max(buckets, 1)
    found["state_bytes"] = adder.state.memory_bytes
    return {name: round(value, 2) for name, value in found.items()}


def measured(impressions: int, users: int, held: int) -> dict[str, Any]:
    """Counters alone, sequences alone, both, and the sum of both."""
    rows = shop(impressions, users, held)
    first = users * held // ROWS + PARTITIONS
    kinds = {"counters": COUNTERS, "sequences": SEQUENCES, "both": COUNTERS | SEQUENCES}
    found: dict[str, Any] = {n: measure(declared, rows, first) for n, declared in kinds.items()}
    return found | {"state_us": round(found["both"]["add_us"] + found["both"]["join_us"], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--impressions", type=int, default=IMPRESSIONS)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--held", type=int, default=HELD, help="clicks that each has before")
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--keys", type=int, default=0, help="kept from the beginning, on disk")
    parser.add_argument("--slices", type=int, default=60, help="with --keys: counts_slices")
    asked = parser.parse_args()
    if asked.keys:
        impressions = min(asked.impressions, KEYS_IMPRESSIONS)
        found = kept_keys(asked.keys, impressions, asked.slices)
    else:
        said = {"bench": "kept", "impressions": asked.impressions, "users": asked.users}
        found = said | measured(asked.impressions, asked.users, asked.held)
    print(json.dumps(found | {"machine": machine()}, indent=None if asked.json else 2))


if __name__ == "__main__":
    main()
