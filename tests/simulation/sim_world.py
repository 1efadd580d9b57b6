"""One seed's world: built, run through its faults, and then held to its promises (I8) and to the
oracle."""

import json
import logging
from collections import Counter
from typing import Any

from sim_breaker import GROUP as BREAKERS_GROUP
from sim_breaker import BreakerNode
from sim_checkpointing import CheckpointerNode, ReplicaNode
from sim_clocks_ahead import ClocksAhead
from sim_decoded import forget
from sim_faults import EXPULSION, Faults, plan
from sim_fraud import FraudNode
from sim_governor import GovernorNode
from sim_invariants import check_labels, check_reread, check_sent, truths
from sim_labelers import GROUP as LABELERS_GROUP
from sim_labelers import LabelerNode
from sim_learners import GROUP as LEARNERS_GROUP
from sim_learners import LearnerNode
from sim_log import Broker, Group
from sim_lost import Retention
from sim_network import World
from sim_operator import Operator
from sim_poison import Stranger, is_junk
from sim_retraction import check_retractions, untaken
from sim_scenario import BREAKERS, LABELERS, LEARNERS, MODEL, REPLICAS, SHARDS, Scenario
from sim_shards import ShardNode
from sim_site import Site
from sim_store import Store
from sim_transactions import Transactions
from sim_violation import Violation
from sim_watch import Watch

from checkpointer.store import decode as decode_announcement
from labeler.join import label_strategies

logging.getLogger("labeler").setLevel(logging.CRITICAL)  # failed sends are the everyday here

SESSION_MS = 1500
#: Virtual time within which everything must have come to rest after the site fell silent and faults
#: stopped (I8).
REST_MS = 90_000
STEP_MS = 500


