"""Rows learned again from clean rows are those of a model that never saw what is taken back
(S8)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from learners.config import ModelConfig
from learners.models import NONE, Correction, make_model
from learners.training import gradient
from learners.training import unlearning as relearning
from paramserver.tables import Table
from stream.internal_topics import Again

LR = ModelConfig(categorical=("source", "vendor", "item"), prior_rate=0.1)
BATCHES, BATCH = 12, 16


def draw(seed=3):
    rng = np.random.default_rng(seed)
    n = BATCHES * BATCH
    attack = rng.random(n) < 0.3
    rows = pa.record_batch(
        {
            "position": np.arange(n),
            "ts_ms": np.arange(n) + 1_000,
            "label": ((rng.random(n) < 0.1) | attack).astype(np.int8),
            "weight": np.ones(n, np.float32),
            "source": [
                "bad" if bad else f"u{i}"
                for bad, i in zip(attack, rng.integers(0, 9, n), strict=True)
            ],
            "vendor": [
                "v" if bad or i else "w"
                for bad, i in zip(attack, rng.integers(0, 2, n), strict=True)
            ],
            "item": ["i"] * n,
            "f_price": rng.random(n).astype(np.float32),
        }
    )
    return rows, attack


def learn(model, rows, skip=None, correction=NONE):
    """The table of a model that learned these rows, but `skip`, in batches."""
    spec = model.spec.tables[0]
    table = Table(spec)
    for step in range(BATCHES):
        part = rows.slice(step * BATCH, BATCH)
        if skip is not None:
            part = part.filter(pa.array(~skip[step * BATCH : (step + 1) * BATCH]))
        prepared = gradient.prepare(model, part)
        pulled = {spec.name: table.pull(prepared.keys[spec.name])}
        found = gradient.compute(model, prepared, pulled, dense_of(model), correction)
        keys = found.keys[spec.name]
        table.reserve(keys)
        table.apply(keys, found.gradients[spec.name], step + 1, found.event_time_max_ms)
    return table


def dense_of(model):
    return dict(model.initial_dense())


def record(rows, attack, named):
    weight = np.where(attack, -1, 1).astype(np.float32)
    position = np.where(attack, np.arange(len(attack)), -1 - np.arange(len(attack)) // BATCH)
    columns = {name: rows.column(name) for name in rows.schema.names} | {
        "weight": weight,
        "position": position,
    }
    made = pa.record_batch(columns)
    order = np.argsort(~attack, kind="stable")
    return made.take(pa.array(order)), Again(named, [BATCH] * BATCHES).encode()


def relearned(model, table, made, correction=NONE):
    (rows, said), spec = made, model.spec.tables[0]
    prepared = gradient.prepare(model, rows)
    return relearning.relearn(
        model,
        prepared,
        {spec.name: table.pull(prepared.keys[spec.name])},
        dense_of(model),
        said,
        correction,
    )


ALL = {"source": ["bad"], "vendor": ["v"], "item": ["i"]}


@pytest.mark.parametrize(
    "config", [replace(LR, table_optimizer=o) for o in ("ftrl", "adagrad", "adam", "sgd")]
)
def test_with_nothing_else_in_the_row_it_is_bit_for_bit_that_of_a_model_that_never_saw_it(config):
    config = replace(config, categorical=("vendor",))
    rows, attack = draw()
    attack &= np.array(rows.column("vendor").to_pylist()) == "v"
    model = make_model(config)
    saw, never = learn(model, rows), learn(model, rows, attack)
    found = relearned(model, saw, record(rows, attack, ALL))
    assert found.rewrites
    assert not found.reason
    name = model.spec.tables[0].name
    saw.rewrite(found.keys[name], found.gradients[name], 99, 5_000)
    there, expected = saw.items(), never.items()
    assert there.keys.tolist() == expected.keys.tolist()
    own = np.isin(there.keys, found.keys[name])
    assert own.tolist().count(True) == 1, "vendor w is no business of the record"
    assert there.rows.tolist() == expected.rows.tolist()


def test_late_clicks_are_weighed_as_they_were_learned():
    rows, attack = draw()
    attack &= np.array(rows.column("vendor").to_pylist()) == "v"
    model, weighs = make_model(replace(LR, categorical=("vendor",))), Correction(share=0.4)
    saw, never = learn(model, rows, None, weighs), learn(model, rows, attack, weighs)
    back = record(rows, attack, ALL)
    found, plain = relearned(model, saw, back, weighs), relearned(model, saw, back)
    assert not np.array_equal(found.gradients["weights"], plain.gradients["weights"])
    saw.rewrite(found.keys["weights"], found.gradients["weights"], 99, 5_000)
    assert saw.items().rows.tolist() == never.items().rows.tolist()


def test_only_what_is_named_and_taken_back_is_written():
    rows, attack = draw()
    model = make_model(LR)
    table = learn(model, rows)
    found = relearned(model, table, record(rows, attack, {"vendor": ["v", "w"]}))
    assert len(found.keys["weights"]) == 1, "of w nothing was taken back"
    assert found.gradients["weights"].shape == (1, table.stride)


def test_learned_again_twice_changes_nothing():
    rows, attack = draw()
    model = make_model(LR)
    table = learn(model, rows)
    back = record(rows, attack, {"vendor": ["v"]})
    first = relearned(model, table, back)
    table.rewrite(first.keys["weights"], first.gradients["weights"], 99, 5_000)
    again = relearned(model, table, back)
    assert np.array_equal(first.gradients["weights"], again.gradients["weights"])


def test_what_has_no_clean_row_gets_the_row_that_it_began_with():
    rows, attack = draw()
    model = make_model(replace(LR, table_optimizer="adagrad"))
    table = learn(model, rows)
    found = relearned(model, table, record(rows, attack, {"source": ["bad"]}))
    assert (
        found.gradients["weights"].tolist()
        == table.initial(found.keys["weights"]).view(np.float32).tolist()
    )


def test_a_model_that_never_learned_the_rows_is_left_alone():
    rows, attack = draw()
    model = make_model(LR)
    table = learn(model, rows)
    back, said = record(rows, attack, ALL)
    clean = back.filter(pa.array(back.column("position").to_numpy() < 0))
    found = relearned(model, table, (clean, said))
    assert not found.keys
    assert found.row_count == clean.num_rows


def test_networks_learn_their_embeddings_again_and_leave_the_dense_part():
    rows, attack = draw()
    model = make_model(replace(LR, kind="mlp", dim=2, hidden=(3,)))
    table = learn(model, rows)
    found = relearned(model, table, record(rows, attack, ALL))
    assert not found.reason
    assert not found.dense
    assert all(np.isfinite(array).all() for array in found.gradients.values())


def test_a_record_that_cannot_be_read_is_pushed_empty_with_the_reason():
    rows, attack = draw()
    model = make_model(LR)
    back, _ = record(rows, attack, ALL)
    assert "named: 3" in relearned(model, learn(model, rows), (back, '{"named": 3}')).reason
