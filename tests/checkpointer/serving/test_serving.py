import math
from dataclasses import replace

import numpy as np
import pytest

from checkpointer.serving.loading import load
from checkpointer.serving.request import of_rows
from checkpointer.serving.serving import Answer, Fallback, prior, probe, reply_to
from checkpointer.store import Catalogue, Damaged
from checkpointer.store.files import MemoryFiles
from paramserver import SLOTS, Progress
from paramserver.parts import ServingPart

EMPTY = Progress({}, {}, 0, 0)
ROWS = [{"source": "u1", "item": "i1"}, {"source": "u2", "item": "i2"}]


@pytest.fixture
def catalogue():
    return Catalogue(MemoryFiles(), "clicks")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_a_checkpoint_answers_with_its_weights_and_the_prior_for_what_it_does_not_know(
    catalogue, train
):
    manifest = train(catalogue, 3, ROWS, step=0.5)
    served = load(catalogue, manifest.name, manifest.sha256)
    asked = of_rows([*ROWS, {"source": "u1"}, {"source": "?", "item": "?"}], served.features)
    prior = math.log(0.25 / 0.75)
    expected = [sigmoid(prior + 1.0), sigmoid(prior + 1.0), sigmoid(prior + 0.5), 0.25]
    np.testing.assert_allclose(served.predict(asked.columns), expected, rtol=1e-6)
    assert served.rows == 4
    assert served.version == manifest.name
    assert probe(served, ROWS[:1]) == pytest.approx([0.25, sigmoid(prior + 1.0)], rel=1e-6)
    assert served.not_finite() == []
    assert len(served.predict(of_rows([], served.features).columns)) == 0


def test_an_mlp_answers_through_torch(catalogue, train, config_of):
    config = config_of(
        kind="mlp", dim=4, hidden=(8,), numeric=("price",), categorical=("source", "colour")
    )
    manifest = train(catalogue, 1, [{"source": "u1", "features": {"colour": "red"}}], config=config)
    served = load(catalogue, manifest.name)
    assert [f.name for f in served.features] == ["colour", "price"]
    rows = [{"source": "u1", "features": {"colour": "red", "price": 3}}, {"source": "u9"}]
    answers = served.predict(of_rows(rows, served.features).columns)
    assert np.isfinite(answers).all()
    assert answers[0] != answers[1]


def test_replies_say_which_model_and_how_old(catalogue, train):
    served = load(catalogue, train(catalogue, 3, ROWS).name)
    body = reply_to(served, served.answer(b'{"rows": [{}]}', 1), now_ms=5_001)
    assert (body["model_version"], body["fallback"]) == (served.version, False)
    assert (body["data_age_s"], body["model_age_s"]) == (2.0, 4.998)
    none = reply_to(Fallback("no model", "prior"), Answer(prior(2, 0.1), ("x",)), now_ms=0)
    assert none.pop("probabilities").tolist() == [0.1, 0.1]
    assert none == {
        "model_version": "",
        "fallback": True,
        "reason": "no model",
        "fallback_by": "prior",
        "data_age_s": None,
        "model_age_s": None,
        "ignored": ["x"],
    }


def test_what_is_not_finite_is_named(catalogue, train):
    served = load(catalogue, train(catalogue, 1, ROWS).name)
    keys, rows = served.weights.tables["weights"].items()
    part = ServingPart(
        "clicks", served.manifest.spec.digest, 0, np.arange(SLOTS, dtype=np.int32), EMPTY,
        {"weights": (keys[:1], np.full((1, 1), np.nan, np.float32))}, {}, "a parent",
    )  # fmt: skip
    served.tables.apply([part])
    assert served.tables.publish().not_finite() == ["table weights"]
    served.tables.apply([replace(part, tables={"weights": (keys[:1], rows[:1])})])
    assert served.tables.publish().not_finite() == []
    assert served.not_finite() == []


@pytest.mark.parametrize(
    "harm", ["flip", "cut short", "missing", "another cut's part", "no manifest", "newer format"]
)
def test_a_damaged_checkpoint_is_refused_by_name(catalogue, train, harm):
    other, manifest = train(catalogue, 1, ROWS), train(catalogue, 2, ROWS)
    path = f"clicks/{manifest.name}/part-1.safetensors"
    contents = catalogue.files.contents
    if harm == "flip":
        contents[path] = contents[path][:-1] + bytes([contents[path][-1] ^ 1])
    elif harm == "cut short":
        contents[path] = contents[path][:-1]
    elif harm == "missing":
        del contents[path]
    elif harm == "another cut's part":
        contents[path] = contents[f"clicks/{other.name}/part-1.safetensors"]
    elif harm == "no manifest":
        del contents[f"clicks/{manifest.name}/manifest.json"]
    else:
        text = contents[f"clicks/{manifest.name}/manifest.json"]
        contents[f"clicks/{manifest.name}/manifest.json"] = text.replace(
            b'"format":2', b'"format":3'
        )
    with pytest.raises(Damaged, match=manifest.name):
        load(Catalogue(catalogue.files, "clicks"), manifest.name)
    assert load(Catalogue(catalogue.files, "clicks"), other.name).version == other.name


