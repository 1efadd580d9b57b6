"""The pace of a learner: readable scripts first, then random weather over toy shards and the real clocks."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from learners import events
from learners import instructions as do
from learners.config import LearnerConfig
from learners.events import Batch
from learners.pacing import Pacer
from learners.position import Position
from paramserver.clocks import Clocks
from paramserver.messages import ChainProgress, Epoch, Outcome, Progress, PullReply, PushReply, StartOutcome, StartReply
from paramserver.ports import JoinReply, ProgressReply
from paramserver.slots import SlotMap
from stream.chain import Fold

EPOCH = Epoch(1, 1)


def batch(record: int, start: int, end: int, partition: int = 0, rows: int = 1, barrier: int = 0, time_ms: int = 0):
    return Batch(partition, f"label/{partition}", start, end, record, record + 1, rows, barrier, time_ms or record)


def progress(end: int, record: int | None = 0, incarnation: int = 1, barrier: int = 0, partition: int = 0):
    known = {} if record is None else {partition: record}
    return ProgressReply(incarnation, 1, Progress({f"label/{partition}": ChainProgress(end, barrier=barrier)}, known))


class Script:
    """One pacer, driven by hand. `say` feeds an event; `out` is what came of it."""

    def __init__(self, shards: int = 2, **limits: int):
        self.pacer = Pacer("m", range(shards), LearnerConfig(**limits))
        self.now_ms = 0
        self.out: list[Any] = []

    def say(self, event: Any, after_ms: int = 1) -> list[Any]:
        self.now_ms += after_ms
        self.out = self.pacer.handle(event, self.now_ms)
        return self.out

    def answer(self, call: Any, reply: Any) -> list[Any]:
        return self.say(events.Answered(call.call, reply))

    def one(self, kind: type) -> Any:
        found = [i for i in self.out if isinstance(i, kind)]
        assert len(found) == 1, f"expected one {kind.__name__} in {self.out}"
        return found[0]

    def all(self, kind: type) -> list[Any]:
        return [i for i in self.out if isinstance(i, kind)]

    # --- steps that many scripts share ---

    def joined(self, *replies: ProgressReply, staleness: int = 0) -> do.Seek:
        """Assigned partition 0, joined, told; returns the seek."""
        self.say(events.Assigned([0]))
        self.answer(self.one(do.Join), JoinReply(EPOCH, 0, 10_000, staleness))
        self.progress(*replies)
        return self.one(do.Seek)

    def progress(self, *replies: ProgressReply) -> None:
        for ask, reply in zip(self.all(do.AskProgress), replies, strict=True):
            self.answer(ask, reply)

    def started(self, clock: int = 0) -> list[do.Pull]:
        self.answer(self.one(do.Start), StartReply(StartOutcome.ADMITTED, clock))
        return self.all(do.Pull)

    def computed(self, pulls: list[do.Pull], result: Any = "gradient") -> list[do.Push]:
        for pull in pulls:
            self.answer(pull, PullReply(Outcome.APPLIED, {}, {}, 7, 1))
        compute = self.one(do.Compute)
        self.say(events.Computed(compute.clock, compute.start, compute.end, result))
        return self.all(do.Push)


def pushed(outcome: Outcome, end: int, incarnation: int = 1) -> PushReply:
    return PushReply(outcome, end, incarnation, 1, 8)


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
    assert [(b.start, b.end, b.next_record) for b in position.queue] == [(5, 10, 2), (10, 15, 2), (15, 20, 3)]
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
    assert not s.say(events.Answered(pushes[1].call, pushed(Outcome.APPLIED, 10))), "an answer to the old epoch"
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
    s.say(events.Records(seek.seek, 0, [batch(1, 10, 10, rows=0, barrier=1), batch(2, 10, 10, rows=0, barrier=1)]))
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


# --- random weather -----------------------------------------------------------------------------------------------


@dataclass
class ToyShard:
    """A shard that applies iff start = E, and remembers which rows it applied, once each."""

    incarnation: int = 1
    ends: dict[str, int] = field(default_factory=dict)
    records: dict[int, int] = field(default_factory=dict)
    applied: list[tuple[str, int, int]] = field(default_factory=list)
    cut: Any = None
    allowed: set[Epoch] | None = None
    version: int = 0

    def progress(self) -> ProgressReply:
        chains = {c: ChainProgress(e) for c, e in self.ends.items()}
        return ProgressReply(self.incarnation, 1, Progress(chains, dict(self.records), self.version))

    def gate(self, epoch: Epoch) -> Outcome | None:
        if self.allowed is None:
            return Outcome.NO_ERA
        return None if epoch in self.allowed else Outcome.FENCED

    def push(self, p: do.Push) -> PushReply:
        outcome = self.gate(p.epoch) or (Outcome.WRONG_INCARNATION if p.incarnation != self.incarnation else None)
        end = self.ends[p.chain]
        if outcome is None:
            outcome = (
                Outcome.DUPLICATE
                if p.end <= end
                else Outcome.GAP
                if p.start > end
                else Outcome.OVERLAP
                if p.start < end
                else Outcome.APPLIED
            )
        if outcome is Outcome.APPLIED:
            self.ends[p.chain], self.records[p.partition] = p.end, p.next_record
            self.applied.append((p.chain, p.start, p.end))
            assert p.result == (p.chain, p.start, p.end), "a gradient of other rows than the range's"
            self.version += 1
        return PushReply(outcome, self.ends[p.chain], self.incarnation, 1, self.version)

    def restart(self) -> None:
        ends, records, applied = self.cut
        self.ends, self.records, self.applied = dict(ends), dict(records), list(applied)
        self.incarnation += 1
        self.allowed = None


class Weather:
    """Learners, toy shards and the real clocks under one seed: messages late, lost, repeated; restarts; rebalances."""

    PARTITIONS = 2

    def __init__(self, seed: int, staleness: int):
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.shards = [ToyShard(ends={f"label/{p}": 0 for p in range(self.PARTITIONS)}) for _ in range(2)]
        for shard in self.shards:
            shard.cut = (dict(shard.ends), {}, [])
        self.clocks = Clocks(1, 2, staleness, lease_ms=2_000, stated_max_ms=20_000)
        self.logs = {p: self.log(p) for p in range(self.PARTITIONS)}
        self.learners: dict[str, Pacer] = {}
        self.reading: dict[tuple[str, int], tuple[int, int]] = {}  # learner, partition -> seek, offset
        self.paused: set[tuple[str, int]] = set()
        self.owner: dict[int, str] = {}
        self.mail: list[tuple[int, int, Any]] = []  # when, tie, what
        self.evaluated: list[tuple[str, int]] = []
        self.calm = False
        self.lanes: dict[Any, Any] = {}

    def log(self, partition: int) -> list[Batch]:
        """Chained batches with repeats, overlaps of another writer, and dangling ones."""
        records, end = [], 0
        while end < 200:
            step = self.rng.randint(1, 20)
            kind = self.rng.random()
            start = max(0, end - self.rng.randint(0, 10)) if kind < 0.2 else end
            if kind > 0.95:
                start, step = end + 5, 5
            else:
                end = max(end, start + step)
            records.append(batch(len(records), start, start + step, partition))
        return records

    @property
    def ends(self) -> dict[str, int]:
        reached = {}
        for p, log in self.logs.items():
            end = 0
            for b in log:
                end = max(end, b.end) if b.start <= end else end
            reached[f"label/{p}"] = end
        return reached

    def post(self, what: Any, delay_ms: int | None = None) -> None:
        if delay_ms is None:
            delay_ms = self.rng.randint(1, 10) if self.calm or self.rng.random() < 0.9 else self.rng.randint(1, 300)
        self.mail.append((self.now_ms + delay_ms, self.rng.getrandbits(30), what))

    def lost(self) -> bool:
        return not self.calm and self.rng.random() < 0.05

    def tell(self, name: str, pacer: Pacer, event: Any) -> None:
        if self.learners.get(name) is not pacer:
            return  # the learner died
        for instruction in pacer.handle(event, self.now_ms):
            self.perform(name, pacer, instruction)

    def perform(self, name: str, pacer: Pacer, i: Any) -> None:
        if isinstance(i, do.Call):
            self.call(name, pacer, i)
        elif isinstance(i, do.Seek):
            self.reading[name, i.partition] = (i.seek, i.record or 0)
        elif isinstance(i, do.Pause):
            self.paused.add((name, i.partition))
        elif isinstance(i, do.Resume):
            self.paused.discard((name, i.partition))
        elif isinstance(i, do.Compute):
            result = (i.batch.chain, i.start, i.end)
            self.post(lambda: self.tell(name, pacer, events.Computed(i.clock, i.start, i.end, result)))
        elif isinstance(i, do.Evaluate):
            self.evaluated.append((i.batch.chain, i.batch.start))
        else:
            raise AssertionError(i)

    def call(self, name: str, pacer: Pacer, i: Any) -> None:
        pending = [True]
        if isinstance(i, do.Push):
            lane = self.lanes.get((pacer, i.shard))
            assert lane is None or not lane[0][0] or i.epoch != lane[1] or i.incarnation > lane[2], "two pushes"
            self.lanes[pacer, i.shard] = (pending, i.epoch, i.incarnation)

        def end(event: Any) -> None:
            if pending[0]:
                pending[0] = False
                self.tell(name, pacer, event)

        def arrive() -> None:
            reply = self.serve(name, pacer, i)
            if not self.lost():
                self.post(lambda: end(events.Answered(i.call, reply)))

        if not self.lost():
            self.post(arrive)
            if not self.calm and self.rng.random() < 0.05:
                self.post(arrive)
        self.post(lambda: end(events.Unreachable(i.call)), delay_ms=150)

    def serve(self, name: str, pacer: Pacer, i: Any) -> Any:
        clocks = self.clocks
        match i:
            case do.Join():
                return clocks.join("m", name, self.now_ms)
            case do.Start():
                return clocks.start(i.request("m"), self.now_ms)
            case do.Ended():
                return clocks.ended("m", i.epoch, i.clock, self.now_ms)
            case do.Park():
                return clocks.park("m", i.epoch, self.now_ms)
            case do.Renew():
                return clocks.renew("m", i.epoch, i.doing, self.now_ms)
            case do.AskProgress():
                return self.shards[i.shard].progress()
            case do.Pull():
                shard = self.shards[i.shard]
                outcome = shard.gate(i.epoch) or Outcome.APPLIED
                return PullReply(outcome, {}, {}, shard.version, shard.incarnation)
            case do.Push():
                return self.shards[i.shard].push(i)
        raise AssertionError(i)

    def allow(self) -> None:
        self.clocks.tick(self.now_ms)
        era, sequence, epochs = self.clocks.allow_list()
        for index, shard in enumerate(self.shards):
            if self.calm or self.rng.random() < 0.5:
                shard.allowed = set(epochs)
                self.clocks.confirm(era, sequence, index, shard.incarnation)

    def poll(self, name: str, pacer: Pacer) -> None:
        found = False
        for (who, p), (seek, offset) in list(self.reading.items()):
            if who != name or (name, p) in self.paused or p not in pacer.positions:
                continue
            got = self.logs[p][offset : offset + 3]
            if got:
                found = True
                self.reading[who, p] = (seek, offset + len(got))
                self.tell(name, pacer, events.Records(seek, p, got))
        if not found:
            self.tell(name, pacer, events.Idle())

    def rebalance(self) -> None:
        names = sorted(self.learners)
        for p in self.logs:
            to = self.rng.choice(names)
            if (was := self.owner.get(p)) == to:
                continue
            if was in self.learners:
                self.tell(was, self.learners[was], events.Revoked([p]))
            self.owner[p] = to
            self.tell(to, self.learners[to], events.Assigned([p]))

    def fault(self) -> None:
        kind = self.rng.randint(0, 5)
        if kind == 0:
            self.rng.choice(self.shards).restart()
        elif kind == 1:  # a learner dies; another comes under a new name or the same
            name = self.rng.choice(sorted(self.learners))
            self.learners[name] = Pacer("m", range(2))
            for p, owner in self.owner.items():
                if owner == name:
                    self.tell(name, self.learners[name], events.Assigned([p]))
        elif kind == 2 and self.shards[0].ends == self.shards[1].ends:
            for shard in self.shards:
                shard.cut = (dict(shard.ends), dict(shard.records), list(shard.applied))
        elif kind == 3:
            self.rebalance()

    def step(self) -> None:
        self.now_ms += 1
        due = sorted((m for m in self.mail if m[0] <= self.now_ms), key=lambda m: m[:2])
        self.mail = [m for m in self.mail if m[0] > self.now_ms]
        for _, _, what in due:
            what()
        if self.now_ms % 5 == 0:
            self.allow()
            for name, pacer in list(self.learners.items()):
                self.poll(name, pacer)
                if pacer.next_wake_ms <= self.now_ms:
                    self.tell(name, pacer, events.Tick())
                if not self.clocks.models or self.clocks.staleness >= 0:
                    assert len(pacer.flights) <= self.clocks.staleness + 1

    def run(self) -> None:
        for name in ("a", "b"):
            self.learners[name] = Pacer("m", range(2))
        self.rebalance()
        while self.now_ms < 3_000:
            self.step()
            if self.rng.random() < 0.003:
                self.fault()
        self.calm = True
        while self.now_ms < 60_000 and not all(s.ends == self.ends for s in self.shards):
            self.step()


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("seed", range(12))
def test_in_any_weather_every_shard_reaches_the_end_having_applied_each_row_once(seed: int, staleness: int):
    world = Weather(seed, staleness)
    world.run()
    for shard in world.shards:
        assert shard.ends == world.ends, [(p.positions, p.flights, p._calls.__dict__) for p in world.learners.values()]
        for chain in shard.ends:
            at = 0
            for name, start, end in shard.applied:
                if name == chain:
                    assert start == at
                    at = end
    scored = set(world.evaluated)
    assert {c for c, _ in scored} == set(world.ends)


def test_the_weather_can_fail():
    """A learner that takes an overlap for a duplicate leaves rows out, and the shards never reach the end."""

    class Careless(Pacer):
        def _told_push(self, call: do.Push, reply: PushReply) -> None:
            if reply.outcome is Outcome.OVERLAP:
                reply = replace(reply, outcome=Outcome.DUPLICATE)
            super()._told_push(call, reply)

    s = Script()
    s.pacer = Careless("m", range(2))
    seek = s.joined(progress(0), progress(0))
    s.say(events.Records(seek.seek, 0, [batch(0, 0, 10)]))
    pushes = s.computed(s.started())
    s.answer(pushes[0], pushed(Outcome.OVERLAP, 6))
    s.answer(pushes[1], pushed(Outcome.APPLIED, 10))
    assert s.all(do.Ended)


def test_chains_of_a_partition_are_folded_each_on_its_own_and_only_labels_are_scored():
    at = {chain: ChainProgress(10) for chain in ("label/0", "late/0", "retract/0")}
    told = {0: ProgressReply(1, 1, Progress(at, {0: 4}), {"label/0": 10, "late/0": 10, "retract/0": 0})}
    position = Position.sought(0, 1, told, SlotMap.even(1))
    label, late, back = (Batch(0, c, 10, 20, n, n + 1, 3) for n, c in enumerate(at, 4))
    assert [position.fold(batch) for batch in (label, late, back)] == [Fold.EXTENDS] * 3
    assert [position.scored(batch) for batch in position.queue] == [True, True, False]
    assert [batch.floor for batch in position.queue] == [0, 0, 10], "a retraction may name what was never learned"
    assert {batch.record_end for batch in position.queue} == {20}
    assert position.fold(late) is Fold.REPEAT
