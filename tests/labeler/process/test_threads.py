"""When a labeler's threads take their turns."""

import threading

import pytest

from labeler.process.threads import LabellingLoop, Turns


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
    """Moves in each turn; `sending` of them are followed by a wait for the log."""

    def __init__(self, sending: bool, turns: int):
        self.in_flight, self._left, self.ending = sending, turns, Ending()

    def own(self, partitions):
        pass

    def run_once(self, now_ms, wait_ms):
        self._left -= 1
        if not self._left:
            self.ending.set()
        return True

    def wait(self, timeout_ms):
        pass

    def idle(self, now_ms):
        return False

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


@pytest.mark.parametrize(("sending", "rests"), [(False, 5), (True, 0)])
def test_what_comes_a_little_at_a_time_is_read_together_unless_the_log_is_waited_for(
    sending, rests
):
    step = Step(sending, turns=5)
    loop = LabellingLoop(step, lambda: [0], lambda: 0, poll_ms=60_000)
    loop.run(step.ending, lambda headers: None, lambda: False)
    assert len(step.ending.waits_s) == rests
    assert all(59 < s <= 60 for s in step.ending.waits_s)
