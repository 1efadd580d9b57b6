"""The pace of learners in random weather: toy shards, the real clocks, and messages late, lost
and repeated."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pacing_script import Script, batch, progress, pushed

from learners.pacing import events
from learners.pacing import instructions as do
from learners.pacing.events import Batch
from learners.pacing.pacer import Pacer
from paramserver import ChainProgress, Outcome, Progress, ProgressReply, PullReply, PushReply
from paramserver.clocks import AllowListSender, Clocks
from paramserver.ports import AllowReply
from paramserver.shard.allow_list import AllowList


@dataclass
class ToyShard:
    """A shard that applies iff start = E, and remembers which rows it applied, once each."""

    incarnation: int = 1
    ends: dict[str, int] = field(default_factory=dict)
    records: dict[int, int] = field(default_factory=dict)
    applied: list[tuple[str, int, int]] = field(default_factory=list)
    cut: Any = None
    allowed: AllowList = field(default_factory=AllowList)
    version: int = 0

    def progress(self) -> ProgressReply:
        chains = {c: ChainProgress(e) for c, e in self.ends.items()}
        return ProgressReply(
            self.incarnation, 1, Progress(chains, dict(self.records), self.version)
        )

    def push(self, p: do.Push) -> PushReply:
        outcome = self.allowed.refuses(p.epoch) or (
            Outcome.WRONG_INCARNATION if p.incarnation != self.incarnation else None
        )
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
            assert p.result == (p.chain, p.start, p.end), (
                "a gradient of other rows than the range's"
            )
            self.version += 1
        return PushReply(outcome, self.ends[p.chain], self.incarnation, 1, self.version)

    def restart(self) -> None:
        ends, records, applied = self.cut
        self.ends, self.records, self.applied = dict(ends), dict(records), list(applied)
        self.incarnation += 1
        self.allowed = AllowList()


class Faults:
    """Learners, toy shards and the real clocks under one seed: messages late, lost, repeated;
    restarts; rebalances."""

    PARTITIONS = 2

    def __init__(self, seed: int, staleness: int):
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.shards = [
            ToyShard(ends={f"label/{p}": 0 for p in range(self.PARTITIONS)}) for _ in range(2)
        ]
        for shard in self.shards:
            shard.cut = (dict(shard.ends), {}, [])
        self.clocks = Clocks(1, 2, staleness, lease_ms=2_000, stated_max_ms=20_000)
        self.sender = AllowListSender(self.clocks)
        self.logs = {p: self.log(p) for p in range(self.PARTITIONS)}
        self.learners: dict[str, Pacer] = {}
        self.reading: dict[
            tuple[str, int], tuple[int, int]
        ] = {}  # learner, partition -> seek, offset
        self.paused: set[tuple[str, int]] = set()
        self.owner: dict[int, str] = {}
        self.mail: list[tuple[int, int, Any]] = []  # when, tie, what
        self.evaluated: list[tuple[str, int]] = []
        self.calm = False
        self.under_ways: dict[Any, Any] = {}

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
            delay_ms = (
                self.rng.randint(1, 10)
                if self.calm or self.rng.random() < 0.9
                else self.rng.randint(1, 300)
            )
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
            self.post(
                lambda: self.tell(name, pacer, events.Computed(i.clock, i.start, i.end, result))
            )
        elif isinstance(i, do.Evaluate):
            self.evaluated.append((i.batch.chain, i.batch.start))
        else:
            raise AssertionError(i)

    def call(self, name: str, pacer: Pacer, i: Any) -> None:
        pending = [True]
        if isinstance(i, do.Push):
            under_way = self.under_ways.get((pacer, i.shard))
            assert (
                under_way is None
                or not under_way[0][0]
                or i.epoch != under_way[1]
                or i.incarnation > under_way[2]
            ), "two pushes"
            self.under_ways[pacer, i.shard] = (pending, i.epoch, i.incarnation)

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
                outcome = shard.allowed.refuses(i.epoch) or Outcome.APPLIED
                return PullReply(outcome, {}, {}, shard.version, shard.incarnation)
            case do.Push():
                return self.shards[i.shard].push(i)
        raise AssertionError(i)

    def allow(self) -> None:
        self.sender.tick(self.now_ms)
        for index, shard in enumerate(self.shards):
            if self.calm or self.rng.random() < 0.5:
                while (sent := self.sender.message(index)) is not None:
                    shard.allowed.adopt(sent, shard.incarnation, 1)
                    answer = AllowReply(shard.incarnation, 1)
                    if not self.sender.answered(index, sent, answer):
                        break

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
def test_in_any_weather_every_shard_reaches_the_end_having_applied_each_row_once(
    seed: int, staleness: int
):
    world = Faults(seed, staleness)
    world.run()
    for shard in world.shards:
        assert shard.ends == world.ends, [
            (p.positions, p.flights, p._calls.__dict__) for p in world.learners.values()
        ]
        for chain in shard.ends:
            at = 0
            for name, start, end in shard.applied:
                if name == chain:
                    assert start == at
                    at = end
    scored = set(world.evaluated)
    assert {c for c, _ in scored} == set(world.ends)


def test_the_faults_can_fail():
    """A learner that takes an overlap for a duplicate leaves rows out, and the shards never
    reach the end."""

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
