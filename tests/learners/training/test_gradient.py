"""Features, models and gradients: against finite differences, torch's autograd and a plain loop."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.config import ModelConfig
from learners.models import Encoder, Model, Scorer, make_model, unique_keys
from learners.pacing import Batch
from learners.training import gradient
from paramserver import Outcome, PullReply, SlotMap
from paramserver.tables import Table
from stream.columns import CATEGORICAL, FeatureColumn
from stream.internal_topics import encode_examples, row_hash_sum

LR = ModelConfig(
    categorical=("source", "item", "source*item"),
    numeric=("price", "shown_at"),
    bias=True,
    prior_rate=0.3,
)
MLP = ModelConfig(
    kind="mlp",
    categorical=("source", "item"),
    numeric=("price",),
    transforms={"price": "log1p"},
    dim=3,
    hidden=(5, 4),
)
FM = replace(MLP, kind="fm", bias=True, init_scale=0.0)
DLRM = replace(MLP, kind="dlrm", bottom=(4,))
DCN = replace(MLP, kind="dcn", cross_rank=2)
KINDS = [LR, FM, MLP, DLRM, DCN]


def record(value: bytes, start: int, end: int, chain: str = "label/0", floor: int = 0) -> Batch:
    return Batch(0, chain, start, end, 0, 1, 1, value=value, record_end=end, floor=floor)


def rows(count: int = 12, seed: int = 0, **columns: object) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    values = {
        "position": np.arange(100, 100 + count),
        "ts_ms": np.arange(count) + 1_000,
        "arrival_ms": np.arange(count) + 2_000,
        "label": rng.integers(0, 2, count).astype(np.int8),
        "click_delay_ms": np.full(count, -1),
        "weight": rng.uniform(0.5, 2.0, count).astype(np.float32),
        "source": [f"u{i}" for i in rng.integers(0, 4, count)],
        "vendor": [f"v{i}" for i in rng.integers(0, 2, count)],
        "item": [f"i{i}" for i in rng.integers(0, 5, count)],
        "shown_at": rng.integers(0, 3, count).astype(np.int32),
        "prediction": np.full(count, np.nan, np.float32),
        "model_version": [""] * count,
        "f_price": rng.uniform(-2.0, 5.0, count).astype(np.float32),
    }
    return pa.record_batch({**values, **columns})


def parameters(model: Model, prepared: gradient.Prepared, seed: int = 1):
    rng = np.random.default_rng(seed)
    pulled = {
        t.name: rng.normal(0, 0.5, (len(prepared.keys[t.name]), t.dim)) for t in model.spec.tables
    }
    dense = {n: rng.normal(0, 0.5, shape) for n, shape in model.spec.dense.shapes.items()}
    return {n: a.astype(np.float32) for n, a in pulled.items()}, {
        n: a.astype(np.float32) for n, a in dense.items()
    }


def logistic_loss(
    config: ModelConfig, batch: pa.RecordBatch, prepared: gradient.Prepared, weights: np.ndarray
) -> float:
    """Plain Python, in float64."""
    loss = 0.0
    places = prepared.places["weights"]
    for i in range(batch.num_rows):
        x = (
            [1.0] * len(config.categorical)
            + [float(v) for v in prepared.encoded.numbers[i]]
            + [1.0] * config.bias
        )
        logit = config.prior_logit + sum(weights[places[i, f], 0] * x[f] for f in range(len(x)))
        y, w = batch["label"][i].as_py(), batch["weight"][i].as_py()
        loss += w * (np.log1p(np.exp(logit)) - y * logit)
    return loss


def test_logistic_gradient_is_the_derivative_of_the_loss() -> None:
    model, batch = make_model(LR), rows()
    prepared = gradient.prepare(model, batch)
    pulled, _ = parameters(model, prepared)
    computed = gradient.compute(model, prepared, pulled, {})
    assert not computed.reason
    weights = pulled["weights"].astype(np.float64)
    for k in range(len(weights)):
        step = np.zeros_like(weights)
        step[k, 0] = 1e-5
        up, down = (logistic_loss(LR, batch, prepared, weights + s * step) for s in (1, -1))
        assert computed.gradients["weights"][k, 0] == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_perceptron_gradient_is_the_derivative_of_the_loss() -> None:
    model, batch = make_model(MLP), rows()
    prepared = gradient.prepare(model, batch)
    pulled, dense = parameters(model, prepared)
    computed = gradient.compute(model, prepared, pulled, dense)
    table = torch.tensor(pulled["embeddings"], dtype=torch.float64, requires_grad=True)
    arrays = {n: torch.tensor(a, dtype=torch.float64, requires_grad=True) for n, a in dense.items()}
    x = torch.cat(
        [table[torch.from_numpy(prepared.places["embeddings"][:, f])] for f in range(2)], dim=1
    )
    price = batch["f_price"].to_numpy().astype(np.float64)
    price = np.sign(price) * np.log1p(np.abs(price))
    x = torch.cat([x, torch.from_numpy(price)[:, None]], dim=1)
    for layer in range(3):
        x = torch.relu(x) if layer else x
        x = x @ arrays[f"layer{layer}.weight"].T + arrays[f"layer{layer}.bias"]
    y = torch.from_numpy(batch["label"].to_numpy().astype(np.float64))
    w = torch.from_numpy(batch["weight"].to_numpy().astype(np.float64))
    (w * (torch.nn.functional.softplus(x[:, 0]) - y * x[:, 0])).sum().backward()
    np.testing.assert_allclose(computed.gradients["embeddings"], table.grad.numpy(), atol=2e-6)
    for name, array in arrays.items():
        np.testing.assert_allclose(computed.dense[name], array.grad.numpy(), atol=5e-6)
    np.testing.assert_allclose(
        computed.prediction, torch.sigmoid(x[:, 0]).detach().numpy(), atol=1e-6
    )


def test_mean_divides_by_the_rows() -> None:
    batch = rows()
    computed = []
    for reduction in ("sum", "mean"):
        model = make_model(ModelConfig(reduction=reduction))
        prepared = gradient.prepare(model, batch)
        pulled, _ = parameters(model, prepared)
        computed.append(gradient.compute(model, prepared, pulled, {}).gradients["weights"])
    np.testing.assert_allclose(computed[0] / batch.num_rows, computed[1], rtol=1e-6)


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_pieces_add_up_to_the_whole(config: ModelConfig) -> None:
    model, batch = make_model(config), rows(20)
    prepared = gradient.prepare(model, batch)
    pulled, dense = parameters(model, prepared)
    whole = gradient.compute(model, prepared, pulled, dense)
    total = {t: np.zeros_like(g, np.float64) for t, g in whole.gradients.items()}
    row_hash = 0
    for start, end in ((0, 107), (107, 108), (108, 300)):
        piece, rows_of_piece = gradient.part(
            model, prepared, pulled, record(b"", 0, 300), start, end
        )
        computed = gradient.compute(model, piece, rows_of_piece, dense)
        row_hash += computed.row_hash
        for table, keys in computed.keys.items():
            total[table][np.searchsorted(whole.keys[table], keys)] += computed.gradients[table]
    for table, expected in whole.gradients.items():
        np.testing.assert_allclose(total[table], expected, atol=1e-5)
    assert row_hash % (1 << 128) == whole.row_hash == row_hash_sum(batch)


def test_a_gradient_is_dealt_to_the_owners_of_its_keys_and_pulls_are_put_together() -> None:
    model, batch, slot_map = make_model(MLP), rows(), SlotMap.even(3)
    prepared = gradient.prepare(model, batch)
    pulled, dense = parameters(model, prepared)
    split = {s: slot_map.split(prepared.keys["embeddings"])[s] for s in range(3)}
    names = {s: [n for n in dense if slot_map.owner_of_name(n) == s] for s in range(3)}
    pulls = {
        s: PullReply(
            Outcome.APPLIED,
            {"embeddings": pulled["embeddings"][split[s]]},
            {n: dense[n] for n in names[s]},
            1,
            1,
        )
        for s in range(3)
    }
    rows_again, dense_again = gradient.assemble(prepared, slot_map, pulls)
    np.testing.assert_array_equal(rows_again["embeddings"], pulled["embeddings"])
    assert dense_again.keys() == dense.keys()
    computed = gradient.compute(model, prepared, pulled, dense)
    for shard, content in enumerate(gradient.contents(computed, slot_map)):
        np.testing.assert_array_equal(
            content["keys"]["embeddings"], computed.keys["embeddings"][split[shard]]
        )
        np.testing.assert_array_equal(
            content["gradients"]["embeddings"], computed.gradients["embeddings"][split[shard]]
        )
        assert sorted(content["dense"]) == sorted(names[shard])
        assert content["rows"] == batch.num_rows


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
@pytest.mark.parametrize(
    ("column", "reason"),
    [("weight", "weight: a value is not finite")],
)
def test_a_value_that_is_not_finite_is_named(config: ModelConfig, column: str, reason: str) -> None:
    values = rows().column(column).to_numpy().copy()
    values[3] = np.inf
    model, batch = make_model(config), rows(**{column: values})
    prepared = gradient.prepare(model, batch)
    computed = gradient.compute(model, prepared, *parameters(model, prepared))
    assert computed.reason == reason
    assert not computed.keys
    assert not computed.gradients
    assert not computed.dense
    assert computed.row_hash == row_hash_sum(batch), "h covers the range whatever its gradient"
    assert computed.row_count == batch.num_rows


def test_the_feature_of_a_bad_weight_is_named() -> None:
    model, batch = make_model(LR), rows()
    prepared = gradient.prepare(model, batch)
    pulled, _ = parameters(model, prepared)
    pulled["weights"][prepared.places["weights"][4, 1], 0] = np.nan
    assert (
        gradient.compute(model, prepared, pulled, {}).reason
        == "feature item: a weight is not finite"
    )


def test_a_record_that_cannot_be_read_has_a_reason() -> None:
    model = make_model(LR)
    assert "cannot be read" in gradient.read(model, record(b"not arrow", 0, 10)).reason
    without = gradient.read(model, record(encode_examples(rows().drop_columns(["item"])), 0, 200))
    assert "item: the column is not there" in without.reason
    good = gradient.read(model, record(encode_examples(rows()), 103, 105))
    assert good.rows.num_rows == 2


# --- features
# --------------------------------------------------------------------------------------------------


def test_keys_are_of_feature_and_value_and_seed() -> None:
    batch = rows(2, source=["a", "b"], item=["a", "a"], vendor=["", ""])
    keys = (
        Encoder(ModelConfig(categorical=("source", "item", "vendor", "source*item", "item*source")))
        .encode(batch)
        .keys
    )
    assert keys[0, 1] == keys[1, 1], "one value, one key"
    assert len(np.unique(keys[0])) == 5, (
        "no two features share a key, crosses in either order included"
    )
    assert keys[0, 3] != keys[1, 3]
    assert (keys != 0).all()
    other = Encoder(ModelConfig(categorical=("source",), seed=1)).encode(batch).keys
    assert not np.isin(other, keys).any()


def test_what_serving_lacks_takes_its_stated_value_there() -> None:
    config = ModelConfig(
        categorical=("source", "shown_at"),
        numeric=("price",),
        serving={"shown_at": 1, "price": 2.5},
    )
    encoder = Encoder(config)
    batch = rows(3, shown_at=np.array([0, 1, 2], np.int32))
    training = encoder.encode(batch)
    serving = encoder.encode(batch.select(["source"]), serving=True)
    assert len(np.unique(training.keys[:, 1])) == 3
    assert (serving.keys[:, 1] == training.keys[1, 1]).all()
    assert (serving.numbers == 2.5).all()
    assert (training.keys[:, 0] == serving.keys[:, 0]).all()


def test_missing_numbers_take_their_stated_value_before_the_transform() -> None:
    config = ModelConfig(numeric=("price",), missing={"price": 3.0}, transforms={"price": "log1p"})
    numbers = Encoder(config).encode(rows(2, f_price=np.array([np.nan, -1.0], np.float32))).numbers
    np.testing.assert_allclose(numbers[:, 0], [np.log(4.0), -np.log(2.0)], rtol=1e-6)


def test_a_feature_that_the_stream_does_not_declare_is_refused() -> None:
    encoder = Encoder(ModelConfig(categorical=("source", "genre"), numeric=("price",)))
    assert [f.name for f in encoder.features] == ["genre", "price"]
    with pytest.raises(ValueError, match=r"declare it in .*, or in numeric_features"):
        encoder.check_declared(
            (FeatureColumn("genre", CATEGORICAL), FeatureColumn("price", CATEGORICAL))
        )


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(
    st.lists(st.integers(1, 2**64 - 1), max_size=60).flatmap(
        lambda a: st.lists(st.sampled_from(a or [1]), max_size=99)
    )
)
def test_unique_keys_are_those_of_numpy(values: list[int]) -> None:
    keys = np.array(values, np.uint64)
    expected, inverse = np.unique(keys, return_inverse=True)
    distinct, place = unique_keys(keys)
    np.testing.assert_array_equal(distinct, expected)
    np.testing.assert_array_equal(place, inverse)


def test_keys_that_are_no_hashes_are_sorted_all_the_same() -> None:
    keys = np.random.default_rng(0).permutation(np.arange(1, 5_001, dtype=np.uint64)).repeat(2)
    distinct, place = unique_keys(keys)
    np.testing.assert_array_equal(distinct, np.arange(1, 5_001))
    np.testing.assert_array_equal(distinct[place], keys)


# --- models
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_a_scorer_answers_what_training_predicts(config: ModelConfig) -> None:
    model, batch = make_model(config), rows(30)
    prepared = gradient.prepare(model, batch)
    tables = {t.name: Table(t) for t in model.spec.tables}
    dense = model.initial_dense()
    for name, table in tables.items():
        keys = prepared.keys[name][::2]  # the others have their initial values
        table.reserve(keys)
        table.apply(
            keys,
            np.random.default_rng(0).normal(0, 1, (len(keys), table.spec.dim)).astype(np.float32),
            1,
            0,
        )
    pulled = {name: table.pull(prepared.keys[name]) for name, table in tables.items()}
    expected = gradient.compute(model, prepared, pulled, dense).prediction
    weights = {
        name: (prepared.keys[name][::2], table.pull(prepared.keys[name][::2]))
        for name, table in tables.items()
    }
    scorer = Scorer.from_weights(config.to_dict(), weights, dense)
    np.testing.assert_array_equal(scorer.predict(batch), expected)
    assert len(np.unique(expected)) > 5


@pytest.mark.parametrize("config", KINDS, ids=lambda c: c.kind)
def test_an_untrained_model_answers_the_prior(config: ModelConfig) -> None:
    model = make_model(config)
    empty = {
        t.name: (np.empty(0, np.uint64), np.empty((0, t.dim), np.float32))
        for t in model.spec.tables
    }
    predicted = Scorer(model, empty, model.initial_dense()).predict(rows())
    assert abs(predicted.mean() - config.prior_rate) < (0.05 if config.is_network else 1e-6)


def test_a_definition_is_a_function_of_its_config() -> None:
    one, two = make_model(MLP), make_model(ModelConfig.from_dict(MLP.to_dict()))
    assert one.spec == two.spec
    for name, array in one.initial_dense().items():
        np.testing.assert_array_equal(array, two.initial_dense()[name])
    assert make_model(ModelConfig(seed=1)).spec.digest != make_model(ModelConfig()).spec.digest


@pytest.mark.long
def test_closed_forms_do_not_load_torch() -> None:
    code = "import sys; from learners import config; from learners.models import model"
    code += "; [model.make_model(config.ModelConfig(kind=kind)) for kind in ('lr', 'fm')]"
    code += "; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "lrr"}, "kind = 'lrr': allowed are 'lr'"),
        ({"kind": "shop.net:"}, "kind = 'shop.net:': allowed are"),
        ({"kind": "dlrm", "categorical": ("item",)}, "a dlrm needs two features"),
        ({"cross_rank": -1}, "cross_rank = -1: allowed is 0 to 65536"),
        ({"prior_rate": 1.0}, "prior_rate = 1.0: allowed is above 0 and below 1"),
        ({"categorical": ("a*b*c",)}, r"a cross is 'a\*b'"),
        ({"transforms": {"price": "log1p"}}, "allowed are names in numeric"),
        ({"serving": {"shown_at": 1}}, "allowed are features of the model"),
        ({"categorical": ()}, "a model needs a feature"),
    ],
)
def test_an_impossible_config_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig(**values)


def test_rows_of_a_retraction_stand_at_the_end_of_their_range_and_not_below_the_models_beginning():
    model, value = make_model(LR), encode_examples(rows(12))
    whole = gradient.read(model, record(value, 5, 9, "retract/0", floor=104))
    assert whole.rows.column("position").to_pylist() == list(range(104, 112))
    batch = record(value, 5, 9, "retract/0", floor=104)
    assert gradient.read(model, batch._replace(end=8)).rows.num_rows == 0, (
        "the last piece of the range has the rows"
    )
    assert gradient.read(model, batch._replace(start=8)).rows.num_rows == 8
