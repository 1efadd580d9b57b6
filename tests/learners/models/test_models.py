"""Every kind against a formula written out again in float64, differentiated by torch; and a
module of one's own."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from learners.config import LearnerConfig, ModelConfig
from learners.models.embeddings import gather, segment_sums
from learners.models.feature_pairs import pair_products
from learners.models.model import Model, Scorer, make_model
from learners.process import prepare_torch
from learners.training import gradient

Tensors = dict[str, torch.Tensor]
BASE = ModelConfig(
    categorical=("source", "item", "source*item"),
    numeric=("price", "shown_at"),
    dim=3,
    hidden=(5,),
    prior_rate=0.3,
)
FM = replace(BASE, kind="fm", bias=True)
DLRM = replace(BASE, kind="dlrm", bottom=(4,))
DLRM_NO_NUMBERS = replace(BASE, kind="dlrm", numeric=())
DCN = replace(BASE, kind="dcn", cross_layers=2)
LOW_RANK = replace(DCN, cross_rank=2)
OWN = replace(BASE, kind="gated_network:Gated", module_options={"width": 4}, seed=7)


@pytest.fixture(autouse=True)
def _examples_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))


def rows(count: int = 15, seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    return pa.record_batch(
        {
            "position": np.arange(count),
            "ts_ms": np.arange(count) + 1_000,
            "label": rng.integers(0, 2, count).astype(np.int8),
            "weight": rng.uniform(0.5, 2.0, count).astype(np.float32),
            "source": [f"u{i}" for i in rng.integers(0, 4, count)],
            "item": [f"i{i}" for i in rng.integers(0, 5, count)],
            "shown_at": rng.integers(0, 3, count).astype(np.int32),
            "f_price": rng.uniform(-2.0, 2.0, count).astype(np.float32),
        }
    )


def parameters(
    model: Model, prepared: gradient.Prepared
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    pulled = {
        t.name: rng.normal(0, 0.5, (len(prepared.keys[t.name]), t.dim)) for t in model.spec.tables
    }
    dense = {n: rng.normal(0, 0.5, shape) for n, shape in model.spec.dense.shapes.items()}
    return {n: a.astype(np.float32) for n, a in pulled.items()}, {
        n: a.astype(np.float32) for n, a in dense.items()
    }


# --- the formulas, a row and a pair at a time
# -------------------------------------------------------------------


def fm_logit(row: torch.Tensor, numbers: torch.Tensor, dense: Tensors) -> torch.Tensor:
    """`row` (3 keys + 2 numbers + bias, 1 + dim)."""
    x = torch.cat([torch.ones(3, dtype=torch.float64), numbers, torch.ones(1, dtype=torch.float64)])
    logit = BASE.prior_logit + (row[:, 0] * x).sum()
    for i, j in combinations(range(5), 2):
        logit = logit + (row[i, 1:] @ row[j, 1:]) * x[i] * x[j]
    return logit


def layers(x: torch.Tensor, dense: Tensors, prefix: str) -> torch.Tensor:
    number = 0
    while f"{prefix}layer{number}.weight" in dense:
        x = torch.relu(x) if number else x
        x = dense[f"{prefix}layer{number}.weight"] @ x + dense[f"{prefix}layer{number}.bias"]
        number += 1
    return x


def dlrm_logit(row: torch.Tensor, numbers: torch.Tensor, dense: Tensors) -> torch.Tensor:
    bottom = torch.relu(layers(numbers, dense, "bottom."))
    vectors = [bottom, *row]
    products = [vectors[i] @ vectors[j] for i, j in combinations(range(4), 2)]
    return layers(torch.cat([bottom, torch.stack(products)]), dense, "top.")[0]


def pairs_logit(row: torch.Tensor, numbers: torch.Tensor, dense: Tensors) -> torch.Tensor:
    return layers(
        torch.stack([row[i] @ row[j] for i, j in combinations(range(3), 2)]), dense, "top."
    )[0]


def dcn_logit(row: torch.Tensor, numbers: torch.Tensor, dense: Tensors) -> torch.Tensor:
    x = first = torch.cat([row.flatten(), numbers])
    for number in range(2):
        if f"cross.{number}.weight" in dense:
            crossed = dense[f"cross.{number}.weight"] @ x + dense[f"cross.{number}.bias"]
        else:
            crossed = dense[f"cross.{number}.1.weight"] @ (dense[f"cross.{number}.0.weight"] @ x)
            crossed = crossed + dense[f"cross.{number}.1.bias"]
        x = first * crossed + x
    return layers(x, dense, "deep.")[0]


def own_logit(row: torch.Tensor, numbers: torch.Tensor, dense: Tensors) -> torch.Tensor:
    squeezed = torch.relu(dense["squeeze.weight"] @ row.mean(dim=1) + dense["squeeze.bias"])
    gates = torch.sigmoid(dense["gate.weight"] @ squeezed + dense["gate.bias"])
    x = torch.cat([(row * gates[:, None]).flatten(), numbers])
    x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5) * dense["norm.weight"] + dense[
        "norm.bias"
    ]
    return (dense["logit.weight"] @ x + dense["logit.bias"])[0]


FORMULAS = [
    (FM, fm_logit),
    (DLRM, dlrm_logit),
    (DLRM_NO_NUMBERS, pairs_logit),
    (DCN, dcn_logit),
    (LOW_RANK, dcn_logit),
    (OWN, own_logit),
]


@pytest.mark.parametrize(
    ("config", "formula"),
    FORMULAS,
    ids=["fm", "dlrm", "dlrm without numbers", "dcn", "dcn of low rank", "own"],
)
def test_prediction_and_gradient_are_those_of_the_formula(
    config: ModelConfig, formula: Callable[[torch.Tensor, torch.Tensor, Tensors], torch.Tensor]
) -> None:
    model, batch = make_model(config), rows()
    prepared = gradient.prepare(model, batch)
    pulled, dense = parameters(model, prepared)
    computed = gradient.compute(model, prepared, pulled, dense)
    assert not computed.reason
    (name,) = pulled
    table = torch.tensor(pulled[name], dtype=torch.float64, requires_grad=True)
    arrays = {n: torch.tensor(a, dtype=torch.float64, requires_grad=True) for n, a in dense.items()}
    numbers = torch.from_numpy(prepared.encoded.numbers.astype(np.float64))
    places = torch.from_numpy(prepared.places[name])
    logits = torch.stack(
        [formula(table[places[i]], numbers[i], arrays) for i in range(batch.num_rows)]
    )
    y = torch.from_numpy(batch["label"].to_numpy().astype(np.float64))
    w = torch.from_numpy(batch["weight"].to_numpy().astype(np.float64))
    (w * (torch.nn.functional.softplus(logits) - y * logits)).sum().backward()
    np.testing.assert_allclose(
        computed.prediction, torch.sigmoid(logits).detach().numpy(), atol=2e-6
    )
    np.testing.assert_allclose(computed.gradients[name], table.grad.numpy(), atol=2e-5)
    assert computed.dense.keys() == arrays.keys()
    for array, value in arrays.items():
        np.testing.assert_allclose(
            computed.dense[array], value.grad.numpy(), atol=3e-5, err_msg=array
        )


@pytest.mark.parametrize("config", [FM, DLRM, DLRM_NO_NUMBERS, DCN, OWN], ids=lambda c: c.kind)
def test_a_batch_repeats_bit_for_bit(config: ModelConfig) -> None:
    results = []
    for _ in range(2):
        model = make_model(config)
        prepared = gradient.prepare(model, rows(300))
        pulled, _ = parameters(model, prepared)
        results.append(gradient.compute(model, prepared, pulled, model.initial_dense()))
    one, two = results
    for a, b in ((one.gradients, two.gradients), (one.dense, two.dense)):
        assert a.keys() == b.keys()
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)
    assert one.prediction.tobytes() == two.prediction.tobytes()


def test_gather_and_segment_sums_are_index_and_add() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(9, 4)).astype(np.float32)
    places, by_place = rng.integers(0, 9, (50, 3)), rng.normal(size=(50, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(gather(table, places), table[places])
    expected = np.zeros((9, 4))
    np.add.at(expected, places, by_place)
    np.testing.assert_allclose(segment_sums(places, by_place, 9), expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 16, 37])
def test_pair_products_and_their_gradient_are_those_of_torch(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    vectors = torch.randn(count, 5, 3, generator=generator, requires_grad=True)
    by_pair = torch.randn(count, 10, generator=generator)
    first, second = torch.triu_indices(5, 5, 1)
    theirs = torch.bmm(vectors, vectors.transpose(1, 2))[:, first, second]
    ours = pair_products(vectors)
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = (torch.autograd.grad(products, vectors, by_pair) for products in (ours, theirs))
    torch.testing.assert_close(a, b)
    padded = pair_products(vectors, 16)
    torch.testing.assert_close(padded, torch.nn.functional.pad(theirs, (0, 6)))
    (a,) = torch.autograd.grad(padded, vectors, torch.nn.functional.pad(by_pair, (0, 6), value=7.0))
    torch.testing.assert_close(a, b)


# --- a module of one's own
# --------------------------------------------------------------------------------------


def test_an_own_module_begins_as_its_constructor_left_it_and_leaves_torch_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two = make_model(OWN).initial_dense(), make_model(OWN).initial_dense()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert (one["norm.weight"] == 1.0).all()
    other = make_model(replace(OWN, seed=8)).initial_dense()
    assert not np.array_equal(one["gate.weight"], other["gate.weight"])


def test_an_own_module_is_served_from_its_config_and_weights() -> None:
    model, batch = make_model(OWN), rows(30)
    prepared = gradient.prepare(model, batch)
    pulled, dense = parameters(model, prepared)
    expected = gradient.compute(model, prepared, pulled, dense).prediction
    weights = {name: (prepared.keys[name], array) for name, array in pulled.items()}
    scorer = Scorer.from_weights(OWN.to_dict(), weights, dense)
    np.testing.assert_array_equal(scorer.predict(batch, serving=False), expected)


MODULES = """
import torch
class Dropped(torch.nn.Module):
    def __init__(self, features, dim, numbers):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(dim, 1), torch.nn.Dropout())
