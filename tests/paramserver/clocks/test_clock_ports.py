"""One contract for both implementations of the clock's port: in memory, and over gRPC on unix
sockets."""

import pytest
from any_ports import Ports, a_push

from paramserver.bounds import Bounds, PaceLevel
from paramserver.messages import (
    Outcome,
    StartOutcome,
    StartRequest,
)
from paramserver.ports import AllowRequest, JoinReply, PortRefused


def test_clocks_admit_wait_and_know_who_is_fenced(ports: Ports):
    ports.begin()
    a = ports.join("a")
    b = ports.join("b")
    assert a.staleness == 1

    def start(joined: JoinReply, at: int):
        return ports.clock.start(StartRequest("clicks", joined.epoch, "label/0", at, at + 1))

    first = start(a, 0)
    assert first.outcome is StartOutcome.ADMITTED
    assert start(a, 0) == first
    assert start(b, 0).outcome is StartOutcome.ADMITTED
    assert start(a, 1).outcome is StartOutcome.ADMITTED
    assert start(a, 2).outcome is StartOutcome.WAIT_STALENESS
    assert ports.clock.renew("clicks", a.epoch, "computing") == {0: 1, 1: 1}
    again = ports.join("a")
    assert start(a, 2).outcome is StartOutcome.FENCED
    assert ports.clock.renew("clicks", a.epoch, "computing") is None
    assert not ports.clock.ended("clicks", a.epoch, first.clock)
    assert not ports.clock.park("clicks", a.epoch)
    assert again.epoch.n > b.epoch.n
    assert ports.shards[1].push(a_push(a.epoch, 1)).outcome is Outcome.FENCED


def test_a_hold_stops_starts_and_says_how_far_one_may_go(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    assert ports.clock.hold("clicks", "c1", 60_000, {"label/0": 10})
    assert not ports.clock.hold("clicks", "c2", 60_000, {})
    reply = ports.clock.start(StartRequest("clicks", epoch, "label/0", 5, 15))
    assert reply.outcome is StartOutcome.WAIT_CUT
    assert reply.highest == {"label/0": 10}
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 5, 10)).outcome
        is StartOutcome.ADMITTED
    )
    ports.clock.release("clicks", "c1")
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 10, 15)).outcome
        is StartOutcome.ADMITTED
    )


def test_staleness_is_set_while_it_runs(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    ports.clock.set_staleness("clicks", 0)
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 0, 1)).outcome
        is StartOutcome.ADMITTED
    )
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 1, 2)).outcome
        is StartOutcome.WAIT_STALENESS
    )
    with pytest.raises(PortRefused, match="staleness -3"):
        ports.clock.set_staleness("clicks", -3)


def test_concurrency_and_compensation_are_set_while_it_runs(ports: Ports):
    ports.begin()
    a, b = ports.join("a").epoch, ports.join("b").epoch
    ports.clock.set_concurrency("clicks", 1)
    assert (
        ports.clock.start(StartRequest("clicks", a, "label/0", 0, 10)).outcome
        is StartOutcome.ADMITTED
    )
    asked = StartRequest("clicks", b, "label/1", 0, 10)
    assert ports.clock.start(asked).outcome is StartOutcome.WAIT_STALENESS
    ports.clock.set_concurrency("clicks", 0)
    assert ports.clock.start(asked).outcome is StartOutcome.ADMITTED
    ports.clock.set_compensation("clicks", "staleness_rate")
    with pytest.raises(PortRefused, match="compensation 'hope'"):
        ports.clock.set_compensation("clicks", "hope")
    with pytest.raises(PortRefused, match="concurrency -3"):
        ports.clock.set_concurrency("clicks", -3)


def test_a_governor_speaks_beside_the_operator(ports: Ports):
    ports.begin()
    a, b = ports.join("a").epoch, ports.join("b").epoch
    ports.clock.set_staleness("clicks", 4)
    assert ports.clock.bounds("clicks") == Bounds(PaceLevel(4), False, 2)
    said = ports.clock.govern("clicks", "governor-0", 7, PaceLevel(0, 1), 60_000)
    assert said[:5] == (PaceLevel(4), False, 2, "governor-0", PaceLevel(0, 1))
    assert 0 < said.left_ms <= 60_000
    assert said.sequence == 7
    assert (
        ports.clock.start(StartRequest("clicks", a, "label/0", 0, 10)).outcome
        is StartOutcome.ADMITTED
    )
    asked = StartRequest("clicks", b, "label/1", 0, 10)
    assert ports.clock.start(asked).outcome is StartOutcome.WAIT_STALENESS
    ports.clock.govern("clicks", "governor-0", 8, PaceLevel(0, 1), 0)
    assert ports.clock.bounds("clicks").governor == ""
    assert ports.clock.start(asked).outcome is StartOutcome.ADMITTED
    with pytest.raises(PortRefused, match="sequence 0"):
        ports.clock.govern("clicks", "governor-0", 0, PaceLevel(0), 1_000)


def test_a_list_for_another_incarnation_or_map_is_not_adopted(ports: Ports):
    """K5c, and 0 is the incarnation of a shard that the clock holder has not heard of: nobody's."""
    ports.begin()
    epoch = ports.join("a").epoch
    assert ports.shards[1].allow(AllowRequest(99, 1, (), incarnation=0)) == (1, 1)
    assert ports.shards[1].push(a_push(epoch, 1)).outcome is Outcome.APPLIED
    assert ports.shards[1].allow(AllowRequest(99, 1, (), incarnation=1, map_epoch=7)) == (1, 1)
    assert ports.shards[1].allow(AllowRequest(99, 1, (), incarnation=7)) == (1, 1)
    assert ports.shards[1].push(a_push(epoch, 1, start=10, end=20)).outcome is Outcome.APPLIED
    assert ports.shards[1].allow(AllowRequest(99, 1, (), incarnation=1)) == (1, 1)
    assert ports.shards[1].push(a_push(epoch, 1, start=20, end=30)).outcome is Outcome.FENCED


def test_paused_training_starts_nothing_but_what_a_cut_lacks(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    ports.clock.set_paused("clicks", True)
    asked = StartRequest("clicks", epoch, "label/0", 0, 10)
    assert ports.clock.start(asked).outcome is StartOutcome.WAIT_PAUSED
    assert ports.clock.hold("clicks", "c1", 60_000, {"label/0": 10})
    admitted = ports.clock.start(asked)
    assert admitted.outcome is StartOutcome.ADMITTED
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 10, 20)).outcome
        is StartOutcome.WAIT_CUT
    )
    assert ports.clock.ended("clicks", epoch, admitted.clock)
    ports.clock.release("clicks", "c1")
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 10, 20)).outcome
        is StartOutcome.WAIT_PAUSED
    )
    ports.clock.set_paused("clicks", False)
    assert (
        ports.clock.start(StartRequest("clicks", epoch, "label/0", 10, 20)).outcome
        is StartOutcome.ADMITTED
    )
