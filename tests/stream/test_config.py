import pytest

from stream.columns import FeatureColumn
from stream.config import StreamConfig


def test_features_come_in_the_order_of_their_columns():
    config = StreamConfig(
        categorical_features=["b", "a"], numeric_features=["c"], personal_features=["a"]
    )
    assert config.features == (
        FeatureColumn("b", "categorical"),
        FeatureColumn("a", "categorical", personal=True),
        FeatureColumn("c", "numeric"),
    )


def test_every_topic_has_the_prefix():
    config = StreamConfig(topic_prefix="shop.")
    assert (config.impressions, config.checkpoints) == ("shop.impressions", "shop.checkpoints")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"partitions": 0}, "partitions = 0"),
        ({"window_ms": -1}, "window_ms = -1"),
        ({"grace_ms": -1}, "grace_ms = -1"),
        ({"heartbeat_ms": 600_000}, "heartbeat_ms = 600000: allowed is below jump_max_ms"),
        ({"categorical_features": ("a",), "numeric_features": ("a",)}, "declared once"),
        ({"categorical_features": ("not ok",)}, "not ok"),
        ({"personal_features": ("a",)}, "personal_features"),
    ],
)
def test_an_impossible_value_is_refused(changed: dict[str, object], says: str):
    with pytest.raises(ValueError, match=says):
        StreamConfig(**changed)


@pytest.mark.parametrize("arguments", [("a", "number"), ("1a", "numeric"), ("a", "numeric", True)])
def test_an_impossible_feature_is_refused(arguments: tuple):
    with pytest.raises(ValueError, match="feature"):
        FeatureColumn(*arguments)
