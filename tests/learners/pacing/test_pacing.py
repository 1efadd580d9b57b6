"""The pace of a learner, as readable scripts."""

from itertools import pairwise

import pytest
from pacing_script import EPOCH, Script, batch, progress, pushed

from learners.pacing import events
from learners.pacing import instructions as do
from paramserver import JoinReply, Outcome, StartOutcome, StartReply


def test_a_batch_from_join_to_end():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    assert seek.record == 0
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    assert s.one(do.Start).batch[:5] == (0, "label/0", 0, 10, 0)
    pulls = s.started()
    pushes = s.computed(pulls)
    assert s.one(do.Evaluate).clock == 0
    assert [(p.shard, p.start, p.end, p.next_record, p.read_version, p.result) for p in pushes] == [
        (0, 0, 10, 1, 7, "gradient"),
        (1, 0, 10, 1, 7, "gradient"),
    ]
    assert not s.answer(pushes[0], pushed(Outcome.APPLIED, 10))
    s.answer(pushes[1], pushed(Outcome.APPLIED, 10))
    assert s.one(do.Ended).clock == 0
    s.answer(s.one(do.Ended), True)
    s.say(events.Idle())
    s.answer(s.one(do.Park), True)
    assert s.pacer.parked


def test_it_seeks_to_the_smallest_and_trims_and_splits_at_every_end():
    s = Script()
    seek = s.joined(progress(15, 2), progress(5, 1))
    assert seek.record == 1
    s.say(events.Records(seek.seek, 0, [batch(1, 0, 10), batch(2, 10, 20)]))
    position = s.pacer.positions[0]
    assert position is not None
    assert [(b.start, b.end, b.next_record) for b in position.queue] == [
        (5, 10, 2),
        (10, 15, 2),
        (15, 20, 3),
    ]
    assert [position.scored(b) for b in position.queue] == [False, False, True]  # E1


def test_what_another_shard_has_applied_is_pushed_but_not_scored():
    s = Script()
    seek = s.joined(progress(10, 1), progress(0, 0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    pushes = s.computed(s.started())
    assert not s.all(do.Evaluate)
    s.answer(pushes[0], pushed(Outcome.DUPLICATE, 10))
    s.answer(pushes[1], pushed(Outcome.APPLIED, 10))
    assert s.one(do.Ended)


def test_an_overlap_is_split_and_keeps_its_stamp():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    pushes = s.computed(s.started(clock=4))
    s.answer(pushes[0], pushed(Outcome.OVERLAP, 6))
    compute = s.one(do.Compute)
    assert (compute.clock, compute.start, compute.end) == (4, 6, 10)
    assert not s.answer(pushes[1], pushed(Outcome.APPLIED, 10)), "not ended before all pieces are"
    s.say(events.Computed(4, 6, 10, "rest"))
    piece = s.one(do.Push)
    assert (piece.shard, piece.clock, piece.start, piece.end, piece.result) == (0, 4, 6, 10, "rest")
    assert not s.all(do.Evaluate)
    s.answer(piece, pushed(Outcome.APPLIED, 10))
    assert s.one(do.Ended).clock == 4


def test_a_newer_incarnation_rewinds_and_ends_what_was_outstanding():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10), batch(1, 10, 20)]))
    pushes = s.computed(s.started())
    s.answer(pushes[0], pushed(Outcome.WRONG_INCARNATION, -1, incarnation=2))
    assert s.one(do.Pause)
    assert not s.all(do.Ended), "shard 1 has not answered: its push may still take effect"
    asks = s.all(do.AskProgress)
    s.answer(pushes[1], pushed(Outcome.APPLIED, 10))
    ended = s.one(do.Ended)
    s.answer(asks[0], progress(0, None, incarnation=2))
    s.answer(asks[1], progress(10, 1))
    assert s.one(do.Seek).record is None, "shard 0 does not know a record: from the first one on"
    again = s.one(do.Seek)
    s.say(events.Records(seek.seek, 0, [batch(2, 20, 30)]))  # read before the rewind
    assert not s.all(do.Start)
    s.say(events.Records(again.seek, 0, [batch(0, 0, 10)]))
    assert not s.all(do.Start), "the abandoned one's end is not confirmed yet"
    s.answer(ended, True)
    assert s.one(do.Start).batch.start == 0


def test_a_renewal_tells_a_parked_learner_to_rewind():
    s = Script()
    s.joined(progress(0), progress(0))
    assert s.pacer.parked
    assert not s.say(events.Idle())
    s.say(events.Tick(), after_ms=5_000)
    renew = s.one(do.Renew)
    assert renew.doing == "parked"
    s.answer(renew, {0: 1, 1: 2})
    assert {a.shard for a in s.all(do.AskProgress)} == {0, 1}


def test_an_answer_from_before_the_restart_is_asked_again():
    s = Script()
    s.say(events.Assigned([0]))
    s.answer(s.one(do.Join), JoinReply(EPOCH, 0, 10_000, 0))
    asks = s.all(do.AskProgress)
    s.answer(asks[0], progress(5))
    s.pacer._saw(0, 2)
    s.answer(asks[1], progress(5))
    assert not s.all(do.Seek)
    s.answer(s.one(do.AskProgress), progress(3, incarnation=2))
    assert s.one(do.Seek)


