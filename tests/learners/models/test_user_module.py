"""Torch modules of a user's own: what is refused, what is constant, and what names their code."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from learners.config import ModelConfig
from learners.models.model import code_of, make_model
from learners.models.user_module import code_digest
from learners.training import Prepared, gradient
from learners.training import unlearning as relearning
from stream.internal_topics import Again, row_hash_sum

HEAD = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, features, dim, numbers):
        super().__init__()
        self.layer = nn.Linear(features * dim + numbers, 1)
        self.scale = nn.Parameter(torch.full((1,), 2.0), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1))
    def forward(self, embeddings, numbers):
        x = torch.cat([embeddings.flatten(1), numbers], dim=1)
"""
GOOD = HEAD + "        return self.scale * self.layer(x)\n"
CONFIG = ModelConfig(
    kind="of_a_user:Net", categorical=("source", "item"), numeric=("price",), dim=4
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """write(source, name) -> a file that can be imported, in the place of what was imported by
    that name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source: str, name: str = "of_a_user") -> None:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        for known in ("of_a_user", "beside_it"):
            sys.modules.pop(known, None)

    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    yield write
    sys.dont_write_bytecode = before
    for known in ("of_a_user", "beside_it"):
        sys.modules.pop(known, None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return self.layer(x), self.scale", "forward answered a tuple, expected one tensor"),
        ("return {'logit': self.layer(x)}", "forward answered a dict"),
        ("return self.layer(x).mean()", r"forward answered torch.float32 \(\) for 7 rows"),
        ("return self.layer(x).long()", r"forward answered torch.int64 \(7, 1\)"),
        ("return self.layer(x - x.mean(0, keepdim=True))", "depends on the other rows"),
        (
            "return self.layer((x - x.mean(0)) / (x.std(0, unbiased=False) + 1))",
            "depends on the other rows",
        ),
        ("return self.layer(torch.softmax(x, dim=0))", "depends on the other rows"),
        ("return self.layer(x.sort(dim=0).values)", "depends on the other rows"),
        ("return self.layer(x).flip(0)", "depends on the other rows"),
        ("return self.layer(nn.functional.dropout(x, 0.5, True))", "draws at random"),
        ("self.seen += 1; return self.layer(x)", "changes buffer seen"),
        ("return self.layer(x) / 0", "a value that is not finite"),
        ("return self.layer(x.flatten())", "shapes cannot be multiplied"),
        ("raise KeyError('gone')", "forward of 7 rows raised 'gone'"),
        ("return self.layer(x).detach()", "it has no gradient: element 0 of tensors does not"),
    ],
)
def test_a_module_that_is_no_function_of_each_row_is_refused_in_one_line(module, body, said):
    module(HEAD + f"        {body}\n")
    with pytest.raises(ValueError, match=said) as error:
        make_model(CONFIG)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            GOOD.replace("nn.Linear(features * dim + numbers, 1)", "nn.LazyLinear(1)"),
            "has no shape before the first",
        ),
        (
            GOOD.replace("super().__init__()", "raise RuntimeError('no\\nroom')"),
            "its constructor raised no room",
        ),
        ("import torch\nraise OSError('no such disk')\n", "no such disk; it must be importable"),
        (
            GOOD.replace("torch.full((1,), 2.0)", "torch.zeros(1, dtype=torch.float64)"),
            "scale is torch.float64",
        ),
        ("def Net(): pass\n", "is not a subclass of torch.nn.Module"),
    ],
)
def test_a_module_that_cannot_be_made_is_refused_in_one_line(module, source, said):
    module(source)
    with pytest.raises(ValueError, match=said) as error:
        make_model(CONFIG)
    assert "\n" not in str(error.value)


def test_a_frozen_parameter_is_carried_and_not_trained(module):
    module(GOOD)
    model = make_model(CONFIG)
    assert model.spec.dense.shapes.keys() == {"scale", "layer.weight", "layer.bias"}
    assert model.kind.constants == {"scale"}
    assert model.initial_dense()["scale"].tolist() == [2.0]
    rows = pa.record_batch(
        {
            "position": np.arange(4),
            "ts_ms": np.full(4, 1),
            "arrival_ms": np.full(4, 1),
            "label": np.array([1, 0, 1, 0], np.int8),
            "weight": np.ones(4, np.float32),
            "source": list("abab"),
            "item": list("iijj"),
            "f_price": np.arange(4, dtype=np.float32),
        }
    )
    prepared: Prepared = gradient.prepare(model, rows)
    pulled = {"embeddings": np.ones((len(prepared.keys["embeddings"]), 4), np.float32)}
    computed = gradient.compute(model, prepared, pulled, model.initial_dense())
    assert computed.dense.keys() == {"layer.weight", "layer.bias"}
    assert np.abs(computed.dense["layer.bias"]).max() > 0


def some_rows(count: int, taken: int = 0) -> pa.RecordBatch:
    """The first `taken` are taken back."""
    ones = np.ones(count, np.float32)
    return pa.record_batch(
        {
            "position": np.where(np.arange(count) < taken, np.arange(count), -1),
            "ts_ms": np.full(count, 1),
            "arrival_ms": np.full(count, 1),
            "label": (np.arange(count) % 2).astype(np.int8),
            "weight": np.where(np.arange(count) < taken, -ones, ones).astype(np.float32),
            "source": ["a"] * count,
            "item": ["i"] * count,
            "f_price": ones,
        }
    )


FAILS = {
    "if len(x) > 8: raise IndexError('out of bounds')": "IndexError: out of bounds",
    "if len(x) > 8: return self.layer(x).expand(-1, 2)": r"forward answered torch.float32 \(9, 2\)",
    "if len(x) > 8: return None": "forward answered a NoneType",
    "if len(x) > 8: return self.layer(x).detach()": "RuntimeError: element 0 of tensors",
}


@pytest.mark.parametrize(("body", "said"), FAILS.items())
def test_a_batch_that_it_fails_for_is_pushed_empty_and_says_why(module, body, said):
    module(HEAD + f"        {body}\n        return self.layer(x)\n")
    model = make_model(CONFIG)
    for count in (8, 9):
        rows = some_rows(count)
        prepared = gradient.prepare(model, rows)
        pulled = {"embeddings": np.ones((len(prepared.keys["embeddings"]), 4), np.float32)}
        found = gradient.compute(model, prepared, pulled, model.initial_dense())
        assert found.row_hash == row_hash_sum(rows)
        assert found.row_count == count
        assert bool(found.keys) == (count == 8)
    assert found.cause == "module"
    assert re.match(f"kind = 'of_a_user:Net': .*{said}", found.reason)


def test_a_retraction_that_it_fails_for_is_pushed_empty(module):
    module(HEAD + "        assert len(x) < 8\n        return self.layer(x)\n")
    model = make_model(CONFIG)
    prepared = gradient.prepare(model, some_rows(10, taken=1))
    pulled = {"embeddings": np.zeros((len(prepared.keys["embeddings"]), 4), np.float32)}
    said = Again({"source": ["a"]}, [9]).encode()
    found = relearning.relearn(model, prepared, pulled, model.initial_dense(), said)
    assert (found.cause, found.rewrites, found.row_count) == ("module", False, 10)


def test_want_of_memory_is_no_fault_of_a_batch(module):
    module(HEAD + "        if len(x) > 8: raise MemoryError\n        return self.layer(x)\n")
    model = make_model(CONFIG)
    prepared = gradient.prepare(model, some_rows(9))
    pulled = {"embeddings": np.ones((len(prepared.keys["embeddings"]), 4), np.float32)}
    with pytest.raises(MemoryError):
        gradient.compute(model, prepared, pulled, model.initial_dense())


def test_changed_code_is_another_definition_and_a_comment_is_not(module):
    module(GOOD)
    before = make_model(CONFIG).spec.digest
    module(
        "# a comment\n"
        + GOOD.replace("self.scale * self.layer(x)", "(self.scale  *  self.layer(x))  # the same")
    )
    assert make_model(CONFIG).spec.digest == before
    module(GOOD.replace("self.scale * self", "self.scale + self"))
    after = make_model(CONFIG).spec.digest
    assert code_of(after) != code_of(before) != ""
    assert after.partition("-")[0] == before.partition("-")[0]
    assert make_model(replace(CONFIG, kind="lr")).spec.digest.count("-") == 0


def test_the_code_that_a_module_uses_beside_it_counts(module):
    module("def gate(x):\n    return x\n", "beside_it")
    module("import beside_it\n" + HEAD + "        return beside_it.gate(self.layer(x))\n")
    before = code_digest("of_a_user:Net")
    module("def gate(x):\n    return 2 * x\n", "beside_it")
    assert code_digest("of_a_user:Net") != before
