"""How features of catalogues are declared, and what is refused."""

import pytest

from everspun import loads
from everspun.config import ConfigError
from learners.models import Encoder
from stream.log import topic_specs

CONFIG = """
[stream]
topic_prefix = "shop."
categorical_features = ["colour"]
[features.title]
kind = "text"
catalogue = "items"
[features.age]
kind = "numeric"
catalogue = "people"
key = "source"
[features.hex]
catalogue = "colours"
key = "colour"
[model]
kind = "fm"
categorical = ["title", "hex"]
numeric = ["age"]
dim = 4
"""


def test_they_are_columns_of_examples_that_no_event_sends():
    stream = loads(CONFIG).stream
    assert [f.name for f in stream.features] == ["colour"]
    assert [f.name for f in stream.examples_features] == ["colour", "title", "age", "hex"]
    assert stream.catalogues == {n: f"shop.{n}" for n in ("items", "people", "colours")}


def test_a_model_asks_for_their_keys_too():
    model = loads(CONFIG).model
    assert {f.name for f in Encoder(model).features} == {"title", "age", "hex", "colour"}
    assert not Encoder(model).is_plain


def test_their_topics_are_compacted_later_than_impressions_go():
    stream = loads(CONFIG).stream
    specs = {spec.name: spec for spec in topic_specs(stream)}
    one = specs["shop.items"]
    assert one.partitions == 1
    assert one.settings["cleanup.policy"] == "compact"
    lag_ms = int(one.settings["min.compaction.lag.ms"])
    assert lag_ms >= specs["shop.impressions"].retention_ms


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('key = "colour"', "of a feature of a catalogue alone"),
        ('catalogue = "a b"', "the name of a topic"),
        ('catalogue = "examples"', "the pipeline's own"),
        ('catalogue = "items"\nkey = "size"', "allowed are item, vendor, source"),
        ('catalogue = "items"\nkind = "counter"\nof = "item"', "has none"),
        ('catalogue = "items"\npersonal = true', "personal"),
        ('catalogue = "items"\nkind = "image"', "store"),
        ('catalogue = "items"\nkind = "time"\nof = "ts_ms"', "of = "),
    ],
)
def test_what_cannot_be_is_refused_by_name(said, words):
    with pytest.raises(ConfigError, match=words):
        loads(f"[features.x]\n{said}\n")
