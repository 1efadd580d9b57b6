"""The poison bench's own judgement: what it makes is bad for certain, and what is amiss with the
bad it sees."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from bench.attacks.poison_inputs import LARGE, SMALL, Inputs, Now, good_event
from bench.attacks.poison_internal import TOPICS, claim, malformed
from stream import Record, StreamConfig
from stream.decoding import decode_clicks, decode_impressions
from stream.log import Headers

NOW = Now(1_700_000_000_000, 1, 3)
CONFIG = StreamConfig(partitions=3, categorical_features=("event",))


def is_bad(value: bytes | None, key: bytes | None = b"s", headers: Headers = ()) -> bool:
    """For both inputs; times are judged elsewhere, so a time that is far off is not looked at
    here."""
    records = [Record(5, NOW.ts_ms, key, value, headers)]
    for decode in (decode_impressions, decode_clicks):
        rows, bad = decode(records, NOW.partition, np.array([NOW.ts_ms]), CONFIG)
        if len(bad) != 1 or len(rows):
            return False
    return True


@pytest.mark.parametrize(
    "maker", [one for one in SMALL if one.__name__ != "untimely"], ids=lambda m: m.__name__
)
def test_every_small_kind_is_bad_for_certain(maker: Callable[[random.Random, Now], bytes]):
    for seed in range(30):
        value = maker(random.Random(seed), NOW)
        assert is_bad(value), value[:300]


@pytest.mark.parametrize("maker", LARGE, ids=lambda m: m.__name__)
def test_every_large_kind_is_bad_for_certain(maker: Callable[[random.Random, Now], bytes]):
    value = maker(random.Random(1), NOW)
    assert is_bad(value), value[:300]
    assert len(value) < CONFIG.record_bytes_max


def test_a_good_event_is_good():
    import json

    assert not is_bad(json.dumps(good_event(NOW)).encode())


def test_inputs_are_a_function_of_the_seed():
    makers = [Inputs(random.Random(7)) for _ in range(2)]
    first, second = ([one.make("clicks", NOW) for _ in range(200)] for one in makers)
    assert first == second
    assert {one.kind for one in first} >= {"fuzz", "empty", "truncated"}


@pytest.mark.parametrize("topic", TOPICS)
def test_what_is_made_for_internal_topics_says_nothing(topic: str):
    rng = random.Random(topic)
    made = [malformed(rng, topic, NOW, "") for _ in range(40)]
    assert {one.topic for one in made} == {topic}
    assert len({one.value for one in made} | {one.headers for one in made}) > 5


def test_claims_go_beyond_any_log():
    made = [claim(random.Random(seed), NOW, "x.") for seed in range(20)]
    assert {one.topic for one in made} == {"verdicts", "signals"}
