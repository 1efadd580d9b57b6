"""What a shard keeps for a cut (X1, X2): the state at its mark, while pushes go on."""

import pytest
from clicks_shard import CHAINS, assert_same, frozen, new_shard, push_of

from paramserver.ports import PortRefused


def test_a_mark_keeps_the_state_at_its_vector_while_pushes_go_on():
    shard = new_shard()
    shard.push(push_of("label/0", 10, 20))
    there = {"label/0": 20, "label/1": 0}
    refusal = shard.mark("clicks", "cut-1", {"label/0": 21, "label/1": 0})
    assert not refusal.marked
    assert refusal.progress.chains["label/0"].end == 20
    assert not shard.mark("clicks", "cut-1", {"label/0": 20}).marked, "a vector names all chains"
    assert shard.mark("clicks", "cut-1", there).marked
    expected, progress = frozen(shard.snapshot("clicks")), shard.progress("clicks").progress
    shard.push(push_of("label/0", 20, 30))
    shard.push(push_of("label/1", 0, 30))
    shard.validate()
    assert_same(shard.marked("clicks", "cut-1"), expected)
    again = shard.mark("clicks", "cut-1", there)
    assert again.marked, "the same mark again is answered the same"
    assert again.progress == progress
    assert not shard.mark("clicks", "cut-2", there).marked, (
        "an unnamed past is not marked again under another name"
    )
    with pytest.raises(PortRefused, match="'cut-2'"):
        shard.marked("clicks", "cut-2")


def test_unmark_settle_and_parents():
    shard = new_shard()
    vector = dict(CHAINS)
    assert shard.parent("clicks") is None
    shard.mark("clicks", "cut-1", vector)
    shard.unmark("clicks", "cut-0")
    shard.marked("clicks", "cut-1")
    shard.unmark("clicks", "cut-1")
    shard.unmark("clicks", "cut-1")
    with pytest.raises(PortRefused):
        shard.marked("clicks", "cut-1")
    shard.settle("clicks", "cut-1", "aa")
    assert shard.parent("clicks") is None, "what is not marked here cannot be a parent"
    shard.push(push_of("label/0", 10, 20))
    shard.mark("clicks", "cut-2", {**vector, "label/0": 20})
    shard.push(push_of("label/0", 20, 30))
    shard.settle("clicks", "cut-2", "bb")
    shard.settle("clicks", "cut-2", "bb")
    assert (shard.parent("clicks").manifest_sha256, shard.parent("clicks").version) == ("bb", 1)
    with pytest.raises(PortRefused, match="mark it again"):
        shard.marked("clicks", "cut-2")


def test_a_later_mark_replaces_an_abandoned_one():
    shard = new_shard()
    assert shard.mark("clicks", "cut-1", CHAINS).marked
    shard.push(push_of("label/0", 10, 20))
    later = {**CHAINS, "label/0": 20}
    assert shard.mark("clicks", "cut-1", later).marked, "tried again under its name, further on"
    assert shard.mark("clicks", "cut-2", later).marked
    with pytest.raises(PortRefused):
        shard.marked("clicks", "cut-1")
    with pytest.raises(PortRefused, match="has not begun"):
        shard.mark("orders", "cut-1", CHAINS)
