"""Keys and rows dealt to shards come together again bit for bit."""

import numpy as np
import pytest

from learners.training.key_sharding import Deal
from paramserver.slots import SlotMap

RNG = np.random.default_rng(3)
KEYS = np.unique(RNG.integers(1, 1 << 63, 5_000).astype(np.uint64))


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("dim", [1, 16, 19])
def test_rows_dealt_apart_come_together(shards: int, dim: int) -> None:
    slot_map = SlotMap.even(shards)
    deal = Deal.of(KEYS, slot_map)
    rows = RNG.integers(0, 1 << 32, (len(KEYS), dim), np.uint32).view(
        np.float32
    )  # infinities and NaN too
    dealt = deal.apart(rows)
    for mine, keys, got in zip(slot_map.split(KEYS), deal.keys, dealt, strict=True):
        np.testing.assert_array_equal(keys, KEYS[mine])
        np.testing.assert_array_equal(got.view(np.uint32), rows[mine].view(np.uint32))
    np.testing.assert_array_equal(deal.together(dealt).view(np.uint32), rows.view(np.uint32))


def test_strided_rows_and_a_shard_without_keys() -> None:
    slot_map = SlotMap.even(4)
    keys = KEYS[slot_map.split(KEYS)[2]]
    deal = Deal.of(keys, slot_map)
    rows = RNG.normal(size=(len(keys), 8)).astype(np.float32)[:, ::2]
    dealt = deal.apart(rows)
    assert [len(got) for got in dealt] == [0, 0, len(keys), 0]
    np.testing.assert_array_equal(deal.together(dealt), rows)


def test_an_answer_for_other_keys_is_refused() -> None:
    deal = Deal.of(KEYS, SlotMap.even(2))
    dealt = deal.apart(np.zeros((len(KEYS), 4), np.float32))
    with pytest.raises(ValueError, match="keys of 4 numbers each"):
        deal.together([dealt[0], dealt[1][:-1]])
