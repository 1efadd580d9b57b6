"""A loop that does not end its turn hangs; one that waits, within a deadline or for work, lives."""

import json
import threading

import pytest
from prometheus_client import generate_latest

from stream.monitoring.liveness import Liveness
from stream.monitoring.metrics import RoleMetrics
from stream.monitoring.thread_loop import ThreadLoop, bounded_wait, got_on


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_loop_hangs_once_its_turn_takes_longer_than_the_limit(clock: Clock):
    liveness = Liveness(clock, turn_max_s=300.0)
    label, retract = liveness.loop("label"), liveness.loop("retract")
    label.turn()
    retract.turn()
    clock.now_s += 300.0
    assert (liveness.hang, label.silent_s) == ("", 300.0)
    label.turn()
    clock.now_s += 1.0
    assert liveness.hang == "loop retract has not turned for 301 s (limit 300)"
    retract.turn()
    assert liveness.hang == ""


def test_a_loop_that_rests_or_was_never_begun_does_not_hang(clock: Clock):
    liveness = Liveness(clock, turn_max_s=1.0)
    never, ended = liveness.loop("compute"), liveness.loop("label")
    ended.turn()
    ended.rest()
    clock.now_s += 1_000.0
    assert liveness.hang == ""
    assert (never.silent_s, ended.silent_s) == (0.0, 0.0)


def test_no_limit_no_hang_and_a_clock_behind_is_no_silence(clock: Clock):
    liveness = Liveness(clock, turn_max_s=0.0)
    loop = liveness.loop("label")
    loop.turn()
    clock.now_s += 1e6
    assert liveness.hang == ""
    clock.now_s -= 2e6
    assert loop.silent_s == 0.0


def test_what_is_read_is_progress_of_the_loop_of_its_own_thread_alone(clock: Clock):
    mine, theirs = ThreadLoop(clock), ThreadLoop(clock)
    other = threading.Thread(target=theirs.turn)
    other.start()
    other.join()
    mine.turn()
    clock.now_s += 50.0
    got_on()
    assert (mine.silent_s, theirs.silent_s) == (0.0, 50.0)
    mine.rest()
    got_on()
    assert not mine.is_turning, "a loop that rests is not woken by what its thread reads"


def test_a_wait_with_a_deadline_is_no_part_of_the_turn(clock: Clock):
    loop = ThreadLoop(clock)
    loop.turn()
    with bounded_wait():
        clock.now_s += 600.0
        with bounded_wait():
            clock.now_s += 600.0
        assert loop.silent_s == 0.0
    clock.now_s += 2.0
    assert loop.silent_s == 2.0, "the turn goes on behind it"
    with pytest.raises(OSError, match="late"), bounded_wait():
        raise OSError("late")
    assert loop.is_turning
    loop.rest()
    with bounded_wait():
        pass
    assert not loop.is_turning


def test_a_role_exports_for_how_long_each_loop_is_silent():
    metrics = RoleMetrics()
    loop = metrics.liveness.loop("label")
    assert b'everspun_loop_silent_s{loop="label"} 0.0' in generate_latest(metrics.registry)
    loop.turn()
    text = generate_latest(metrics.registry).decode()
    said = next(line for line in text.splitlines() if line.startswith("everspun_loop_silent_s{"))
    assert json.loads(said.split()[-1]) > 0
