"""Answers by hand, and what keys have learned."""

import json
import math

import numpy as np
import pytest
from checkpoint_maker import define_model

from checkpointer.serving.explanation import explain
from checkpointer.serving.loading import load
from checkpointer.serving.request import BadRequest
from checkpointer.store import Catalogue, Directory, row_of
from checkpointer.store.files import MemoryFiles
from everspun.__main__ import main
from everspun.commands.training.inspect import key_of
from learners import ModelConfig
from learners.models import make_model

ROW = {"source": "u1", "item": "i1", "features": {"price": 3.0}}


@pytest.fixture
def catalogue():
    return Catalogue(MemoryFiles(), "clicks")


def explained(served, row):
    return explain(served.scorer.model, served.weights.tables, served.weights.dense, row)


def test_shares_of_a_logistic_regression_add_up(catalogue, train, config_of):
    config = config_of(categorical=("source", "item", "source*item"), numeric=("price",))
    served = load(catalogue, train(catalogue, 1, [ROW], step=0.5, config=config).name)
    found = explained(served, ROW)
    shares = {share.feature: share for share in found.shares}
    assert set(shares) == {"source", "item", "source*item", "price"}
    assert shares["price"].log_odds == pytest.approx(1.5, abs=1e-4)  # a weight of 0.5 times 3
    assert (shares["price"].value, shares["source*item"].value) == ("3", "u1*i1")
    assert shares["item"].weights == (0.5,)
    assert found.shares[0].feature == "price"
    total = found.prior_log_odds + sum(share.log_odds for share in found.shares)
    assert found.log_odds == pytest.approx(total, abs=1e-4)
    answer = served.answer(
        b'{"rows": [{"source": "u1", "item": "i1", "features": {"price": 3}}]}', 1
    )
    assert found.probability == pytest.approx(float(answer.probabilities[0]))
    unknown = explained(served, {"source": "?", "features": {"size": "xl"}})
    assert unknown.ignored == ("size",)
    assert [s.known for s in unknown.shares if s.feature == "source"] == [False]
    with pytest.raises(BadRequest, match="item = 5"):
        explained(served, {"item": 5})


@pytest.mark.parametrize("groups", [{}, {"films": {"features": ["genres", "item"]}}])
def test_each_value_of_a_list_and_each_word_has_its_share(catalogue, train, config_of, groups):
    declared = {
        "genres": {"kind": "list", "pool": "sum"},
        "title": {"kind": "text", "pool": "sum"},
        "picture": {"kind": "vector", "width": 2},
    }
    categorical = ("source", "item", "genres", "title")
    config = config_of(
        categorical=categorical, numeric=("picture",), declared=declared, groups=groups
    )
    row = {"source": "u1", "item": "i1", "features": {"genres": ["a", "b"], "title": "Toy Story",
           "picture": [2, 1]}}  # fmt: skip
    served = load(catalogue, train(catalogue, 1, [row], step=0.5, config=config).name)
    found = explained(served, row)
    shares = sorted((share.feature, round(share.log_odds, 4)) for share in found.shares)
    assert shares == [
        *[("genres", 0.5)] * 2, ("item", 0.5), ("picture[0]", 1.0), ("picture[1]", 0.5),
        ("source", 0.5), *[("title", 0.5)] * 2,
    ]  # fmt: skip
    assert found.log_odds == pytest.approx(found.prior_log_odds + 4.5, abs=1e-4)
    answer = served.answer(json.dumps({"rows": [row]}).encode(), 1)
    assert found.probability == pytest.approx(float(answer.probabilities[0]))
    with pytest.raises(BadRequest, match=r"genres is the string 'a'.* send a list of strings"):
        served.answer(b'{"rows": [{"features": {"genres": "a"}}]}', 1)
    table, key = key_of(served.scorer.model, "genres=b")
    assert served.weights.tables[table].find(np.array([key], np.uint64))[0] >= 0


@pytest.mark.parametrize("kind", ["fm", "dlrm"])
def test_every_kind_is_explained(catalogue, train, config_of, kind):
    config = config_of(kind=kind, dim=4, hidden=(8,), numeric=("price",), bottom=(4,))
    served = load(catalogue, train(catalogue, 1, [ROW], config=config).name)
    found = explained(served, ROW)
    assert {share.feature for share in found.shares} >= {"source", "item", "price"}
    assert all(math.isfinite(share.log_odds) for share in found.shares)
    assert any(share.log_odds != 0 for share in found.shares)


def test_what_a_key_has_learned_is_read_from_the_newest_part_that_says_it(catalogue, train):
    base = train(catalogue, 1, [ROW, {"source": "u2", "item": "i2"}], step=0.5)
    delta = train(catalogue, 2, [ROW], step=2.0, parent=base, delta=True)
    model = make_model(ModelConfig.from_dict(dict(delta.model_config)))
    touched = row_of(catalogue, delta, *key_of(model, "item=i1"))
    assert (touched.checkpoint, touched.weights) == (delta.name, (2.0,))
    assert touched.version == touched.shard_version == 1
    assert touched.touched_ms == 2_000
    before = row_of(catalogue, delta, *key_of(model, "item=i2"))
    assert (before.checkpoint, before.weights) == (base.name, (0.5,))
    assert row_of(catalogue, delta, *key_of(model, "item=?")) is None
    for wrong, words in (("item", "FEATURE=VALUE"), ("price=3", "source, item")):
        with pytest.raises(ValueError, match=words):
            key_of(model, wrong)
    placed = make_model(ModelConfig(categorical=("shown_at", "shown_at*item")))
    for wrong in ("shown_at=abc", "shown_at*item=abc*i1"):
        with pytest.raises(ValueError, match="shown_at='abc': expected a whole number"):
            key_of(placed, wrong)


def test_the_key_of_a_pair_is_the_one_that_rows_have():
    model = make_model(ModelConfig(categorical=("source", "source*item")))
    table, key = key_of(model, "source*item=u1*i*1")
    definition = define_model(model.config)
    assert table == definition.spec.tables[0].name
    assert key not in (0, key_of(model, "source=u1")[1], key_of(model, "source*item=u1*i")[1])
    assert np.uint64(key) > 0


def test_both_commands_print_what_was_found(tmp_path, train, capsys):
    store = Catalogue(Directory(str(tmp_path / "store")), "clicks")
    train(store, 3, [ROW], step=0.5)
    config = tmp_path / "shop.toml"
    config.write_text("")
    options = ["--config", str(config), "--set", f"checkpointer.root={tmp_path / 'store'}"]
    assert main(["predict", json.dumps({"source": "u1", "item": "?"}), *options]) == 0
    said = capsys.readouterr().out
    assert "+0.5000" in said
    assert "has learned nothing" in said
    assert "00000003-c: log odds -0.5986 (prior -1.0986)" in said
    assert main(["predict", json.dumps({"source": "u1"}), "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["shares"][0]["feature"] == "source"
    assert main(["predict", "{", *options]) == 2
    assert main(["inspect", "item=i1", "item=?", *options]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 (shard" in said
    assert "has learned nothing" in said
    assert main(["inspect", "price=1", *options]) == 2