def test_a_delta_is_applied_to_what_is_held_or_loaded_by_way_of_its_base(catalogue, train):
    base = train(catalogue, 1, ROWS)
    delta = train(catalogue, 2, ROWS[:1], step=3.0, parent=base, delta=True)
    held = load(catalogue, base.name)
    asked = of_rows(ROWS, held.features).columns
    prior = math.log(0.25 / 0.75)
    expected = [
        sigmoid(prior + 6.0),
        sigmoid(prior + 2.0),
    ]  # the second row's keys were not touched again
    for served in (load(catalogue, delta.name, held=held), load(catalogue, delta.name)):
        np.testing.assert_allclose(served.predict(asked), expected, rtol=1e-6)
        assert served.version == delta.name
    np.testing.assert_allclose(
        held.predict(asked), [sigmoid(prior + 2.0)] * 2, rtol=1e-6
    )  # answers as before (I6)
    other = load(catalogue, train(catalogue, 3, ROWS[1:]).name)
    np.testing.assert_allclose(
        load(catalogue, delta.name, held=other).predict(asked), expected, rtol=1e-6
    )


@pytest.mark.parametrize("serving", [False, True])
def test_a_base_that_follows_what_is_held_is_not_read(catalogue, train, serving):
    first = train(catalogue, 1, ROWS, serving=serving)
    second = train(catalogue, 2, ROWS, step=2.0, parent=first, serving=serving)
    assert second.is_full
    held = load(catalogue, first.name)
    read = []
    catalogue.files.read, really = (
        lambda path: (read.append(path), really(path))[1],
        (catalogue.files.read),
    )
    served = load(catalogue, second.name, held=held)
    parts = [path.rsplit("/", 1)[-1] for path in read if path.endswith("safetensors")]
    kind = "serving-delta" if serving else "part"
    assert parts == [f"{kind}-{shard}.safetensors" for shard in range(2)]
    assert served.upon == (first.name if serving else "")
    asked = of_rows(ROWS, held.features).columns
    prior_ = math.log(0.25 / 0.75)
    np.testing.assert_allclose(served.predict(asked), [sigmoid(prior_ + 4.0)] * 2, rtol=1e-6)
    np.testing.assert_allclose(held.predict(asked), [sigmoid(prior_ + 2.0)] * 2, rtol=1e-6)


def test_what_is_damaged_on_the_way_changes_nothing_of_what_is_held(catalogue, train):
    first = train(catalogue, 1, ROWS, serving=True)
    held = load(catalogue, first.name)
    second = train(catalogue, 2, ROWS, step=2.0, parent=first, serving=True)
    path = f"clicks/{second.name}/serving-delta-1.safetensors"
    whole = catalogue.files.contents[path]
    catalogue.files.contents[path] = whole[:-1] + bytes([whole[-1] ^ 1])
    with pytest.raises(Damaged, match=r"serving-delta-1\.safetensors"):
        load(catalogue, second.name, held=held)
    catalogue.files.contents[path] = whole
    assert load(catalogue, second.name, held=held).upon == first.name


def test_a_replica_reads_weights_alone(catalogue, train):
    """The same answers, from files without optimizer state."""
    manifest = train(catalogue, 1, ROWS, serving=True)
    asked = of_rows(ROWS, load(catalogue, manifest.name).features).columns
    served = load(catalogue, manifest.name).predict(asked)
    for part in manifest.parts:
        file = part.serving_file(None)
        assert file is not None
        assert file.rows == part.rows
        assert file.bytes < part.bytes
        catalogue.files.contents[f"clicks/{manifest.name}/{part.path}"] = b""
    np.testing.assert_array_equal(load(catalogue, manifest.name).predict(asked), served)


def test_a_delta_without_its_base_is_refused_by_name(catalogue, train):
    base = train(catalogue, 1, ROWS)
    delta = train(catalogue, 2, ROWS[:1], parent=base, delta=True)
    catalogue.files.delete(f"clicks/{base.name}")
    with pytest.raises(Damaged, match=r"its parent .* is not there"):
        load(Catalogue(catalogue.files, "clicks"), delta.name)
