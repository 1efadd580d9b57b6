"""When a labeler's threads take their turns."""

import threading

import pytest

from labeler.process.threads import LabellingLoop, Turns
from stream import Loop


def test_a_turn_begins_no_sooner_than_so_long_after_the_last_one_began():
    now_s = [100.0]
    turns = Turns(50, lambda: now_s[0])
    assert turns.rest_s == 0.0, "the first begins at once"
    turns.begin()
    assert turns.rest_s == pytest.approx(0.05)
    now_s[0] += 0.03
    assert turns.rest_s == pytest.approx(0.02)
    now_s[0] += 0.03
    assert turns.rest_s == 0.0


class Step:
    """Takes so many turns; with `sending` something is on its way to the log after each."""

    def __init__(self, sending: bool, turns: int, moves: bool = True):
        self.in_flight, self._left, self.ending = sending, turns, Ending()
        self._moves = moves
        self.waits_ms: list[int] = []

    def own(self, partitions):
        pass

    def run_once(self, now_ms, wait_ms):
        self._left -= 1
        if not self._left:
            self.ending.set()
        return self._moves

    def wait(self, timeout_ms):
        self.waits_ms.append(timeout_ms)

    def take_acknowledged(self):
        return []


class Ending(threading.Event):
    """Notes for how long it was waited."""

    def __init__(self):
        super().__init__()
        self.waits_s: list[float] = []

    def wait(self, timeout=None):
        self.waits_s.append(timeout)
        return self.is_set()


def test_who_can_do_nothing_and_returns_at_once_rests_too():
    """Late verdicts that wait for labels were looked at again and again, and labels had no core."""
    step = Step(sending=False, turns=5, moves=False)
    LabellingLoop(step, lambda: [0], lambda: 0, 60_000, Loop(lambda: 0.0)).run(
        step.ending, lambda headers: None, lambda: False
    )
    assert len(step.ending.waits_s) == 5
    assert all(59 < s <= 60 for s in step.ending.waits_s)


@pytest.mark.parametrize("sending", [False, True])
def test_what_comes_a_little_at_a_time_is_read_together_or_once_the_log_has_what_was_sent(sending):
    step = Step(sending, turns=5)
    loop = LabellingLoop(step, lambda: [0], lambda: 0, 60_000, Loop(lambda: 0.0))
    loop.run(step.ending, lambda headers: None, lambda: False)
    waits_s = [ms / 1_000 for ms in step.waits_ms] if sending else step.ending.waits_s
    assert len(waits_s) == 5
    assert all(59 < s <= 60 for s in waits_s)
    assert not (step.ending.waits_s if sending else step.waits_ms)


def test_a_long_turn_waits_for_what_is_on_its_way_where_it_moved_nothing():
    now_s = [0.0]
    turns = Turns(50, lambda: now_s[0])
    turns.begin()
    now_s[0] = 0.2
    assert (turns.wait_ms(moved=True), turns.wait_ms(moved=False)) == (0, 5)
