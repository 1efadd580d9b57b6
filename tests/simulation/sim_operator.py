"""The operator: changes the bound, the concurrency and the number of learners while training goes on (K6)."""

import random
from typing import Any

from sim_learners import LearnerNode
from sim_network import World
from sim_scenario import Scenario

CHANGES = 5


class Operator:
    """Acts at moments drawn from the seed. What finds the clock holder dead is not repeated."""

    def __init__(self, world: World, scenario: Scenario, extra: LearnerNode | None, busy_ms: int) -> None:
        self.world, self.extra = world, extra
        rng = random.Random(f"operator/{scenario.seed}")
        if scenario.concurrency:
            self.at(1, lambda: self.order(scenario.staleness, scenario.concurrency))
        for _ in range(CHANGES):
            moment, s, concurrency = rng.randrange(1, busy_ms), rng.choice((0, 1, 4, -1)), rng.choice((0, 0, 1, 2))
            if scenario.tuning == "bounds":
                self.at(moment, lambda s=s, c=concurrency: self.order(s, c))
            elif extra is not None:
                self.at(moment, self.scale)

    def at(self, after_ms: int, work: Any) -> None:
        self.world.time.at(self.world.time.now_ms + after_ms, work)

    def order(self, staleness: int, concurrency: int) -> None:
        holder: Any = self.world.processes["shard-0"]
        if holder.alive:
            self.world.trace("operator", f"s={staleness} concurrency={concurrency}")
            holder.ordered(staleness, concurrency)

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
