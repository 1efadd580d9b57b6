"""The operator: changes the bound, the concurrency, and the number of learners and of shards while
training goes on (K6, S6), and declares lost what labelers say is gone (C7); and the launcher of
shards, which starts those that are wanted and ends those that are over."""

import random
from typing import Any

from sim_learners import LearnerNode
from sim_log import Broker, Message
from sim_network import World
from sim_scenario import SHARDS, Scenario
from sim_shards import ShardNode
from sim_violation import Violation

from labeler.labels import LostRange, PartitionStop, lost_headers, lost_key

CHANGES = 5
LAUNCH_EVERY_MS = 500


class Operator:
    """Acts at moments drawn from the seed. What finds the clock holder dead is not repeated."""

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        broker: Broker,
        extra: LearnerNode | None,
        busy_ms: int,
    ) -> None:
        self.world, self.scenario, self.broker, self.extra = world, scenario, broker, extra
        self.told: set[LostRange] = set()
        self.thinks = random.Random(f"lost/{scenario.seed}")
        self.launched = set(range(SHARDS))
        rng = random.Random(f"operator/{scenario.seed}")
        if scenario.concurrency:
            self.at(1, lambda: self.order(scenario.staleness, scenario.concurrency))
        for _ in range(CHANGES):
            moment, s, concurrency = (
                rng.randrange(1, busy_ms),
                rng.choice((0, 1, 4, -1)),
                rng.choice((0, 0, 1, 2)),
            )
            if scenario.tuning == "bounds":
                self.at(moment, lambda s=s, c=concurrency: self.order(s, c))
            elif scenario.tuning == "shards":
                wanted = rng.randrange(1, scenario.shards_max + 1)
                self.at(moment, lambda n=wanted: self.scale_shards(n))
            elif extra is not None:
                self.at(moment, self.scale)
        if scenario.tuning == "shards":
            self.at(LAUNCH_EVERY_MS, self.launch)

    def at(self, after_ms: int, work: Any) -> None:
        self.world.time.at(self.world.time.now_ms + after_ms, work)

    def hears(self, stop: PartitionStop) -> None:
        """A labeler stopped for want of input (C7): after a while its own words are typed, if they
        name nothing that is still there."""
        gone = stop.gone
        assert gone is not None
        if gone in self.told:
            return
        self.told.add(gone)
        if gone.end != self.broker.first.get((gone.topic, gone.partition)):
            raise Violation(
                "C7", f"a stop names {gone}, and some of it is there, or more is gone: {stop}"
            )
        self.at(self.thinks.randrange(200, 5000), lambda: self.declare_lost(gone))

    def declare_lost(self, gone: LostRange) -> None:
        self.world.trace("operator", f"{gone}: declared lost")
        headers = lost_headers(gone, "retention was too short")
        override = Message(
            self.scenario.stream.quarantine, gone.partition, lost_key(gone), None, headers
        )
        self.broker.land(override, "operator")

    def order(self, staleness: int, concurrency: int) -> None:
        holder: Any = self.world.processes["shard-0"]
        if holder.alive:
            self.world.trace("operator", f"s={staleness} concurrency={concurrency}")
            holder.ordered(staleness, concurrency)

    def scale_shards(self, shards: int) -> None:
        holder: Any = self.world.processes["shard-0"]
        if holder.alive:
            self.world.trace("operator", f"shards={shards}")
            holder.ordered_shards(shards)

    def launch(self) -> None:
        """Who holds the clocks says how many are needed. It is not asked while it is dead or
        asleep."""
        holder: Any = self.world.processes["shard-0"]
        if holder.alive and not holder.asleep:
            needed = max(holder.clocks.shards, holder.shards_ordered())
            for shard in (p for p in self.world.processes.values() if isinstance(p, ShardNode)):
                if shard.index < needed and shard.index not in self.launched:
                    self.launched.add(shard.index)
                    shard.start()
                elif shard.index >= needed and holder.clocks.settled and shard.alive:
                    self.launched.discard(shard.index)
                    shard.crash()
        self.at(LAUNCH_EVERY_MS, self.launch)

    def scale(self) -> None:
        """One learner more or less: who goes says so to its group, and then ends."""
        extra = self.extra
        assert extra is not None
        self.world.trace("operator", f"{extra.name} {'goes' if extra.alive else 'comes'}")
        if extra.alive:
            extra.stop()
            extra.crash()
        else:
            extra.start()
