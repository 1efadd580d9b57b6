"""Random events of every kind of feature are the same bits in training and in serving; 100,000 of
them in `make slow`, some thousands here."""

import random
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import skew

from everspun import loads
from learners.models import Encoder
from stream.columns import DESCRIBES, Feature


@pytest.mark.long
def test_random_events_are_the_same_bits_in_training_and_in_serving():
    found = skew.run(2_000, seed=1)
    assert found["equal"] + found["refused"] == 2_000
    assert found["equal"] > 1_200
    assert found["refused"] > 50


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_100_000_random_events_are_the_same_bits_in_training_and_in_serving():
    assert skew.run(100_000, 3)["rounds"] == 200


def test_every_kind_and_every_option_that_changes_a_number_is_drawn():
    drawn: Counter[str] = Counter()
    for seed in range(60):
        config = loads(skew.declaration(random.Random(seed)))
        for said in config.model.declared.values():
            drawn.update([*said, said["kind"]])
    elsewhere = {"store"}  # of pictures
    assert set(skew.KINDS) <= set(drawn)
    assert {f.name for f in fields(Feature)} - set(DESCRIBES) - elsewhere <= set(drawn)


@pytest.mark.parametrize("kind", ["keys", "numbers", "bags"])
def test_a_difference_in_one_bit_is_found(kind: str, monkeypatch: pytest.MonkeyPatch):
    encode = Encoder.encode

    def other(self, columns, serving=False):
        found = encode(self, columns, serving)
        if serving and kind == "keys":
            found.keys[-1, 0] ^= np.uint64(1)
        if serving and kind == "numbers":
            found.numbers[-1, -1] = np.nextafter(found.numbers[-1, -1], np.float32(9))
        if serving and kind == "bags":
            found.bags[0].weights[-1] = np.nextafter(found.bags[0].weights[-1], np.float32(9))
        return found

    monkeypatch.setattr(Encoder, "encode", other)
    with pytest.raises(skew.Difference, match="keys, numbers, bags or pictures differ"):
        skew.run(100, 1)


def test_an_event_that_only_one_side_takes_is_found(monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(1)
    config = loads(skew.declaration(rng, catalogues=False))
    good = skew.event(config, rng, 0) | {"features": {}}
    bad = skew.event(config, rng, 1) | {"features": {"list0": "no list"}}
    assert skew.compare(config, [good, bad], rng) == {"equal": 1, "refused": 1}
    asked = skew.asked
    monkeypatch.setattr(skew, "asked", lambda model, events, rng: asked(model, [good], rng))
    with pytest.raises(skew.Difference, match="quarantined, and answered"):
        skew.compare(config, [good, bad], rng)
