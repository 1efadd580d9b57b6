"""The clocks against the definition of stale synchronous parallel (K1-K5, I4)."""

import pytest
from clock_driver import ADMITTED, FENCED, WAIT, WAIT_CUT, Driver

from paramserver.clocks.clocks import Clocks
from paramserver.messages import Epoch, StartRequest
from paramserver.ports import (
    BoundsRequest,
    PortRefused,
    RenewReply,
    RenewRequest,
    SetStalenessRequest,
)


def test_two_learners_at_s_0_walk_in_step():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    assert d.start(a, 0).clock == 0
    assert d.start(b, 100).clock == 0
    assert d.start(a, 1).outcome is WAIT  # its own batch has not ended
    assert d.ended(a, 0)
    assert d.start(a, 1).outcome is WAIT  # b's has not
    assert d.ended(b, 0)
    assert d.start(a, 1).clock == 1


def test_at_s_0_a_learner_alone_has_one_batch_in_flight():
    d = Driver()
    a = d.join("a")
    assert d.start(a, 0).clock == 0
    assert d.start(a, 1).outcome is WAIT
    d.ended(a, 0)
    assert d.start(a, 1).clock == 1


def test_an_old_confirmation_is_not_one_of_the_present_list():
    d = Driver()
    a = d.join("a")
    old = d.clocks.allow_list()
    b = d.clocks.join("m", "b", 0).epoch
    for shard in range(2):
        d.clocks.confirm(old.era, old.sequence, shard, 1)
    assert d.start(b, 0).outcome is WAIT
    assert d.start(a, 0).outcome is ADMITTED


def test_a_batch_may_run_ahead_by_s():
    d = Driver(staleness=2)
    a, b = d.join("a"), d.join("b")
    assert d.start(b, 100).clock == 0
    assert [d.start(a, n).outcome for n in range(4)] == [ADMITTED] * 3 + [WAIT]


def test_unbounded_starts_never_wait():
    d = Driver(staleness=-1)
    a, b = d.join("a"), d.join("b")
    d.start(b, 100)
    assert {d.start(a, n).outcome for n in range(50)} == {ADMITTED}


def test_a_repeated_start_is_the_same_batch():
    d = Driver()
    a = d.join("a")
    assert d.start(a, 0).clock == 0
    assert d.start(a, 0).clock == 0
    assert d.clocks.counts["admitted"] == 1
    d.ended(a, 0)
    assert d.start(a, 0).clock == 1  # after a rewind the same range is a new batch


def test_a_start_that_arrives_late_admits_nothing():
    d = Driver()
    a = d.join("a")
    first = StartRequest("m", a, "label/0", 0, 1, 0, ticket=1)
    d.tickets = 1
    assert d.start(a, 0).clock == 0
    d.ended(a, 0)
    assert d.clocks.start(first, 0).outcome is WAIT
    assert not d.clocks.models["m"].members[a].outstanding


def test_ended_is_idempotent_and_knows_only_its_clock():
    d = Driver(staleness=1)
    a = d.join("a")
    d.start(a, 0)
    d.start(a, 1)
    assert d.ended(a, 0)
    assert d.ended(a, 0)
    assert d.clocks.models["m"].members[a].acknowledged == 1


def test_a_joined_learner_starts_only_when_every_shard_knows_it():
    d = Driver()
    a = d.clocks.join("m", "a", 0).epoch
    allow = d.clocks.allow_list()
    d.clocks.confirm(allow.era, allow.sequence, 0, 1)
    assert d.start(a, 0).outcome is WAIT
    assert d.clocks.unconfirmed() == [1]
    d.clocks.confirm(allow.era, allow.sequence, 1, 1)
    assert d.start(a, 0).outcome is ADMITTED


def test_join_and_unpark_enter_at_the_minimum_and_parking_lowers_no_clock():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    for n in range(5):
        assert d.start(a, n).clock == n
        d.ended(a, n)
    assert (
        d.start(b, 100).clock == 5
    )  # unparked at the highest clock: nobody was outstanding, a stands at 5
    assert d.start(a, 5).clock == 5
    d.ended(a, 5)
    assert d.clocks.park("m", a, 0)
    assert d.start(a, 6).outcome is WAIT  # parking is no way past the bound
    assert d.clocks.join("m", "c", 0).clock == 5


def test_everybody_parked_then_the_highest_clock_counts():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    d.start(a, 0)
    d.ended(a, 0)
    assert d.clocks.park("m", a, 0)
    assert d.start(b, 100).clock == 1


def test_a_parked_learner_holds_no_one_back():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    assert d.start(b, 100).clock == 0
    assert d.start(a, 0).clock == 0
    d.ended(a, 0)
    d.ended(b, 0)
    d.clocks.park("m", b, 0)
    for n in range(1, 9):
        clock = d.start(a, n).clock
        assert clock == n
        d.ended(a, clock)


