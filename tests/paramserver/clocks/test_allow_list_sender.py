"""The allow list on its way to shards (K5): whom a list is for, and when it is sent again."""

import pytest

from paramserver.clocks.allow_list_sender import AllowListSender
from paramserver.clocks.clocks import Clocks
from paramserver.messages import Epoch, Outcome
from paramserver.ports import AllowReply, AllowRequest, PortRefused
from paramserver.shard.allow_list import AllowList


def begun(shards: int = 1) -> tuple[Clocks, AllowListSender]:
    clocks = Clocks(3, shards, 0, lease_ms=100, stated_max_ms=1_000)
    return clocks, AllowListSender(clocks)


def test_a_shard_that_nobody_has_heard_of_is_asked_who_it_is_and_then_told():
    clocks, sender = begun()
    epoch = clocks.join("m", "a", 1_000).epoch
    first = sender.message(0)
    assert (first.incarnation, first.map_epoch, first.epochs) == (0, 1, (epoch,))
    assert sender.answered(0, first, AllowReply(7, 1)), "another one answered: again, at once"
    assert clocks.unconfirmed() == [0]
    second = sender.message(0)
    assert second.incarnation == 7
    assert not sender.answered(0, second, AllowReply(7, 1))
    assert clocks.unconfirmed() == []


def test_an_older_incarnation_is_not_told_again_at_once():
    """Its process is about to end (S2d): to repeat the list until then would be a busy loop."""
    clocks, sender = begun()
    sent = AllowRequest(3, 2, (), incarnation=7, map_epoch=1)
    assert not sender.answered(0, sent, AllowReply(1, 1))
    assert clocks.unconfirmed() == [0]


def test_a_list_of_a_former_map_confirms_nothing():
    clocks, sender = begun(2)
    sent = [sender.message(shard) for shard in sender.shards()]
    clocks.remap(2, 1)
    for shard in (0, 1):
        named = AllowRequest(3, sent[shard].sequence, (), 7, 1)
        assert not sender.answered(shard, named, AllowReply(7, 1))
    assert not clocks.settled
    assert list(sender.shards()) == [0]
    assert sender.message(1) is None
    assert sender.message(0).map_epoch == 2


def test_an_expelled_learner_changes_the_list():
    clocks, sender = begun()
    clocks.join("m", "a", 1_000)
    assert not sender.tick(1_100)
    assert sender.tick(1_101)
    assert sender.message(0).epochs == ()
    assert not sender.tick(1_102)


def test_what_an_operator_ordered_goes_with_it():
    clocks, sender = begun()
    clocks.set_compensation("m", "staleness_rate")
    assert sender.message(0).ways == {"m": "staleness_rate"}


def test_a_list_counts_in_its_order_and_for_whom_it_names():
    allowed, a, b = AllowList(), Epoch(3, 1), Epoch(3, 2)
    assert allowed.era is None
    assert allowed.refuses(a) is Outcome.NO_ERA
    for incarnation, map_epoch in ((0, 1), (8, 1), (7, 0), (7, 2)):
        assert not allowed.adopt(AllowRequest(3, 5, (a,), incarnation, map_epoch), 7, 1)
    assert allowed.era is None
    assert allowed.adopt(AllowRequest(3, 5, (a,), 7, 1), 7, 1)
    assert (allowed.refuses(a), allowed.refuses(b)) == (None, Outcome.FENCED)
    assert allowed.refuses(Epoch(4, 1)) is Outcome.NO_ERA
    assert not allowed.adopt(AllowRequest(3, 5, (b,), 7, 1), 7, 1), "the same again"
    assert not allowed.adopt(AllowRequest(3, 4, (b,), 7, 1), 7, 1), "overtaken"
    assert allowed.adopt(AllowRequest(3, 6, (b,)), 7, 1), "for whichever it is"
    assert allowed.epochs == {b}
    assert allowed.adopt(AllowRequest(4, 1, (), 7, 1), 7, 1)
    assert allowed.refuses(b) is Outcome.FENCED
    with pytest.raises(PortRefused, match="era 3 is over"):
        allowed.adopt(AllowRequest(3, 99, (a,), 7, 1), 7, 1)