def test_an_unanswered_push_is_sent_again_even_when_abandoned_and_ends_only_then():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    pushes = s.computed(s.started())
    s.answer(pushes[0], pushed(Outcome.APPLIED, 10))
    s.say(events.Unreachable(pushes[1].call))
    s.say(events.Revoked([0]))
    assert not s.all(do.Ended)
    s.say(events.Tick(), after_ms=1_000)
    s.answer(s.one(do.Push), pushed(Outcome.DUPLICATE, 10))
    assert s.one(do.Ended)
    s.answer(s.one(do.Ended), True)
    assert s.one(do.Park)


def test_an_unanswered_start_is_asked_until_answered_and_ended_if_its_partition_is_gone():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    first = s.one(do.Start)
    s.say(events.Unreachable(first.call))
    s.say(events.Revoked([0]))
    s.say(events.Tick(), after_ms=1_000)
    again = s.one(do.Start)
    assert again.request("m").ticket > first.request("m").ticket
    s.answer(again, StartReply(StartOutcome.ADMITTED, 3))
    assert s.one(do.Ended).clock == 3


def test_fenced_drops_everything_and_joins_anew():
    s = Script()
    seek = s.joined(progress(0), progress(0), staleness=3)
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10), batch(1, 10, 20)]))
    pushes = s.computed(s.started())
    s.answer(pushes[0], pushed(Outcome.FENCED, 0))
    assert s.one(do.Join)
    assert not s.all(do.Ended)
    assert not s.say(events.Answered(pushes[1].call, pushed(Outcome.APPLIED, 10))), (
        "an answer to the old epoch"
    )
    s.say(events.Tick())
    assert s.pacer.flights == {}


def test_at_s_0_there_is_no_overlap_and_at_s_1_there_is():
    for staleness, starts in ((0, 0), (1, 1)):
        s = Script()
        seek = s.joined(progress(0), progress(0), staleness=staleness)
        s.say(events.Records(seek.seek, 0, [batch(0, 0, 10), batch(1, 10, 20), batch(2, 20, 30)]))
        s.started()
        assert len(s.all(do.Start)) == starts


def test_pushes_keep_the_order_of_the_partition():
    s = Script()
    seek = s.joined(progress(0), progress(0), staleness=1)
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10), batch(1, 10, 20)]))
    first = s.started(0)
    second = s.started(1)
    pushes = s.computed(second, "second")
    assert pushes == [], "the first one must go before"
    pushes = s.computed(first, "first")
    assert [p.clock for p in pushes] == [0, 0]
    s.answer(pushes[0], pushed(Outcome.APPLIED, 10))
    assert [(p.clock, p.shard) for p in s.all(do.Push)] == [(1, 0)]


def test_under_a_cut_only_what_some_shard_lacks_is_started():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    start = s.one(do.Start)
    s.answer(start, StartReply(StartOutcome.WAIT_CUT, highest={"label/0": 6}))
    clipped = s.one(do.Start)
    assert (clipped.batch.start, clipped.batch.end, clipped.batch.next_record) == (0, 6, 0)
    s.started(0)
    position = s.pacer.positions[0]
    assert position is not None
    assert [(b.start, b.end) for b in position.queue] == [(6, 10)]


def test_under_a_cut_with_nothing_lacking_it_waits():
    s = Script()
    seek = s.joined(progress(6, 0), progress(6, 0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    assert not s.answer(s.one(do.Start), StartReply(StartOutcome.WAIT_CUT, highest={"label/0": 6}))
    assert s.pacer.waiting == "cut"
    s.say(events.Tick(), after_ms=100)
    assert s.one(do.Start).batch[2:4] == (6, 10)


def test_a_barrier_is_pushed_to_all_without_a_pull():
    s = Script()
    seek = s.joined(progress(10, 1, barrier=1), progress(10, 1, barrier=0))
    s.say(
        events.Records(
            seek.seek, 0, [batch(1, 10, 10, rows=0, barrier=1), batch(2, 10, 10, rows=0, barrier=1)]
        )
    )
    s.answer(s.one(do.Start), StartReply(StartOutcome.ADMITTED, 0))
    compute = s.one(do.Compute)
    assert compute.pulls == {}
    s.say(events.Computed(0, 10, 10, "nothing"))
    assert [p.barrier for p in s.all(do.Push)] == [1, 1]
    assert not s.all(do.Evaluate)


def test_a_dangling_record_is_ignored():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 10, 20), batch(1, 0, 10)]))
    assert s.one(do.Start).batch.start == 0
    assert s.pacer.counts["dangling"] == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_rewind_below_the_first_record_still_there_stops(known: bool):
    s = Script()
    record = 3 if known else None
    seek = s.joined(progress(10, record), progress(10, record))
    if known:
        s.say(events.Truncated(seek.seek, 0, 5))
    else:
        s.say(events.Records(seek.seek, 0, [batch(5, 20, 30)]))
    assert "restore checkpoint X or replay from the archive" in s.one(do.Stop).reason
    assert s.say(events.Tick()) == []


