"""Numbers that are read by what the stream has shown of them: running sums in the model's state,
the same at each replay, and what serving reads (docs/features.md)."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everspun import loads
from everspun.config import ConfigError
from everspun.roles.model_check import raw_numbers
from learners.models.features import Encoder
from learners.models.model import Scorer, make_model
from learners.models.scaling import BINS, columns_of, scaled
from learners.training import gradient
from paramserver import AllowRequest, Epoch, Outcome, PushRequest, SlotMap
from paramserver.optim.moments import Moments
from paramserver.parts import decode_serving, serving_files, weights
from paramserver.shard import Shard
from paramserver.tables import Dense
from stream.internal_topics import examples_schema

TEXT = """
[features.price]
kind = "numeric"
standardise = true
transform = "log1p"
bounds = [0, 1000]
[features.year]
kind = "numeric"
quantiles = 4
bounds = [1900, 2030]
[features.size]
kind = "numeric"
standardise = true
default = 2
[model]
kind = "lr"
categorical = ["item"]
numeric = ["price", "year", "shown_at", "size"]
"""
CONFIG = loads(TEXT)
PRICE, YEAR, SIZE = (f"moments:{name}" for name in ("price", "year", "size"))


def rows_of(price, year, size):
    n = len(price)
    arrays = []
    for field in examples_schema(()):
        if field.name == "label":
            arrays.append(pa.array((np.arange(n) % 3 == 0).astype(np.int8)))
        elif field.type == pa.string():
            arrays.append(pa.array(["x"] * n))
        else:
            arrays.append(pa.array(np.ones(n)).cast(field.type))
    names = [*examples_schema(()).names, "f_price", "f_year", "f_size"]
    numbers = [pa.array(np.asarray(column, np.float32)) for column in (price, year, size)]
    return pa.RecordBatch.from_arrays([*arrays, *numbers], names=names)


def batches(count=40, rows=200, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        price = rng.lognormal(3, 1, rows)
        year = rng.normal(1995, 8, rows).round()
        size = rng.normal(50, 5, rows)
        for column in (price, year, size):
            column[rng.random(rows) < 0.1] = np.nan
        yield rows_of(price, year, size)


def shown(config, batches):
    """The dense arrays once a shard has been pushed these."""
    model = make_model(config)
    dense = Dense(model.spec.dense, list(model.spec.dense.shapes))
    dense.initialize(model.initial_dense())
    for batch in batches:
        prepared = gradient.prepare(model, batch)
        pulled = _zeros(model, prepared)
        computed = gradient.compute(model, prepared, pulled, dense.pull())
        assert not computed.reason
        dense.apply(computed.dense)
    return model, dense.pull()


def test_numbers_are_scaled_by_what_was_shown():
    model, dense = shown(CONFIG.model, batches())
    batch = next(batches(1, 5_000, seed=2))
    read = scaled(model.config, Encoder(model.config).encode(batch), dense).numbers
    price = np.log1p(np.clip(batch["f_price"].to_numpy(), 0, 1000))
    there = ~np.isnan(price)
    assert read[there, 0].mean() == pytest.approx(0.0, abs=0.05)
    assert read[there, 0].std() == pytest.approx(1.0, abs=0.05)
    assert (read[~there, 0] == 0.0).all()
    year = batch["f_year"].to_numpy()
    quarters = np.quantile(year[~np.isnan(year)], [0.25, 0.5, 0.75])
    through = read[:, 1:5].sum(axis=1)  # how many quarters of the years lie below
    assert np.interp(quarters, *np.unique(np.c_[year, through], axis=0).T) == pytest.approx(
        [1.0, 2.0, 3.0], abs=0.25
    )
    assert (read[np.isnan(year), 1:5] == 0.0).all()
    assert (read[:, 5] == 1.0).all()  # shown_at, which nobody scales
    size = batch["f_size"].to_numpy()
    away = (np.where(np.isnan(size), 2.0, size) - 50) / 5
    lacking = np.isnan(size)
    assert read[lacking, 6].max() < -2.0  # a stated value is as far from the mean as it is
    assert np.corrcoef(read[~lacking, 6], away[~lacking])[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_before_anything_was_shown_numbers_are_themselves_and_evenly_spread():
    model = make_model(CONFIG.model)
    read = scaled(
        model.config,
        Encoder(model.config).encode(rows_of([np.e - 1], [1965], [3])),
        model.initial_dense(),
    ).numbers
    assert read[0].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 3.0], abs=1e-5)


def test_the_same_pushes_make_the_same_sums_whatever_was_pulled():
    _, one = shown(CONFIG.model, batches())
    _, other = shown(replace(CONFIG.model, kind="fm", dim=2), batches())
    assert all(one[name].tobytes() == other[name].tobytes() for name in (PRICE, YEAR, SIZE))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
@settings(deadline=None)
def test_a_sum_loses_nothing_by_its_length(pushes):
    optimizer = Moments(horizon=1e18)
    row = np.zeros((1, 2), np.float32)
    row[0, 0] = 2.0**30  # beside which float32 keeps nothing below 64
    optimizer.initialize(row, 1)
    for one in pushes * 20:
        optimizer.apply(row, 0, np.zeros(1, np.int64), np.array([[one]], np.float32))
    exact = 2.0**30 + 20 * np.sum(np.array(pushes, np.float64))
    assert float(row[0, 0]) + float(row[0, 1]) == pytest.approx(exact, abs=1e-3, rel=1e-9)


def test_what_was_shown_long_ago_counts_less():
    optimizer = Moments(horizon=100.0)
    row = np.zeros((1, 2), np.float32)
    for _ in range(1_000):
        optimizer.apply(row, 0, np.zeros(1, np.int64), np.ones((1, 1), np.float32))
    assert row[0, 0] == pytest.approx(100.0, rel=1e-3)


def _zeros(model, prepared):
    return {
        t.name: np.zeros((len(prepared.keys[t.name]), t.dim), np.float32) for t in model.spec.tables
    }


# --- on a shard, in a checkpoint


def test_a_shard_a_checkpoint_and_a_replica_hold_the_same_sums():
    model = make_model(CONFIG.model)
    shard, epoch = Shard(0, 1, SlotMap.even(1)), Epoch(1, 1)
    shard.allow(AllowRequest(1, 1, (epoch,)))
    shard.begin(model.spec, {"label/0": 0}, model.initial_dense())
    made = list(batches(3))
    for at, batch in enumerate(made):
        prepared = gradient.prepare(model, batch)
        read = weights(shard.snapshot(model.name)).dense
        computed = gradient.compute(model, prepared, _zeros(model, prepared), read)
        push = PushRequest(
            model=model.name, epoch=epoch, map_epoch=1, incarnation=shard.incarnation,
            chain="label/0", start=at, end=at + 1, partition=0, next_record=at + 1,
            read_version=at, rows=computed.row_count,
            row_hash=computed.row_hash, event_time_max_ms=1, keys=computed.keys,
            gradients=computed.gradients, dense=computed.dense,
        )  # fmt: skip
        assert shard.push(push).outcome == Outcome.APPLIED
    snapshot = shard.snapshot(model.name)
    held = weights(snapshot).dense
    _, expected = shown(CONFIG.model, made)
    assert {name: a.tobytes() for name, a in held.items()} == {
        name: a.tobytes() for name, a in expected.items()
    }
    _, pieces = serving_files(snapshot)[0]
    served = decode_serving(b"".join(pieces), model.spec).dense
    assert served[YEAR].tobytes() == expected[YEAR].tobytes()


@pytest.mark.parametrize("kind", ["lr", "fm", "mlp", "dlrm"])
def test_a_checkpoint_answers_as_it_was_learned(kind):
    config = replace(CONFIG.model, kind=kind, hidden=(4,), dim=2)
    model, dense = shown(replace(config, kind="lr"), batches(5))
    model = make_model(config)
    dense = model.initial_dense() | {name: a for name, a in dense.items() if ":" in name}
    batch = next(batches(1, seed=3))
    prepared = gradient.prepare(model, batch)
    (spec,) = model.spec.tables
    rows = np.random.default_rng(1).normal(0, 0.3, (len(prepared.keys[spec.name]), spec.dim))
    pulled = {spec.name: rows.astype(np.float32)}
    computed = gradient.compute(model, prepared, pulled, dense)
    assert set(computed.dense) >= {PRICE, YEAR, SIZE}
    carried = json.loads(json.dumps(model.config.to_dict()))
    held = {spec.name: (prepared.keys[spec.name], pulled[spec.name])}
    scorer = Scorer.from_weights(carried, held, dense)
    assert scorer.predict(batch, serving=False).tobytes() == computed.prediction.tobytes()
    none = {name: a for name, a in dense.items() if name != YEAR}
    with pytest.raises(ValueError, match="lacks dense array 'moments:year'"):
        Scorer.from_weights(carried, held, none)


# --- declarations


def test_a_scaled_number_is_no_raw_one():
    assert raw_numbers(CONFIG) == ["shown_at"]
    assert [c.size for c in columns_of(CONFIG.model)] == [3, BINS, 3]
    assert not Encoder(CONFIG.model).is_plain


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("quantiles = 4", "quantiles: state bounds"),
        ("quantiles = 65\nbounds = [0, 1]", "quantiles = 65: allowed is 0 to 64"),
        ("standardise = true\nbuckets = [1]", "one of buckets, piecewise, standardise"),
        ('standardise = true\nkind = "vector"\nwidth = 2', "kind 'vector' has none"),
    ],
)
def test_a_declaration_that_cannot_be_is_named_with_its_fix(said, message):
    kind = "" if "kind" in said else 'kind = "numeric"\n'
    with pytest.raises(ConfigError, match=message):
        loads(f"[features.a]\n{kind}{said}")
