"""The forward pass that serves says what torch's says."""

import numpy as np
import pytest

from learners.config import ModelConfig
from learners.models.features import Encoded
from learners.models.model import make_model
from learners.models.network_forward import forward_of


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "mlp"},
        {"kind": "mlp", "numeric": ("price",), "hidden": ()},
        {"kind": "dlrm"},
        {"kind": "dlrm", "numeric": ("price", "age"), "bottom": (5,)},
        {"kind": "dcn", "cross_layers": 3, "numeric": ("price",)},
        {"kind": "dcn", "cross_layers": 2, "cross_rank": 2},
    ],
)
@pytest.mark.parametrize("count", [1, 37])
def test_both_ways_agree(options, count):
    given = {"hidden": (8, 6), "dim": 4} | options
    config = ModelConfig(categorical=("source", "item", "vendor"), **given)
    model, draw = make_model(config), np.random.default_rng(3)
    dense = {
        name: draw.standard_normal(array.shape).astype(np.float32)
        for name, array in model.initial_dense().items()
    }
    rows = draw.standard_normal((11, 4)).astype(np.float32)
    place = draw.integers(0, 11, (count, 3))
    numbers = draw.standard_normal((count, len(config.numeric))).astype(np.float32)
    table = model.spec.tables[0].name
    encoded = Encoded(np.empty((count, 0), np.uint64), numbers)
    expected = model.kind.predict({table: place}, {table: rows}, dense, encoded)
    forward = forward_of(config, dense)
    assert forward is not None
    np.testing.assert_allclose(forward(place, rows, numbers), expected, rtol=2e-4, atol=1e-6)
    assert np.ptp(expected) > 0 or count == 1
    assert forward_of(ModelConfig(kind="lr"), {}) is None
