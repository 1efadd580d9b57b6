"""A shard under any pushes, against a ledger in plain Python; sums that do not depend on how
rows are split."""

import itertools
from dataclasses import replace

from clicks_shard import CHAINS, LEARNER, assert_same, frozen, hash_of, new_shard, push_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paramserver.messages import (
    Outcome,
    PushRequest,
)
from paramserver.ports import AllowRequest
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap
from stream.kernels import HASH_MODULUS


class ShardAsLedger(RuleBasedStateMachine):
    """Pushes in any order, repeated, split and overlapping, with restarts from marks, against two
    simple twins.

    `ledger` holds what a chain has learned as a list of positions; `straight` is a shard that was
    never restarted and got each applied push once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.incarnation = 1
        self.shard = new_shard()
        self.straight = new_shard()
        self.ledger = dict(CHAINS)
        self.applied: list[PushRequest] = []
        self.cut: tuple[str, dict[str, object], int] | None = None
        self.cuts = 0

    @rule(
        chain=st.sampled_from(sorted(CHAINS)),
        back=st.integers(-2, 4),
        length=st.integers(1, 5),
        seed=st.integers(0, 2),
    )
    def push(self, chain, back, length, seed):
        at = self.ledger[chain]
        start = max(at - back, 0)
        request = push_of(chain, start, start + length, self.shard, seed)
        reply = self.shard.push(request)
        if start == at:
            assert reply.outcome is Outcome.APPLIED
            self.ledger[chain] = request.end
            self.straight.push(replace(request, incarnation=1))
            self.applied.append(request)
        elif request.end <= at:
            assert reply.outcome is Outcome.DUPLICATE
        else:
            assert reply.outcome is (Outcome.GAP if start > at else Outcome.OVERLAP)
        assert reply.end == self.ledger[chain]

    @rule(which=st.integers(0, 10))
    def repeat_an_old_push(self, which):
        if self.applied:
            old = replace(self.applied[which % len(self.applied)], incarnation=self.incarnation)
            if old.end <= self.ledger[old.chain]:
                assert self.shard.push(old).outcome is Outcome.DUPLICATE

    @rule()
    def mark(self):
        self.cuts += 1
        name = f"cut-{self.cuts}"
        assert self.shard.mark("clicks", name, self.ledger).marked
        self.cut = (name, frozen(self.shard.snapshot("clicks")), len(self.applied))

    @rule()
    def crash_and_return_from_the_cut(self):
        """The learner then sends again what the shard lost: the end is as if nothing had
        happened."""
        if self.cut is None:
            return
        name, _, count = self.cut
        part = self.shard.marked("clicks", name)
        self.incarnation += 1
        self.shard = Shard(0, self.incarnation, SlotMap.even(1))
        self.shard.allow(AllowRequest(1, 1, (LEARNER,)))
        self.shard.restore([part], "aa")
        for request in self.applied[count:]:
            assert self.shard.push(request).outcome in (Outcome.WRONG_INCARNATION, Outcome.APPLIED)
        for request in self.applied[count:]:
            self.shard.push(replace(request, incarnation=self.incarnation))
        self.cut = None

    @invariant()
    def holds(self):
        self.shard.validate()
        assert_same(self.shard.snapshot("clicks"), self.straight.snapshot("clicks"))
        if self.cut is not None:
            assert_same(self.shard.marked("clicks", self.cut[0]), self.cut[1])
        for chain, at in self.shard.progress("clicks").progress.chains.items():
            assert at.end == self.ledger[chain]
            assert (
                at.row_hash
                == sum(hash_of(chain, i) for i in range(CHAINS[chain], at.end)) % HASH_MODULUS
            )


TestShardAsLedger = ShardAsLedger.TestCase
TestShardAsLedger.settings = settings(
    max_examples=settings.default.max_examples * 40 // 100, stateful_step_count=20, deadline=None
)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
@settings(max_examples=settings.default.max_examples * 30 // 100, deadline=None)
def test_splits_and_boundaries_do_not_change_the_hash(lengths, data):
    """S7: h is a sum over rows, so how a range was cut into batches leaves no trace in it."""
    end = 10 + sum(lengths)
    cuts = sorted(data.draw(st.sets(st.integers(10, end))) | {10, end})
    one, other = new_shard(), new_shard()
    at = 10
    for length in lengths:
        one.push(push_of("label/0", at, at + length))
        at += length
    for start, stop in itertools.pairwise(cuts):
        other.push(push_of("label/0", start, stop, seed=1))
    a, b = (s.progress("clicks").progress.chains["label/0"] for s in (one, other))
    assert a == b


def test_the_same_pushes_give_the_same_bytes_on_two_shards():
    shards = [new_shard(index, shards=2) for index in range(2)]
    copies_of_it = [new_shard(index, shards=2) for index in range(2)]
    for group in (shards, copies_of_it):
        for shard in group:
            for at in range(10, 40, 5):
                assert shard.push(push_of("label/0", at, at + 5, shard)).outcome is Outcome.APPLIED
    for shard, copy_of_it in zip(shards, copies_of_it, strict=True):
        shard.validate()
        assert_same(shard.snapshot("clicks"), copy_of_it.snapshot("clicks"))
