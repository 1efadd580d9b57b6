"""What counters and sequences cost an impression in the labeler, CPU time, one thread.

    python -m bench.kept [--json] [--impressions 1000000] [--users 200000]

Labelled rows of a shop, a tenth of them clicked, 1,000 a second of arrival over four partitions,
users and items of a long tail; in records of 4,096 rows and buckets of a minute. `add_us` is what
the adder takes to add a row up, buckets closed and encoded; `join_us` what a labeler takes to read
those records and to join one impression; of two counters (of item and of user) alone, of a sequence
of 20 items by user with its ages alone, and of both, whose sum is `state_us`. Before it, every user
has `--held` clicks, so that the state is as large as it would be later. `state_bytes`: of the
sequence; `published_bytes`: of a bucket. Takes 3 CPU minutes and 1.5 GB.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from bench.measuring.machine import machine
from labeler.counts import Adder, JoinedCounts
from stream import Record, StreamConfig, position
from stream.columns import Feature, Impressions, impression_schema
from stream.internal_topics import BatchHeader, encode_counts, encode_examples, examples_schema

IMPRESSIONS, USERS, HELD = 1_000_000, 200_000, 10
PARTITIONS, ROWS, ITEMS, A_SECOND, CLICKED, SEED = 4, 4_096, 100_000, 1_000, 0.1, 1
START_MS = 1_700_000_000_000
COUNTERS = {
    "item_rate": Feature(kind="counter", of="item"),
    "user_clicks": Feature(kind="counter", of="source", gives="clicks"),
}
SEQUENCES = {
    "clicked": Feature(kind="sequence", by="source", of="item", max_values=20),
    "ages": Feature(kind="sequence", by="source", of="item", max_values=20, ages=True),
}


def long_tail(rng: np.random.Generator, values: int, rows: int) -> Any:
    """(rows,) ranks from 0 on: a few values often, most of them seldom."""
    return (values ** rng.random(rows)).astype(np.int64) - 1


def rows_of(
    rng: np.random.Generator, users: Any, items: Any, arrival_ms: Any, clicked: Any
) -> pa.RecordBatch:
    """Rows of `examples`."""
    n = len(users)
    columns = {
        "source": pa.array([f"user-{i}" for i in range(int(users.max()) + 1)]).take(users),
        "item": pa.array([f"item-{i}" for i in range(int(items.max()) + 1)]).take(items),
        "arrival_ms": pa.array(arrival_ms),
        "ts_ms": pa.array(arrival_ms - 200),
        "click_delay_ms": pa.array(np.where(clicked, rng.integers(0, 60_000, n), -1)),
        "label": pa.array(clicked.astype(np.int8)),
        "position": pa.array(np.arange(n)),
    }
    schema = examples_schema(())
    arrays = [columns[f.name] if f.name in columns else _nothing(f, n) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _nothing(field: pa.Field, n: int) -> pa.Array:
    text = pa.types.is_string(field.type)
    return pa.array([""] * n) if text else pa.array(np.zeros(n)).cast(field.type)


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
        p, number = i % PARTITIONS, i // PARTITIONS
        ends = {"start": position(number * ROWS), "end": position((number + 1) * ROWS)}
        at = position(number * ROWS) + np.arange(batch.num_rows)
        batch = batch.set_column(0, batch.schema.field(0), pa.array(at))
        said = {"schema_id": "", "config_hash": "", "labelled": batch.num_rows}
        header = BatchHeader(f"label/{p}", arrival_max_ms=arrival_ms, **ends, **said)  # type: ignore[arg-type]
        yield p, Record(number, 0, None, encode_examples(batch), header.to_headers())


def impressions_of(batch: pa.RecordBatch, wait_ms: int) -> Impressions:
    """The same, as they arrive when all of this is labelled."""
    schema, n = impression_schema(()), batch.num_rows
    table = pa.Table.from_arrays(
        [batch.column(f.name) if f.name in batch.schema.names else _nothing(f, n) for f in schema],
        schema=schema,
    )
    arrival_ms = batch.column("arrival_ms").to_numpy() + wait_ms
    hashes = np.zeros(n, np.uint64)
    return Impressions(np.arange(n), arrival_ms, arrival_ms, hashes, hashes, hashes, table)


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
    found["state_bytes"] = sum(one.rows.memory for one in adder.sequences.values())
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
    asked = parser.parse_args()
    said = {"bench": "kept", "impressions": asked.impressions, "users": asked.users}
    found = said | measured(asked.impressions, asked.users, asked.held) | {"machine": machine()}
    print(json.dumps(found, indent=None if asked.json else 2))


if __name__ == "__main__":
    main()
