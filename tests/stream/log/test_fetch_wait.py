"""A fetch waits at the broker the longer, the longer nothing came."""

from stream.log.fetch_wait import FETCH_WAIT_MAX_MS, FETCH_WAIT_MS, FetchWait


def test_it_grows_with_quiet_and_falls_back_when_anything_moves():
    wait = FetchWait(100.0)
    assert [wait.wait_ms(100.0 + s) for s in (0.0, 0.3, 1.0, 1.5, 60.0)] == [
        FETCH_WAIT_MS,
        FETCH_WAIT_MS,
        250,
        375,
        FETCH_WAIT_MAX_MS,
    ]
    wait.moved(160.0)
    assert wait.wait_ms(160.1) == FETCH_WAIT_MS
    assert wait.wait_ms(50.0) == FETCH_WAIT_MS  # a clock that went back is no quiet