class Simulation:
    """The whole pipeline of one scenario."""

    def __init__(self, scenario: Scenario, loud: bool = False) -> None:
        forget()
        self.scenario = s = scenario
        self.world = World(s.seed, loud)
        self.watch = Watch(s)
        self.broker = Broker(
            self.world, slow_append=0.0 if s.faultless else 0.05 if s.mixed else 0.004
        )
        self.broker.groups[LABELERS_GROUP] = Group(s.stream.partitions, SESSION_MS)
        self.broker.groups[BREAKERS_GROUP] = Group(s.stream.partitions, SESSION_MS)
        session_ms = 10_000 if s.seed % 4 == EXPULSION else SESSION_MS
        self.broker.groups[LEARNERS_GROUP] = Group(s.stream.partitions, session_ms)
        self.broker.landed.append(self.watch.landed)
        self.files = Store(self.world)
        self.world.add(self.broker)
        self.site = Site(self.world, s, self.broker, self.lifted)
        for i in range(s.shards_max):
            self.world.add(ShardNode(self.world, i, s, self.files, self.watch))
        self.checkpointer = CheckpointerNode(
            self.world, s, self.broker, self.files, self.watch, 14_000
        )
        self.world.add(self.checkpointer)
        for i in range(REPLICAS):
            self.world.add(ReplicaNode(self.world, i, s, self.broker, self.files, self.watch))
        for i in range(LABELERS):
            self.world.add(LabelerNode(self.world, i, s, self.broker))
        if s.fraud:
            self.world.add(FraudNode(self.world, s, self.broker, self.watch))
        for i in range(BREAKERS if s.breaker else 0):
            self.world.add(BreakerNode(self.world, i, s, self.broker, self.watch))
        for i in range(LEARNERS):
            self.world.add(LearnerNode(self.world, i, s, self.broker, self.watch))
        extra = (
            LearnerNode(self.world, LEARNERS, s, self.broker, self.watch)
            if s.tuning == "learners"
            else None
        )
        if extra is not None:
            self.world.add(extra)
        if s.governed:
            self.world.add(GovernorNode(self.world, s, self.busy_ms))
        self.operator = Operator(self.world, s, self.broker, extra, self.busy_ms)
        self.retention = Retention(
            self.world, s, self.broker, self.watch, self.operator, self.busy_ms
        )
        self.clocks_ahead = ClocksAhead(self.world, s, self.broker, self.watch, self.busy_ms)
        self.transactions = Transactions(self.world, s, self.broker, self.busy_ms)
        self.stranger = Stranger(self.world, s, self.broker, self.busy_ms)
        self.world.add(self.site)
        self.later = {f"shard-{i}" for i in range(SHARDS, s.shards_max)}  # once they are wanted
        self.faults = Faults(self.world, [] if s.faultless else plan(s, self.busy_ms), self.files)
        self.announced = self.announced_to = 0  # records of `checkpoints`, and their last barrier
        self.classes: Counter[str] = Counter()
        self.rest_ms = 0

    @property
    def busy_ms(self) -> int:
        s = self.scenario
        return int((s.span_ms + s.stream.wait_last_ms) / s.speed)

    def lifted(self, period: int) -> bool:
        """E3: whether the cut of this period has been published or rejected. What was announced is
        read once: a site that waits asks each 50 ms."""
        records = self.broker.records(self.scenario.stream.checkpoints, 0)
        for record in records[self.announced :]:
            if not is_junk(record):
                self.announced_to = max(
                    self.announced_to, decode_announcement(record.value).barrier
                )
        self.announced = len(records)
        return self.announced_to >= period

    def shards(self) -> list[Any]:
        """Those of the map in force."""
        holder: Any = self.world.processes["shard-0"]
        return [self.world.processes[f"shard-{i}"] for i in range(holder.clocks.shards)]

    # --- running ---

    def run(self) -> "Simulation":
        time = self.world.time
        for process in list(self.world.processes.values()):
            if process is not self.operator.extra and process.name not in self.later:
                process.start()
        time.run_until(time.now_ms + self.busy_ms)
        self.faults.stop()
        began = time.now_ms
        self.broker.slow_append = 0.0
        while not self.site.done:
            if time.now_ms - began > 4 * REST_MS:
                raise Violation("I8", f"the site still waits to send {self.site.unsent} records")
            time.run_until(time.now_ms + STEP_MS)
        self.come_to_rest()
        gone = self.retention.gone | self.clocks_ahead.set_back
        true = truths(self.broker, self.scenario, gone)
        self.classes = check_labels(self.broker, self.scenario, self.watch, true, gone)
        self.classes["taken back"] = check_retractions(self.broker, self.scenario, self.watch)
        if self.scenario.replayed or self.scenario.clocks_ahead:
            check_sent(self.broker, self.scenario, true, self.site.plan.good)
        labeler = self.world.processes["labeler-0"]
        assert isinstance(labeler, LabelerNode)
        if not self.scenario.mixed:
            p = self.scenario.seed % self.scenario.stream.partitions
            check_reread(self.broker, self.scenario, self.watch, p, labeler.settings, gone.get(p))
        self.check_shards()
        if self.scenario.counters:
            self.watch.counts["rows with counters"] = self.watch.counted.joined
            self.watch.counts["rows with sequences"] = self.watch.counted.kept.given
            self.watch.counts["clicks taken back"] = self.watch.counted.kept.taken_back
        self.watch.catalogue.check_quarantine(self.broker)
        if self.scenario.catalogue:
            self.watch.counts["rows of a catalogue"] = self.watch.catalogue.joined
        self.watch.counts["store failures"] = self.files.failures
        for folded in self.watch.folded.values():
            self.watch.counts["repeats"] = self.watch.counts.get("repeats", 0) + folded.repeats
            self.watch.counts["trimmed"] = self.watch.counts.get("trimmed", 0) + folded.trimmed
        return self

    def come_to_rest(self) -> None:
        """I8: everything is labelled, every shard is at every chain's end, and one more cut
        succeeds."""
        time = self.world.time
        began, cuts = time.now_ms, self.watch.counts.get("cuts", 0)
        labelled = False
        while True:
            waits = (
                self.waits()
                if labelled or (labelled := not self.unlabelled())
                else self.unlabelled()
            )
            if (
                labelled
                and not waits
                and (self.watch.counts.get("cuts", 0) > cuts or self.nothing_to_cut())
            ):
                waits = self.untaken()  # the dearest question last: most steps wait for a cut
                if not waits:
                    break
            if time.now_ms - began > REST_MS:
                raise Violation(
                    "I8", f"after {REST_MS} ms: {waits or self.untaken() or 'no cut succeeds'}"
                )
            time.run_until(time.now_ms + STEP_MS)
        self.rest_ms = time.now_ms - began

    def untaken(self) -> list[str]:
        """Rows that late verdicts cover and nobody has taken back."""
        return untaken(self.broker, self.scenario, self.watch)

    def nothing_to_cut(self) -> bool:
        """Whether the last cut already holds all there is."""
        head = self.checkpointer.catalogue.head()
        standing = [s.core.progress(MODEL).progress for s in self.shards()]
        ends = [None if at is None else {c: e.end for c, e in at.chains.items()} for at in standing]
        return head is not None and all(end == head.vector for end in ends)

    def unlabelled(self) -> list[str]:
        c = self.scenario.stream
        out = []
        for p in range(c.partitions):
            records = [r for r in self.broker.committed(c.impressions, p) if not r.is_heartbeat]
            last, rows = (
                (records[-1].offset, page_rows(records[-1].value or b"")) if records else (-1, 0)
            )
            for chain in (f"{strategy.kind}/{p}" for strategy in label_strategies(c)):
                end = self.watch.fold(chain).end
                behind_last_row = rows and end >= (last << 20) + rows  # where a full batch ends
                if end < (last + 1) << 20 and not behind_last_row:
                    out.append(f"{chain} at {end >> 20}.{end & 0xFFFFF} of {last + 1}")
        return out

    def waits(self) -> list[str]:
        out = []
        shards = self.shards()
        if len(shards) != self.watch.shards or len({shard.core.slot_map for shard in shards}) > 1:
            out.append(
                f"{len(shards)} shards at {[s.core.slot_map.epoch for s in shards]}, "
                f"{self.watch.shards} wanted"
            )
        for shard in shards:
            progress = shard.core.progress(MODEL).progress
            for chain, begin in self.scenario.begin.items():
                end = -1 if progress is None else progress.chains[chain].end
                if end < max(self.watch.fold(chain).end, begin):
                    out.append(f"{shard.name}: {chain} at {end} of {self.watch.fold(chain).end}")
        return out

    def close(self) -> None:
        for process in self.world.processes.values():
            process.crash()

    def let_go(self) -> None:
        """Part what stands in circles, once nobody asks any more: so it is gone at once, and no
        collector need look for it."""
        self.world.time.clear()
        for one in (*self.world.processes.values(), self.world.network, self.watch, self.world):
            vars(one).clear()
        vars(self).clear()

    def check_shards(self) -> None:
        """I3, from parameters."""
        for shard in self.shards():
            snapshot = shard.core.snapshot(MODEL)
            self.watch.check_snapshot("I3", shard.name, snapshot)
            words = self.watch.lexicons.of(shard.index, shard.core.incarnation)
            self.watch.check_words(shard.name, snapshot, words.weights())
            shard.core.validate()


def page_rows(value: bytes) -> int:
    """Impressions of a page view; 0 for any other record."""
    try:
        body = json.loads(value)
    except ValueError:
        return 0
    return (
        len(body["impressions"])
        if isinstance(body, dict) and isinstance(body.get("impressions"), list)
        else 0
    )
