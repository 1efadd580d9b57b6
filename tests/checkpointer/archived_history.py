"""Made-up records of `examples`, for tests of the archive."""

import numpy as np
import pyarrow as pa

from stream import Record
from stream.columns import LIST, VECTOR, FeatureColumn
from stream.internal_topics import BatchHeader, encode_examples, examples_schema

HOUR = 3_600_000
FEATURES = (FeatureColumn("tags", LIST), FeatureColumn("vector", VECTOR, width=2))
BEGIN = 1_750_000_000_000 // HOUR * HOUR


def rows(start: int, count: int, ts_ms: int) -> pa.RecordBatch:
    rng = np.random.default_rng(start)
    columns = {
        "position": np.arange(start, start + count),
        "ts_ms": ts_ms + np.arange(count),
        "arrival_ms": ts_ms + np.arange(count) + 5,
        "label": rng.integers(0, 2, count).astype(np.int8),
        "click_delay_ms": np.full(count, -1),
        "weight": np.ones(count, np.float32),
        "source": [f"u{u}" for u in rng.integers(0, 5, count)],
        "vendor": ["v"] * count,
        "item": [f"i{i}" for i in rng.integers(0, 10, count)],
        "shown_at": np.zeros(count, np.int32),
        "prediction": np.where(rng.random(count) < 0.5, np.float32("nan"), np.float32(0.25)).astype(
            np.float32
        ),
        "model_version": ["m"] * count,
        "f_tags": [["a", "bc"][: i % 3] for i in range(count)],
        "f_vector": [[0.5, -1.0][: 2 * (i % 2)] for i in range(count)],
    }
    return pa.record_batch(columns, schema=examples_schema(FEATURES))


def record(
    offset: int, start: int, count: int, ts_ms: int, chain: str = "label/0", **more: object
) -> Record:
    batch = rows(start, count, ts_ms) if count else None
    header = BatchHeader(
        chain,
        start,
        start + max(count, 1),
        "s",
        "c",
        labelled=count,
        ts_ms_min=ts_ms if count else 0,
        ts_ms_max=ts_ms + count - 1 if count else 0,
        arrival_max_ms=ts_ms + count,
        **more,
    )
    return Record(
        offset, ts_ms + 10, None, encode_examples(batch) if batch else None, header.to_headers()
    )


def history(count: int = 12, size: int = 10) -> list[Record]:
    """A record each 20 minutes; every fourth range is empty."""
    made = []
    for k in range(count):
        n = 0 if k % 4 == 3 else size
        made.append(record(k, k * size, n, BEGIN + k * HOUR // 3))
        made[-1] = made[-1]._replace(
            headers=tuple(
                (n, str((k + 1) * size).encode() if n == "end" else v) for n, v in made[-1].headers
            )
        )
    return made
