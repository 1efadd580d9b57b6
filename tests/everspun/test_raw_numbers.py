import logging

import pytest

from everspun.config import Config
from everspun.roles import check_model
from everspun.roles.model_check import raw_numbers
from learners import ModelConfig
from stream import StreamConfig

STREAM = StreamConfig(numeric_features=("price",))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, ["price"]),
        ({"kind": "fm"}, ["price"]),
        ({"transforms": {"price": "none"}}, ["price"]),
        ({"transforms": {"price": "log1p"}}, []),
        ({"bounds": {"price": [0, 50]}}, []),
        ({"bounds": {"price": [-500, 5]}}, ["price"]),
        ({"kind": "mlp"}, []),
    ],
)
def test_a_raw_number_in_a_linear_model_is_warned_of(settings, found, caplog):
    config = Config(stream=STREAM, model=ModelConfig(numeric=("price",), **settings))
    assert raw_numbers(config) == found
    with caplog.at_level(logging.WARNING):
        check_model(config)
    assert ("transforms.price = 'log1p'" in caplog.text) == bool(found)
