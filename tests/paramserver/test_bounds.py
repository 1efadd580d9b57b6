"""How far learners may run ahead and how many batches run at once: an operator's setting, and a
governor's (K6, K7)."""

import pytest
from clock_driver import ADMITTED, WAIT, Driver

from paramserver.bounds import Bounds, PaceLevel
from paramserver.messages import StartOutcome
from paramserver.ports import PortRefused


def test_a_paused_learner_keeps_its_lease_and_holds_nobody_back():
    d = Driver(staleness=0, lease_ms=1_000)
    a, b = d.join("a"), d.join("b")
    assert d.start(a, 0).clock == 0
    d.clocks.set_paused("m", True)
    assert d.ended(a, 0)
    for _ in range(30):
        d.now_ms += 500
        assert d.start(a, 1).outcome is StartOutcome.WAIT_PAUSED
        assert d.start(b, 100).outcome is StartOutcome.WAIT_PAUSED
        d.clocks.tick(d.now_ms)
    d.clocks.set_paused("m", False)
    assert d.start(a, 1).outcome is ADMITTED  # b, which never started, counts as parked
    assert d.start(b, 100).outcome is ADMITTED


def test_concurrency_bounds_the_batches_of_all_learners():
    d = Driver(staleness=-1)
    a, b, c = d.join("a"), d.join("b"), d.join("c")
    d.clocks.set_concurrency("m", 2)
    assert d.start(a, 0).clock == 0
    assert d.start(a, 1).clock == 1
    assert d.start(b, 100).outcome is WAIT
    assert d.ended(a, 1)
    assert d.start(b, 100).clock == 0
    assert d.start(c, 200).outcome is WAIT
    d.clocks.set_concurrency("m", 0)
    assert d.start(c, 200).outcome is ADMITTED
    with pytest.raises(PortRefused, match="concurrency -1"):
        d.clocks.set_concurrency("m", -1)


def test_at_s_0_and_concurrency_1_learners_take_turns():
    d = Driver(staleness=0)
    a, b = d.join("a"), d.join("b")
    d.clocks.set_concurrency("m", 1)
    turns = []
    for _ in range(6):
        for who, name in ((a, "a"), (b, "b")):
            if d.start(who, len(turns)).outcome is ADMITTED:
                turns.append(name)
                assert d.start(b if who is a else a, 500).outcome is WAIT
                clock = next(iter(d.clocks.models["m"].members[who].outstanding))
                assert d.ended(who, clock)
    assert turns == ["a", "b"] * 6


def test_the_batch_of_a_dead_learner_counts_until_every_shard_has_fenced_it():
    d = Driver(staleness=-1, lease_ms=1_000)
    a, b = d.join("a"), d.join("b")
    d.clocks.set_concurrency("m", 1)
    assert d.start(a, 0).outcome is ADMITTED
    d.now_ms += 900
    d.clocks.renew("m", b, "waiting", d.now_ms)
    d.now_ms += 900
    d.clocks.tick(d.now_ms)
    assert d.start(b, 1).outcome is WAIT
    d.confirm_all()
    assert d.start(b, 1).outcome is ADMITTED


def test_what_an_operator_ordered_outlives_the_clock_holder():
    d = Driver(staleness=2)
    d.clocks.set_paused("m", True)
    d.clocks.set_staleness("m", 0)
    d.clocks.set_concurrency("m", 3)
    d.clocks.set_compensation("m", "dc_asgd")
    again = Driver(staleness=2)
    again.clocks.load_settings(d.clocks.settings)
    assert again.clocks.ways() == {"m": "dc_asgd"}
    a = again.join("a")
    assert again.clocks.join("m", "b", 0).staleness == 0
    assert again.start(a, 0).outcome is StartOutcome.WAIT_PAUSED
    assert again.clocks.models["m"].concurrency == 3
    reconfigured = Driver(staleness=5)
    reconfigured.clocks.load_settings(d.clocks.settings)
    assert reconfigured.clocks.join("m", "a", 0).staleness == 5  # the config has been changed since


