"""The features that are written again agree with the system's, key by key."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from everspun import loads
from learners.models import Encoder

SPEC = importlib.util.spec_from_file_location(
    "reference_features", Path(__file__).with_name("reference_features.py")
)
assert SPEC is not None
assert SPEC.loader is not None
reference = importlib.util.module_from_spec(SPEC)
sys.modules["reference_features"] = reference
SPEC.loader.exec_module(reference)

CONFIG = loads("""
[features.seen]
kind = "list"
shares = "item"
max_values = 3
[features.genres]
kind = "list"
pool = "sqrt"
[features.title]
kind = "text"
tokens = "pairs"
pool = "sum"
max_tokens = 4
[features.year]
kind = "numeric"
buckets = [1950, 1990.5]
default = 1990
[features.hour]
kind = "time"
of = "ts_ms"
part = "hour_of_week"
zone = "Europe/Copenhagen"
[features.made]
kind = "time"
part = "age"
[features.price]
kind = "numeric"
transform = "log1p"
[model]
categorical = ["source", "item", "seen", "genres", "title", "year", "hour", "made", "shown_at",
  "genres*source", "year*hour"]
numeric = ["price"]
""")
TITLES = ["Toy Story (1995)", "", "Zoé, ﬁn", "a b c d e f", "Toy"]


def rows(n: int = 40) -> pa.RecordBatch:
    rng = np.random.default_rng(3)
    lists = [[f"i{v}" for v in rng.integers(0, 6, rng.integers(0, 6))] for _ in range(n)]
    times = 1_700_000_000_000 + rng.integers(0, 10**9, n)
    years = np.where(rng.random(n) < 0.2, np.nan, rng.integers(1930, 2000, n))
    made = np.where(rng.random(n) < 0.2, -(2**63), times - rng.integers(-5_000, 10**8, n))
    return pa.record_batch(
        {
            "ts_ms": times,
            "source": [f"u{v}" for v in rng.integers(0, 3, n)],
            "item": [f"i{v}" for v in rng.integers(0, 6, n)],
            "shown_at": pa.array(rng.integers(-1, 5, n), pa.int32()),
            "f_seen": pa.array(lists, pa.list_(pa.string())),
            "f_genres": pa.array(lists[::-1], pa.list_(pa.string())),
            "f_title": [TITLES[v] for v in rng.integers(0, len(TITLES), n)],
            "f_year": pa.array(years, pa.float32()),
            "f_made": made,
            "f_price": pa.array(rng.normal(0, 50, n), pa.float32()),
        }
    )


def ours(batch: pa.RecordBatch) -> list[list[tuple[int, float]]]:
    """(key, x) of each row, in the model's order, lists in theirs."""
    found = Encoder(CONFIG.model).encode(batch)
    bags = dict(zip(CONFIG.model.bags, found.bags, strict=True))
    out = []
    for i in range(batch.num_rows):
        row: list[tuple[int, float]] = []
        for f in range(found.keys.shape[1]):
            if f in bags:
                part = slice(bags[f].ends[i], bags[f].ends[i + 1])
                row += zip(bags[f].keys[part].tolist(), bags[f].weights[part].tolist(), strict=True)
            else:
                row.append((int(found.keys[i, f]), 1.0))
        out.append(row + [(-1, x) for x in found.numbers[i].tolist()])
    return out


def test_keys_are_the_same_ones_and_have_the_same_share():
    batch, model = rows(), CONFIG.model
    theirs = reference.read(batch.to_pylist(), model.declared, model.categorical, model.numeric)
    pairs = [
        (mine, other)
        for row, reading in zip(ours(batch), theirs, strict=True)
        for mine, other in zip(row, reading, strict=True)
    ]
    for (_, x), (_, y) in pairs:
        assert x == pytest.approx(y, rel=1e-6)
    known = {(key, name) for (key, _), (name, _) in pairs}
    assert len(known) == len({key for key, _ in known}) == len({name for _, name in known}) > 100


def test_the_columns_are_those_that_the_features_stand_in():
    model = CONFIG.model
    found = reference.columns(model.declared, (*model.categorical, *model.numeric))
    assert set(found) == set(rows().schema.names)
