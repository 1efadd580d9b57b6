"""When a process that ended is started again."""

from hypothesis import given
from hypothesis import strategies as st

from everspun.launcher.restarts import MINUTE_MS, WAIT_FIRST_MS, Restarts


def test_a_killed_process_comes_back_at_once_and_one_that_fails_waits_twice_as_long_each_time():
    killed, failing = Restarts(20, 5_000), Restarts(20, 5_000)
    waits = []
    for second in range(6):
        killed.on_start(second * 1_000)
        failing.on_start(second * 1_000)
        assert killed.on_end(second * 1_000 + 500, killed=True) == 0
        waits.append(failing.on_end(second * 1_000 + 500, killed=False))
    assert waits == [500, 1_000, 2_000, 4_000, 5_000, 5_000]
    assert failing.keeps_ending(6_000)
    assert failing.since_ms == 500
    assert killed.keeps_ending(6_000), "it comes back at once, and it is said"


def test_even_kills_wait_beyond_the_limit_of_a_minute_and_a_minute_of_life_ends_it():
    one = Restarts(3, 5_000)
    now = 0
    for n in range(5):
        one.on_start(now)
        now += 10
        assert (one.on_end(now, killed=True) == 5_000) == (n >= 3)
    assert one.keeps_ending(now)
    one.on_start(now)
    one.settle(now + MINUTE_MS, now)
    assert one.ends == 0
    assert not one.keeps_ending(now + MINUTE_MS)
    assert one.on_end(now + MINUTE_MS + 1, killed=False) == WAIT_FIRST_MS


@given(
    st.lists(st.tuples(st.integers(0, 200_000), st.booleans())),
    st.integers(0, 30),
    st.integers(1, 60_000),
)
def test_it_is_always_started_again_within_the_longest_wait_and_remembers_no_more_than_a_minute(
    lives, limit, wait_max
):
    one, now = Restarts(limit, wait_max), 0
    for lived_ms, killed in lives:
        one.on_start(now)
        now += lived_ms
        wait = one.on_end(now, killed)
        assert 0 <= wait <= wait_max
        assert len(one.starts_ms) <= limit + 2
        if lived_ms >= MINUTE_MS:
            assert one.ends == 1
        now += wait


def test_a_process_that_is_killed_again_and_again_keeps_ending_until_it_lives_for_a_minute():
    history, now_ms, kept = Restarts(20, 60_000), 0, []
    for _ in range(6):
        history.on_start(now_ms)
        now_ms += 8_000
        assert history.on_end(now_ms, killed=True) == 0
        kept.append(history.keeps_ending(now_ms))
    assert kept == [False] * 4 + [True] * 2
    history.on_start(now_ms)
    assert not history.keeps_ending(now_ms + 60_000)
