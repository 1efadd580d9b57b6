"""A learner that is held back asks seldom, and is not late."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.pacing.start_backoff import PAUSE_MS_MAX, StartBackoff


def wait_of(backoff: StartBackoff, began_ms: int, opens_ms: int) -> tuple[int, int]:
    """(asks, ms late) of one start that is admitted from `opens_ms` on."""
    now, asks = began_ms, 1
    while now < opens_ms:
        now += backoff.held_back(now)
        asks += 1
    backoff.admitted(now)
    return asks, now - max(opens_ms, began_ms)


@pytest.mark.parametrize("wait_ms", [5, 20, 80, 160, 1_000])
def test_equal_waits_take_few_asks_and_little_time(wait_ms):
    backoff, now = StartBackoff(2), 0
    for _ in range(10):
        asks, late = wait_of(backoff, now, now + wait_ms)
        now += 5_000
    assert asks <= 2 + 1.5 * math.log2(wait_ms), "every 2 ms would be wait_ms / 2"
    assert late <= max(2, wait_ms / 8)


def test_shorter_waits_are_learned():
    backoff, now = StartBackoff(2), 0
    for wait_ms in [400] * 8 + [10] * 12:
        _, late = wait_of(backoff, now, now + wait_ms)
        now += 5_000
    assert late <= 10
    for _ in range(12):
        wait_of(backoff, now, now)
    assert backoff.expected_ms < 1, "who is not held back expects nothing"


@given(st.lists(st.integers(0, 5_000), max_size=30), st.integers(1, 400))
def test_no_pause_is_shorter_than_asked_for_or_without_end(waits, least_ms):
    backoff, now = StartBackoff(least_ms), 0
    for wait_ms in waits:
        opens = now + wait_ms
        while now < opens:
            pause = backoff.held_back(now)
            assert least_ms <= pause <= max(least_ms, PAUSE_MS_MAX)
            now += pause
        backoff.admitted(now)


def test_a_wait_of_another_epoch_does_not_count():
    backoff = StartBackoff(2)
    backoff.held_back(0)
    backoff.forget()
    backoff.admitted(10_000)
    assert backoff.expected_ms == 0
