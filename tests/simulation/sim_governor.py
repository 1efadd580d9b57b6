"""A governor that thinks nothing: it sets and loses leases at moments drawn from the seed (K7), and
what the watcher knows of them."""

import random
from typing import Any

from sim_network import Process, World
from sim_scenario import Scenario

from paramserver import Bounds, PaceLevel

SPEAKS_EVERY_MS = 1_200
LEVELS = (PaceLevel(-1), PaceLevel(4), PaceLevel(1), PaceLevel(0), PaceLevel(0, 2), PaceLevel(0, 1))


class Leased:
    """The watcher's own account of what a governor's words have in force. Times are of the clock
    holder's clock."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.governor, self.sequence, self.level, self.until_ms = "", 0, (-1, 0), 0

    def said(
        self, governor: str, sequence: int, level: tuple[int, int], until_ms: int, now_ms: int
    ) -> None:
        """A word arrived. Another name's counts once the lease has run out, an overtaken one
        never."""
        if sequence <= self.sequence if governor == self.governor else now_ms < self.until_ms:
            return
        self.governor, self.sequence, self.level, self.until_ms = (
            governor,
            sequence,
            level,
            until_ms,
        )

    def staleness(self, ordered: int, now_ms: int) -> int:
        there = now_ms < self.until_ms and self.level[0] >= 0
        return (
            ordered if not there else self.level[0] if ordered < 0 else min(ordered, self.level[0])
        )

    def concurrency(self, ordered: int, now_ms: int) -> int:
        there = now_ms < self.until_ms and self.level[1] > 0
        return (
            ordered if not there else self.level[1] if ordered == 0 else min(ordered, self.level[1])
        )


class GovernorNode(Process):
    """Dies now and then, and comes back under its name or another."""

    role = "governor"

    def __init__(self, world: World, scenario: Scenario, busy_ms: int) -> None:
        super().__init__(world, "governor")
        self.rng = random.Random(f"governor/{scenario.seed}")
        self.until_ms = world.time.now_ms + busy_ms
        self.named, self.sequence = "", 0

    def boot(self) -> None:
        self.named, self.sequence = self.rng.choice(("governor-0", "governor-0", "governor-1")), 0
        self.after(self.rng.random() * SPEAKS_EVERY_MS, self.begin)

    def begin(self) -> None:
        """Go on above the number that the clock holder took last."""
        holder: Any = self.world.processes["shard-0"]

        def told(bounds: Bounds) -> None:
            self.sequence = bounds.sequence
            self.speak()

        self.world.network.call(
            self, holder, holder.bounds, told, lambda: self.after(300, self.begin), 500
        )

    def speak(self) -> None:
        if self.world.time.now_ms > self.until_ms:
            return
        self.sequence += 1
        sequence, level = self.sequence, self.rng.choice(LEVELS)
        lease_ms = self.rng.choice((0, 500, 1_500, 4_000))
        holder: Any = self.world.processes["shard-0"]
        self.world.trace(self.name, f"{self.named} says {tuple(level)} for {lease_ms} ms")
        self.world.network.call(
            self,
            holder,
            lambda: holder.govern(self.named, sequence, level, lease_ms),
            lambda _: None,
            lambda: None,
            500,
        )
        if self.rng.random() < 0.1:
            self.world.trace(self.name, "dies")
            self.world.time.after(self.rng.randrange(100, 5_000), self.start)
            self.crash()
        else:
            self.after(self.rng.random() * SPEAKS_EVERY_MS, self.speak)