class Wide(torch.nn.Module):
    def __init__(self, features, dim, numbers):
        super().__init__()
        self.layer = torch.nn.Linear(dim, 2)
    def forward(self, embeddings, numbers):
        return self.layer(embeddings.sum(dim=1))
class Plain:
    pass
"""


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("no_such_place:Net", {}, "No module named 'no_such_place'"),
        ("odd_networks:Net", {}, "has no attribute 'Net'"),
        ("odd_networks:Plain", {}, "not a subclass of torch.nn.Module"),
        ("odd_networks:Dropped", {}, "layer.1 is a Dropout"),
        ("odd_networks:Wide", {}, r"forward answered torch.float32 \(7, 2\) for 7 rows"),
        ("odd_networks:Wide", {"depth": 3}, "unexpected keyword argument 'depth'"),
    ],
)
def test_a_module_that_cannot_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, options: dict[str, int], said: str
) -> None:
    (tmp_path / "odd_networks.py").write_text(MODULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=said):
        make_model(replace(BASE, kind=kind, module_options=options))


# --- where a network computes
# -----------------------------------------------------------------------------------


def test_the_device_is_what_there_is() -> None:
    threads = torch.get_num_threads()
    try:
        there = torch.cuda.is_available()
        assert prepare_torch(LearnerConfig(torch_threads=2)) == ("cuda" if there else "cpu")
        assert torch.get_num_threads() == 2
        assert prepare_torch(LearnerConfig(device="cpu")) == "cpu"
        if not there:
            with pytest.raises(ValueError, match="device = 'cuda'"):
                prepare_torch(LearnerConfig(device="cuda"))
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(ValueError, match="device = 'gpu': allowed are 'auto', 'cpu', 'cuda'"):
        LearnerConfig(device="gpu")


def test_a_models_rows_live_as_long_as_its_config_says():
    for kind in ("lr", "fm", "dlrm"):
        model = make_model(ModelConfig(kind=kind, table_policy={"ttl_ms": 60_000}))
        assert [table.policy for table in model.spec.tables] == [{"ttl_ms": 60_000}]


# --- groups of features
# -----------------------------------------------------------------------------------------

GROUPS = {
    "people": {"features": ["source"], "policy": {"ttl_ms": 60_000}, "options": {"rate": 0.5}},
    "goods": {"features": ["source*item", "item"], "optimizer": "sgd", "storage": "bfloat16"},
}
ALL_GROUPED = {"one": {"features": ["source", "item"]}, "two": {"features": ["source*item"]}}
GROUPABLE = [replace(BASE, kind="lr", bias=True), FM, DLRM, DCN, replace(BASE, kind="mlp")]


@pytest.mark.parametrize("groups", [GROUPS, ALL_GROUPED])
@pytest.mark.parametrize("config", GROUPABLE, ids=lambda c: c.kind)
def test_groups_change_where_rows_stand_and_nothing_else(
    config: ModelConfig, groups: dict[str, dict[str, object]]
):
    one, many = make_model(config), make_model(replace(config, groups=groups))
    batch = rows()
    first, second = gradient.prepare(one, batch), gradient.prepare(many, batch)
    (table,) = one.spec.tables
    pulled, dense = parameters(one, first)
    at = {name: np.searchsorted(first.keys[table.name], keys) for name, keys in second.keys.items()}
    split = {name: pulled[table.name][places] for name, places in at.items()}
    a = gradient.compute(one, first, pulled, dense)
    b = gradient.compute(many, second, split, dense)
    np.testing.assert_array_equal(a.prediction, b.prediction)
    together = np.zeros_like(a.gradients[table.name])
    for name, gradients in b.gradients.items():
        together[at[name]] += gradients
    np.testing.assert_array_equal(together, a.gradients[table.name])
    for name, array in a.dense.items():
        np.testing.assert_array_equal(array, b.dense[name])
    for name, keys in many.kind.keys(many.encoder.encode(batch)).items():
        for column in range(keys.shape[1]):
            feature = many.kind.column_name(name, column)
            whole = one.kind.keys(one.encoder.encode(batch))[table.name]
            at_one = [one.kind.column_name(table.name, c) for c in range(whole.shape[1])].index(
                feature
            )
            np.testing.assert_array_equal(keys[:, column], whole[:, at_one])


def test_a_group_has_what_it_says_and_else_what_the_model_has():
    config = replace(
        BASE, kind="fm", groups=GROUPS, table_options={"rate": 0.1}, table_policy={"rows_max": 9}
    )
    base, people, goods = make_model(config).spec.tables
    assert [t.name for t in (base, people, goods)] == ["weights", "weights.people", "weights.goods"]
    assert (base.optimizer, base.options, base.policy) == (
        "adagrad",
        {"rate": 0.1},
        {"rows_max": 9},
    )
    assert (people.optimizer, people.options, people.policy) == (
        "adagrad",
        {"rate": 0.5},
        {"ttl_ms": 60_000},
    )
    assert (goods.optimizer, goods.options, goods.policy) == ("sgd", {}, {"rows_max": 9})
    assert [t.storage for t in (base, people, goods)] == ["float32", "float32", "bfloat16"]
    assert ModelConfig.from_dict(config.to_dict()) == config


def test_a_model_with_groups_is_served_from_its_config_and_weights():
    config = replace(BASE, kind="fm", groups=GROUPS)
    model, batch = make_model(config), rows()
    prepared = gradient.prepare(model, batch)
    pulled, dense = parameters(model, prepared)
    scorer = Scorer.from_weights(
        config.to_dict(), {t: (prepared.keys[t], pulled[t]) for t in pulled}, dense
    )
    expected = gradient.compute(model, prepared, pulled, dense).prediction
    np.testing.assert_allclose(scorer.predict(batch, serving=False), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"a b": {"features": ["item"]}}, "groups.a b: a name of letters"),
        (
            {"a": {"features": ["item"], "ttl_ms": 5}},
            r"groups.a keys \['ttl_ms'\]: allowed are features, optimizer",
        ),
        ({"a": {}}, r"groups.a.features = \[\]"),
        (
            {"a": {"features": ["price"]}},
            "groups.a.features = 'price': allowed are names in categorical",
        ),
        (
            {"a": {"features": ["item"]}, "b": {"features": ["item"]}},
            "'item': is in group 'a' already",
        ),
        (
            {"a": {"features": ["item"], "policy": {"ttl_ms": "5"}}},
            "groups.a.policy.ttl_ms = '5': allowed are numbers",
        ),
        (
            {"a": {"features": ["item"], "optimizer": "adagard"}},
            "groups.a.optimizer = 'adagard': allowed are 'sgd'",
        ),
    ],
)
def test_bad_groups_are_named(groups: dict[str, dict[str, object]], words: str):
    with pytest.raises(ValueError, match=words):
        replace(BASE, groups=groups)
