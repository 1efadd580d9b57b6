"""Keys and rows dealt to shards come together again bit for bit."""

import numpy as np
import pytest

from learners.training.key_sharding import KeySharding
from paramserver import SlotMap

RNG = np.random.default_rng(3)
KEYS = np.unique(RNG.integers(1, 1 << 63, 5_000).astype(np.uint64))


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("dim", [1, 16, 19])
def test_rows_dealt_apart_come_together(shards: int, dim: int) -> None:
    slot_map = SlotMap.even(shards)
    sharding = KeySharding.of(KEYS, slot_map)
    rows = RNG.integers(0, 1 << 32, (len(KEYS), dim), np.uint32).view(
        np.float32
    )  # infinities and NaN too
    by_shard = sharding.apart(rows)
    for mine, keys, got in zip(slot_map.split(KEYS), sharding.keys, by_shard, strict=True):
        np.testing.assert_array_equal(keys, KEYS[mine])
        np.testing.assert_array_equal(got.view(np.uint32), rows[mine].view(np.uint32))
    np.testing.assert_array_equal(sharding.together(by_shard).view(np.uint32), rows.view(np.uint32))


def test_strided_rows_and_a_shard_without_keys() -> None:
    slot_map = SlotMap.even(4)
    keys = KEYS[slot_map.split(KEYS)[2]]
    sharding = KeySharding.of(keys, slot_map)
    rows = RNG.normal(size=(len(keys), 8)).astype(np.float32)[:, ::2]
    by_shard = sharding.apart(rows)
    assert [len(got) for got in by_shard] == [0, 0, len(keys), 0]
    np.testing.assert_array_equal(sharding.together(by_shard), rows)


def test_an_answer_for_other_keys_is_refused() -> None:
    sharding = KeySharding.of(KEYS, SlotMap.even(2))
    by_shard = sharding.apart(np.zeros((len(KEYS), 4), np.float32))
    with pytest.raises(ValueError, match="keys of 4 numbers each"):
        sharding.together([by_shard[0], by_shard[1][:-1]])
