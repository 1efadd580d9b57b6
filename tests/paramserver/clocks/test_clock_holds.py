"""The stop lease of a cut (X1): who may still start under it, and how it ends."""

from clock_driver import ADMITTED, WAIT_CUT, Driver


def test_a_hold_stops_starts_but_not_what_catches_up():
    d = Driver(staleness=2)
    a, b = d.join("a"), d.join("b")
    d.start(a, 0, 10)
    assert d.clocks.hold("m", "cut", 1_000, {"label/0": 10}, 0)
    assert not d.clocks.hold("m", "other", 1_000, {}, 0)
    reply = d.start(b, 10, 20)
    assert reply.outcome is WAIT_CUT
    assert reply.highest == {"label/0": 10}
    assert d.start(b, 5, 10).outcome is ADMITTED
    assert d.start(b, 10, 10, barrier=1).outcome is ADMITTED
    assert d.start(b, 0, 5, chain="label/1").outcome is WAIT_CUT
    d.clocks.release("m", "other")
    assert d.start(b, 10, 20).outcome is WAIT_CUT
    d.clocks.release("m", "cut")
    assert d.start(b, 10, 20).outcome is ADMITTED


def test_a_hold_runs_out_by_itself():
    d = Driver()
    a = d.join("a")
    assert d.clocks.hold("m", "cut", 1_000, {}, 0)
    d.now_ms = 999
    assert d.start(a, 0).outcome is WAIT_CUT
    d.now_ms = 1_000
    assert d.start(a, 0).outcome is ADMITTED
    assert d.clocks.hold("m", "other", 1_000, {}, 1_000)


def test_a_learner_stopped_by_a_hold_reenters_at_the_minimum():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    d.start(a, 0)
    d.start(b, 100, 101, "label/1")
    d.ended(a, 0)
    assert d.clocks.hold("m", "cut", 1_000, {"label/1": 105}, 0)
    d.ended(b, 0)
    for n in range(101, 105):
        clock = d.start(b, n, n + 1, "label/1").clock
        assert clock == n - 100
        d.ended(b, clock)
    d.clocks.release("m", "cut")
    assert d.start(a, 1).clock == 5


def test_a_learner_fenced_in_the_middle_of_a_batch_breaks_the_hold():
    d = Driver()
    a = d.join("a")
    d.start(a, 0)
    assert d.clocks.hold("m", "cut", 10_000, {}, 0)
    d.now_ms = 2_000
    d.clocks.tick(d.now_ms)
    assert not d.clocks.hold("m", "cut", 10_000, {}, d.now_ms)
    assert d.clocks.hold("m", "cut-2", 10_000, {}, d.now_ms)
