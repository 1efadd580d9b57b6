"""Rounds before a move (S6)."""

import pytest

from checkpointer.cuts.move_preparation import ENOUGH_MS, ROUNDS_MAX, Preparation
from paramserver import SlotMap


@pytest.mark.parametrize(
    ("lasting", "rounds"),
    [
        ([10], 1),  # short enough
        ([9_000, 2_000, 250], 3),  # shorter and shorter, until it is
        ([4_000, 3_900], 2),  # as much is learned as is read
        ([8_000, 4_000, 2_000, 1_000, 500], ROUNDS_MAX),
    ],
)
def test_rounds_go_on_while_they_get_shorter(lasting, rounds):
    coming, now_ms = Preparation(SlotMap.even(2, epoch=2)), 50_000
    for ms in lasting:
        coming.cut(now_ms)
        assert coming.lasts_ms(now_ms + ms) == ms
        now_ms += ms
        if coming.enough(now_ms):
            break
    assert coming.rounds == rounds
    assert ENOUGH_MS > 250
