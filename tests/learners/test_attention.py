"""Lists pooled by attention: begin as their mean, learn what goes with what they are held against,
and are served as they were learned (docs/features.md)."""

import json
from dataclasses import replace

import numpy as np
import pytest

from everspun import loads
from learners.models import Scorer, make_model
from learners.training import gradient
from paramserver.tables import Table
from stream import Record
from stream.decoding import decode_impressions
from stream.internal_topics import decode_examples, encode_examples, example_batch

TS_MS = 1_700_000_000_000
TEXT = """
[stream]
partitions = 1
[features.seen]
kind = "list"
shares = "item"
pool = "attention"
against = "item"
[features.title]
kind = "text"
pool = "attention"
against = "item"
[model]
kind = "mlp"
dim = 4
hidden = [8]
categorical = ["source", "item", "seen", "title"]
"""
CONFIG = loads(TEXT)


def rows_of(shown, label):
    """Rows of `examples` of [(item, features)]."""
    records = []
    for i, (item, bag) in enumerate(shown):
        event = {"id": f"i{i}", "ts_ms": TS_MS, "session": "s", "source": "u", "vendor": "v"}
        event |= {"item": item, "features": bag}
        records.append(Record(i, TS_MS, b"s", json.dumps(event).encode()))
    arrived = np.full(len(records), TS_MS)
    rows, bad = decode_impressions(records, 0, arrived, CONFIG.stream)
    assert not bad
    n = len(rows)
    batch = example_batch(rows, np.array(label, np.int8), np.full(n, -1), np.ones(n, np.float32))
    return decode_examples(encode_examples(batch))


ROWS = rows_of(
    [("a", {"seen": ["a", "b", "b"], "title": "one two"}), ("b", {"seen": ["c"]}), ("c", {}),
     ("a", {"seen": ["c", "d"], "title": "two"})],
    [0, 1, 0, 1],
)  # fmt: skip


def pulled_of(model, prepared, seed=1):
    rng = np.random.default_rng(seed)
    return {
        t.name: rng.normal(0, 0.5, (len(prepared.keys[t.name]), t.dim)).astype(np.float32)
        for t in model.spec.tables
    }


@pytest.mark.parametrize("groups", [{}, {"films": {"features": ["seen", "item"]}}])
@pytest.mark.parametrize("kind", ["mlp", "dlrm", "dcn"])
def test_the_gradient_is_that_of_the_loss(kind, groups):
    model = make_model(replace(CONFIG.model, kind=kind, groups=groups))
    prepared, dense = gradient.prepare(model, ROWS), model.initial_dense()
    pulled = pulled_of(model, prepared)
    computed = gradient.compute(model, prepared, pulled, dense)
    assert not computed.reason
    label = ROWS.column("label").to_numpy()

    def slope(where, name, at):
        losses = []
        for by in (2e-3, -2e-3):
            parts = {"rows": dict(pulled), "dense": dict(dense)}
            parts[where][name] = parts[where][name].copy()
            parts[where][name].reshape(-1)[at] += by
            p = model.kind.predict(
                prepared.places, parts["rows"], parts["dense"], prepared.encoded
            ).astype(float)
            losses.append(-np.log(np.where(label > 0, p, 1 - p)).sum())
        return (losses[0] - losses[1]) / 4e-3

    for name, found in computed.gradients.items():
        for at in range(0, found.size, 3):
            assert found.reshape(-1)[at] == pytest.approx(slope("rows", name, at), abs=3e-3)
    for name in ("attention.0.gate.weight", "attention.1.layer.bias", "attention.0.gate.bias"):
        at = int(np.abs(computed.dense[name]).argmax())
        assert computed.dense[name].reshape(-1)[at] == pytest.approx(
            slope("dense", name, at), rel=0.05, abs=2e-3
        )
        assert computed.dense[name].any()


def test_a_gate_of_one_is_the_mean():
    model, mean = make_model(CONFIG.model), make_model(loads(_as_mean(TEXT)).model)
    prepared = gradient.prepare(model, ROWS)
    dense = model.initial_dense()
    for name in dense:
        if name.startswith("attention.") and name.endswith("gate.weight"):
            dense[name][:] = 0.0
    assert all((dense[f"attention.{i}.gate.bias"] == 1.0).all() for i in range(2))
    pulled = pulled_of(model, prepared)
    found = model.kind.predict(prepared.places, pulled, dense, prepared.encoded)
    inner = {
        name.removeprefix("network."): array
        for name, array in dense.items()
        if not name.startswith("attention.")
    }
    expected = mean.kind.predict(
        gradient.prepare(mean, ROWS).places, pulled, inner, prepared.encoded
    )
    assert found == pytest.approx(expected, abs=1e-6)


def _as_mean(text):
    return text.replace('pool = "attention"\nagainst = "item"\n', "")


def test_a_checkpoint_answers_as_it_was_learned():
    model = make_model(CONFIG.model)
    prepared, dense = gradient.prepare(model, ROWS), model.initial_dense()
    pulled = pulled_of(model, prepared)
    computed = gradient.compute(model, prepared, pulled, dense)
    carried = json.loads(json.dumps(model.config.to_dict()))
    weights = {name: (prepared.keys[name], array) for name, array in pulled.items()}
    scorer = Scorer.from_weights(carried, weights, dense)
    assert scorer.predict(ROWS).tobytes() == computed.prediction.tobytes()


EPOCHS = 200


@pytest.mark.long
def test_attention_learns_what_a_mean_cannot():
    """A click where the item shown was among those seen, whatever it is."""
    rng = np.random.default_rng(5)
    names = np.array(list("abcdefgh"))
    seen = [rng.choice(names, 4, replace=False).tolist() for _ in range(600)]
    shown = [rng.choice(names) for _ in seen]
    label = [int(item in before) for item, before in zip(shown, seen, strict=True)]
    rows = rows_of([(i, {"seen": s}) for i, s in zip(shown, seen, strict=True)], label)
    losses = {}
    for text in (TEXT, _as_mean(TEXT)):
        # one linear layer behind: what the pooling cannot say, it cannot
        config = replace(loads(text).model, categorical=("item", "seen"), hidden=(), init_scale=0.3)
        losses["attention" in text] = _trained(config, rows, epochs=EPOCHS)
    assert losses[True] < 0.3 * losses[False]


def _trained(config, rows, epochs):
    declared = {name: said for name, said in config.declared.items() if name == "seen"}
    model = make_model(replace(config, declared=declared))
    (spec,) = model.spec.tables
    table, dense = Table(spec), model.initial_dense()
    prepared = gradient.prepare(model, rows)
    keys = prepared.keys[spec.name]
    squares = {name: np.zeros_like(array) for name, array in dense.items()}
    for step in range(1, epochs + 1):
        computed = gradient.compute(model, prepared, {spec.name: table.pull(keys)}, dense)
        table.reserve(keys)
        table.apply(keys, computed.gradients[spec.name], step, TS_MS)
        for name, found in computed.dense.items():
            squares[name] += found**2
            dense[name] = dense[name] - 0.1 * found / (np.sqrt(squares[name]) + 1e-8)
    p, label = computed.prediction.astype(float), rows.column("label").to_numpy()
    return -np.log(np.where(label > 0, p, 1 - p)).mean()