def test_the_queue_of_a_partition_is_bounded():
    s = Script(queue_batches_max=4)
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(i, 10 * i, 10 * i + 10) for i in range(5)]))
    assert s.one(do.Pause).partition == 0


def test_draining_finishes_parks_and_stops():
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10), batch(1, 10, 20)]))
    pushes = s.computed(s.started())
    s.say(events.Drain())
    for push in pushes:
        s.answer(push, pushed(Outcome.APPLIED, 10))
    s.answer(s.one(do.Ended), True)
    s.answer(s.one(do.Park), True)
    assert s.one(do.Stop).reason == ""


def test_a_raised_staleness_bound_is_found_out():
    s = Script()
    seek = s.joined(progress(0), progress(0), staleness=0)
    s.say(events.Records(seek.seek, 0, [batch(i, 10 * i, 10 * i + 10) for i in range(4)]))
    s.started(0)
    assert not s.all(do.Start)
    s.say(events.Tick(), after_ms=3_000)
    s.started(1)
    assert not s.all(do.Start), "two outstanding are what is known to be allowed"
    assert len(s.pacer.flights) == 2


# --- gaps (S2)
# --------------------------------------------------------------------------------------------------


def at_a_push(**limits: int) -> tuple[Script, do.Push]:
    """A learner whose push to shard 0 has not been answered; shard 1 has applied its own."""
    s = Script(**limits)
    s.now_ms = 1_000_000
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    first, second = s.computed(s.started())
    s.answer(second, pushed(Outcome.APPLIED, 10))
    return s, first


def again(s: Script) -> do.Push:
    """The same push, sent once its pause is over."""
    assert not s.all(do.Push)
    s.say(events.Tick(), after_ms=s.pacer.config.retry_ms)
    return s.one(do.Push)


def test_a_gap_is_a_reordering_and_is_sent_again():
    s, push = at_a_push()
    s.answer(push, pushed(Outcome.GAP, -10))
    assert not s.all(do.AskProgress)
    assert not s.all(do.Pause)
    repeat = again(s)
    assert (repeat.shard, repeat.clock, repeat.start, repeat.end) == (
        push.shard,
        push.clock,
        push.start,
        push.end,
    )
    assert s.pacer.counts["gaps"] == 1
    s.answer(repeat, pushed(Outcome.APPLIED, 10))
    assert s.one(do.Ended).clock == push.clock


def test_a_gap_that_stays_is_no_reordering_and_rewinds():
    s, push = at_a_push(gap_retries_max=3)
    for _ in range(3):
        s.answer(push, pushed(Outcome.GAP, -10))
        assert not s.all(do.AskProgress)
        push = again(s)
    s.answer(push, pushed(Outcome.GAP, -10))
    assert s.one(do.Pause).partition == 0
    assert {ask.shard for ask in s.all(do.AskProgress)} == {0, 1}
    assert s.pacer.counts["gaps"] == 3


@pytest.mark.parametrize(
    "outcome", [Outcome.WRONG_INCARNATION, Outcome.WRONG_MAP, Outcome.NOT_BEGUN, Outcome.FENCED]
)
def test_a_refusal_that_is_no_gap_is_not_sent_again(outcome: Outcome):
    s, push = at_a_push()
    s.answer(push, pushed(outcome, -10))
    assert s.pacer.counts["gaps"] == 0
    sent = s.all(do.Push)
    for _ in range(5):
        s.say(events.Tick(), after_ms=s.pacer.config.retry_ms)
        sent += s.all(do.Push)
    assert not sent


def test_the_lease_is_renewed_each_third_of_it():
    """K3: from the join on, and again a third later; nothing is renewed before."""
    s = Script()
    s.joined(progress(0), progress(0))
    lease_ms = s.pacer._lease_ms
    joined_ms = s.now_ms
    renewed = []
    while s.now_ms < joined_ms + 2 * lease_ms + 100:
        s.say(events.Tick(), 10)
        for call in s.all(do.Renew):
            renewed.append(s.now_ms)
            s.answer(call, {})
    gaps = {after - before for before, after in pairwise(renewed)}
    assert len(renewed) == 6
    assert all(lease_ms // 3 <= gap <= lease_ms // 3 + 11 for gap in gaps)


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (Outcome.OVERLAP, {"splits": 1, "partly": 0}),
        (Outcome.PARTLY_APPLIED, {"splits": 0, "partly": 1}),
        (Outcome.APPLIED, {"splits": 0, "partly": 0}),
    ],
)
def test_what_pushes_met_is_counted(outcome: Outcome, counted: dict[str, int]):
    s = Script()
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    pushes = s.computed(s.started())
    s.answer(pushes[0], pushed(outcome, 6 if outcome is Outcome.OVERLAP else 10))
    assert {name: s.pacer.counts[name] for name in counted} == counted