def test_park_with_a_batch_outstanding_changes_nothing():
    d = Driver()
    a = d.join("a")
    d.start(a, 0)
    assert d.clocks.park("m", a, 0)
    assert not d.clocks.models["m"].members[a].parked


def test_expel_fences_everywhere_before_it_leaves():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    d.start(a, 0)
    d.start(b, 100)
    d.ended(a, 0)
    d.now_ms = 900
    assert d.clocks.renew("m", a, "computing", d.now_ms) is not None
    d.now_ms = 1_500
    d.clocks.tick(d.now_ms)
    allow = d.clocks.allow_list()
    assert allow.epochs == (a,)
    assert not d.ended(b, 0)
    assert d.clocks.renew("m", b, "computing", d.now_ms) is None
    assert d.start(b, 101).outcome is FENCED
    assert d.start(a, 1).outcome is WAIT  # b may still be pushing to shard 1
    d.clocks.confirm(allow.era, allow.sequence, 0, 1)
    assert d.start(a, 1).outcome is WAIT
    d.clocks.confirm(allow.era, allow.sequence, 1, 1)
    assert d.start(a, 1).outcome is ADMITTED


def test_a_lease_is_prolonged_by_words_only_for_so_long():
    d = Driver(lease_ms=1_000, stated_max_ms=3_000)
    a = d.join("a")
    d.start(a, 0)
    for now in range(500, 10_000, 500):
        d.now_ms = now
        d.clocks.tick(now)
        if d.clocks.renew("m", a, "computing", now) is None:
            break
    assert 3_000 < d.now_ms <= 4_000


def test_waiting_for_the_clock_and_being_parked_keep_a_lease():
    d = Driver(lease_ms=1_000, stated_max_ms=2_000)
    a, b = d.join("a"), d.join("b")
    assert d.clocks.hold("m", "cut", 60_000, {}, 0)
    for now in range(500, 20_000, 500):
        d.now_ms = now
        d.clocks.tick(now)
        assert d.start(a, 0).outcome is WAIT_CUT
        assert d.clocks.renew("m", b, "parked", now) == {0: 1, 1: 1}


def test_joining_again_fences_the_older_epoch():
    d = Driver()
    a = d.join("a")
    d.start(a, 0)
    again = d.clocks.join("m", "a", 0).epoch
    assert again != a
    assert d.clocks.allow_list().epochs == (again,)
    assert d.start(a, 1).outcome is FENCED
    assert d.start(again, 0).outcome is WAIT
    d.confirm_all()
    assert d.start(again, 0).outcome is ADMITTED


def test_a_new_era_admits_nothing_before_every_shard_has_it():
    d = Driver()
    d.join("a")
    later = Clocks(2, 2, 0)
    b = later.join("m", "a", 0).epoch
    assert b.era == 2
    later.confirm(1, 99, 0, 1)  # an answer to the old era
    later.confirm(2, later.allow_list().sequence, 1, 1)
    assert later.start(StartRequest("m", b, "label/0", 0, 1), 0).outcome is WAIT
    assert later.unconfirmed() == [0]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="staleness -2"):
        Clocks(1, 2, -2)
    d = Driver()
    a = d.join("a")
    with pytest.raises(PortRefused, match="doing 'sleeping'"):
        d.clocks.renew("m", a, "sleeping", 0)
    with pytest.raises(PortRefused, match="staleness -2"):
        d.clocks.set_staleness("m", -2)
    with pytest.raises(ValueError, match="shard 7"):
        d.clocks.confirm(1, 1, 7, 1)


def test_nothing_is_settled_before_every_shard_has_confirmed_a_list():
    clocks = Clocks(1, 2, 0)
    assert clocks.unconfirmed() == [0, 1]
    assert not clocks.settled
    sequence = clocks.allow_list().sequence
    clocks.confirm(1, sequence, 0, 1)
    assert not clocks.settled
    clocks.confirm(1, sequence, 1, 1)
    assert clocks.settled
    clocks.remap(2, 3)
    assert clocks.unconfirmed() == [0, 1, 2]
    assert not clocks.settled


def test_a_call_is_answered_by_what_it_asks_for():
    """`perform`, for whoever carries calls: two that no port answers as the core does."""
    d = Driver(staleness=3)
    epoch = d.join("a")
    assert d.clocks.perform(RenewRequest("m", epoch, "waiting"), 1) == RenewReply(
        False, {0: 1, 1: 1}
    )
    stranger = Epoch(1, 99)
    assert d.clocks.perform(RenewRequest("m", stranger, "waiting"), 1) == RenewReply(True, {})
    assert d.clocks.perform(SetStalenessRequest("m", 1), 1) is None
    assert d.clocks.perform(BoundsRequest("m"), 1).ordered.staleness == 1
