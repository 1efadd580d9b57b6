"""Rows of a shop, as labelled and as they arrive, for what counters and sequences cost."""

from typing import Any

import numpy as np
import pyarrow as pa

from stream import Record, position
from stream.columns import Feature, Impressions, impression_schema
from stream.internal_topics import BatchHeader, encode_examples, examples_schema

PARTITIONS, ROWS, A_SECOND, CLICKED = 4, 4_096, 1_000, 0.1
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


def named(what: str, ranks: Any) -> pa.Array:
    """(n,) the ids of these."""
    return pa.array([f"{what}-{i}" for i in ranks.tolist()])


def rows_of(
    rng: np.random.Generator, users: Any, items: Any, arrival_ms: Any, clicked: Any
) -> pa.RecordBatch:
    """Rows of `examples`."""
    n = len(users)
    columns = {
        "source": named("user", users),
        "item": named("item", items),
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


def record_of(batch: pa.RecordBatch, arrival_ms: int, partition: int, number: int) -> Record:
    """The record of `examples` of these rows, the so many-th of its partition."""
    ends = {"start": position(number * ROWS), "end": position((number + 1) * ROWS)}
    at = position(number * ROWS) + np.arange(batch.num_rows)
    batch = batch.set_column(0, batch.schema.field(0), pa.array(at))
    said = {"schema_id": "", "config_hash": "", "labelled": batch.num_rows}
    header = BatchHeader(f"label/{partition}", arrival_max_ms=arrival_ms, **ends, **said)  # type: ignore[arg-type]
    return Record(number, 0, None, encode_examples(batch), header.to_headers())


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