def govern(
    d: Driver, sequence: int, level: PaceLevel, lease_ms: int = 1_000, governor: str = "g"
) -> Bounds:
    return d.clocks.govern("m", governor, sequence, level, lease_ms, d.now_ms)


def test_a_governor_tightens_until_its_lease_runs_out():
    d = Driver(staleness=-1)
    a, b = d.join("a"), d.join("b")
    said = govern(d, 1, PaceLevel(0, 1))
    assert said == Bounds(PaceLevel(-1), False, 2, "g", PaceLevel(0, 1), 1_000, 1)
    assert said.in_force == PaceLevel(0, 1)
    assert d.start(a, 0).outcome is ADMITTED
    assert d.start(b, 100).outcome is WAIT
    d.now_ms += 999
    assert d.start(b, 100).outcome is WAIT
    d.now_ms += 1
    assert d.clocks.bounds("m", d.now_ms) == Bounds(PaceLevel(-1), False, 2, sequence=1)
    assert d.start(b, 100).outcome is ADMITTED
    assert d.clocks.settings == {}  # nothing of it is durable


@pytest.mark.parametrize(
    ("ordered", "governed", "in_force"),
    [
        (PaceLevel(1, 0), PaceLevel(4, 0), PaceLevel(1, 0)),
        (PaceLevel(-1, 3), PaceLevel(0, 8), PaceLevel(0, 3)),
        (PaceLevel(0, 0), PaceLevel(-1, 2), PaceLevel(0, 2)),
        (PaceLevel(-1, 0), PaceLevel(-1, 0), PaceLevel(-1, 0)),
    ],
)
def test_of_two_words_the_tighter_number_is_in_force(
    ordered: PaceLevel, governed: PaceLevel, in_force: PaceLevel
):
    d = Driver(staleness=ordered.staleness)
    d.clocks.set_concurrency("m", ordered.concurrency)
    assert govern(d, 1, governed).in_force == in_force


def test_an_overtaken_word_and_another_governor_change_nothing():
    d = Driver(staleness=4)
    govern(d, 2, PaceLevel(0))
    assert govern(d, 1, PaceLevel(1)).governed == PaceLevel(0)
    assert govern(d, 2, PaceLevel(1), 9_000).left_ms == 1_000
    assert govern(d, 9, PaceLevel(1), governor="other").governor == "g"
    assert govern(d, 3, PaceLevel(0), lease_ms=0).governor == ""  # given back
    assert govern(d, 1, PaceLevel(1)).governor == ""
    assert govern(d, 1, PaceLevel(1), governor="other").governor == "other"


def test_the_last_cut_is_told_by_name():
    d = Driver(staleness=0)
    assert d.clocks.bounds("m", 0).cut == ""
    d.clocks.hold("m", "c1", 100, {}, 0)
    d.clocks.release("m", "c1")
    assert govern(d, 1, PaceLevel(0)).cut == d.clocks.bounds("m", 0).cut == "c1"


def test_a_governor_does_not_lift_a_pause():
    d = Driver(staleness=0)
    a = d.join("a")
    d.clocks.set_paused("m", True)
    assert govern(d, 1, PaceLevel(-1)).paused
    assert d.start(a, 0).outcome is StartOutcome.WAIT_PAUSED


@pytest.mark.parametrize(
    "word",
    [
        (0, PaceLevel(0), 1, "g"),
        (1, PaceLevel(-2), 1, "g"),
        (1, PaceLevel(0, -1), 1, "g"),
        (1, PaceLevel(0), -1, "g"),
        (1, PaceLevel(0), 600_001, "g"),
        (1, PaceLevel(0), 1, ""),
    ],
)
def test_a_word_that_cannot_be_is_refused(word: tuple[int, PaceLevel, int, str]):
    d = Driver(staleness=0)
    with pytest.raises(PortRefused, match="expected"):
        govern(d, *word)
    assert d.clocks.bounds("m", 0).governor == ""
