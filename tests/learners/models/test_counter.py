"""The coverage model over a shard: a key's row is how many times it was trained on, exactly."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from learners.config import ModelConfig
from learners.models.model import make_model
from learners.training.gradient import assemble, compute, contents, prepare
from paramserver import AllowRequest, Epoch, Outcome, PullRequest, PushRequest, SlotMap
from paramserver.shard import Shard
from stream.internal_topics import examples_schema

MODEL = make_model(
    ModelConfig(name="coverage", kind="count", categorical=("source",), prior_rate=0.25)
)
EPOCH = Epoch(1, 1)


def batch(sources: list[str]) -> pa.RecordBatch:
    n = len(sources)
    columns = {
        "position": np.arange(n),
        "ts_ms": np.full(n, 5),
        "arrival_ms": np.full(n, 5),
        "label": np.arange(n, dtype=np.int8) % 2,
        "click_delay_ms": np.full(n, -1),
        "weight": np.full(n, 3.5, np.float32),
        "source": sources,
        "vendor": ["v"] * n,
        "item": ["i"] * n,
        "shown_at": np.zeros(n, np.int32),
        "prediction": np.full(n, np.nan, np.float32),
        "model_version": [""] * n,
    }
    return pa.RecordBatch.from_pydict(columns, schema=examples_schema(()))


def train(shard: Shard, sources: list[str], start: int, counted: Counter[str]) -> None:
    prepared = prepare(MODEL, batch(sources))
    pulled = shard.pull(PullRequest(MODEL.name, EPOCH, 1, prepared.keys))
    rows, dense = assemble(prepared, SlotMap.even(1), {0: pulled})
    computed = compute(MODEL, prepared, rows, dense)
    expected = np.array([1 - 0.75 / (1 + counted[source]) for source in sources], np.float32)
    assert np.array_equal(computed.prediction, expected)
    said = contents(computed, SlotMap.even(1))[0]
    reply = shard.push(
        PushRequest(MODEL.name, EPOCH, 1, 1, "label/0", start, start + 1, 0, 0, 0, **said)
    )
    assert reply.outcome is Outcome.APPLIED


def test_a_row_is_how_many_times_its_key_was_trained_on():
    shard = Shard(0, 1, SlotMap.even(1))
    shard.allow(AllowRequest(1, 1, (EPOCH,)))
    shard.begin(MODEL.spec, {"label/0": 0}, {})
    batches = [["a", "b", "a"], ["c"], ["b", "b", "a", "d"]]
    counted = Counter[str]()
    for start, sources in enumerate(batches):
        train(shard, sources, start, counted)
        counted.update(sources)
    snapshot = shard.snapshot(MODEL.name)
    table = snapshot.tables["counts"]
    names = sorted(counted)
    keys = MODEL.encoder.encode(batch(names)).keys[:, 0]
    order = np.argsort(keys)
    at = np.argsort(table.keys)
    assert np.array_equal(table.keys[at], keys[order])
    assert table.rows[at, 0].tolist() == [float(counted[names[i]]) for i in order]


def test_it_counts_keys_and_no_numbers():
    with pytest.raises(ValueError, match="numeric"):
        ModelConfig(kind="count", numeric=("shown_at",))
