"""Retention passes input that nobody has read (C7): the broker drops the head of some partitions'
inputs.

All labelers are down by then, and what they had sent has landed: so the folded chain says where the
next ones go on, and what they need of what is gone is the same whoever labels, and however often
they start.
"""

import random
from dataclasses import dataclass
from typing import Any

from sim_log import Broker
from sim_network import World
from sim_oracle import Since
from sim_scenario import Scenario
from sim_watch import Watch

from stream import LABEL, Record
from stream.internal_topics import BatchHeader, ClockOverride

#: No append of a labeler that died lands later than this.
SETTLED_MS = 6_000


@dataclass(frozen=True)
class Gone:
    """What labelers of one partition found when they came back: the end of its chain, and where
    inputs begin."""

    header: BatchHeader | None  # of the chain's last batch; None: nothing was labelled yet
    batches: int  # of the chain, up to there
    impressions: int  # the first offset that is left
    clicks: int
    overrides: tuple[ClockOverride, ...] = ()  # of times, by which they go on (`sim_clocks_ahead`)

    @property
    def end(self) -> int:
        return 0 if self.header is None else self.header.end

    @property
    def clicks_needed(self) -> int:
        return 0 if self.header is None else self.header.clicks_offset

    @property
    def offsets(self) -> tuple[int, int]:
        """How many offsets of impressions and of clicks nobody has read."""
        return max(0, self.impressions - (self.end >> 20)), max(0, self.clicks - self.clicks_needed)

    def left(
        self, impressions: list[Record], clicks: list[Record]
    ) -> tuple[Since, list[Record], list[Record]]:
        """What they could read of the logs, and from which time on."""
        h = self.header
        since = (
            Since() if h is None else Since(h.end, h.ids_arrival_max_ms, h.clicks_arrival_max_ms)
        )
        impressions_from = max(self.impressions, 0 if h is None else h.ids_offset)
        clicks_from = max(self.clicks, self.clicks_needed)
        return (
            since._replace(clicks_gone=self.clicks > self.clicks_needed),
            [record for record in impressions if record.offset >= impressions_from],
            [record for record in clicks if record.offset >= clicks_from],
        )


class Retention:
    """Strikes once, at a moment drawn from the seed; tells the operator of stops from then on."""

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        broker: Broker,
        watch: Watch,
        operator: Any,
        busy_ms: int,
    ) -> None:
        self.world, self.scenario, self.broker, self.watch = world, scenario, broker, watch
        self.gone: dict[int, Gone] = {}  # by partition
        self.rng = random.Random(f"retention/{scenario.seed}")
        self.labelers: list[Any] = [
            one for one in world.processes.values() if one.role == "labeler"
        ]
        for labeler in self.labelers:
            labeler.on_gone = operator.hears
        if scenario.retention and not scenario.faultless:
            world.time.at(
                world.time.now_ms + int(busy_ms * self.rng.uniform(0.15, 0.7)), self.begin
            )

    def begin(self) -> None:
        self.world.trace("FAULT", f"no labeler runs for {SETTLED_MS} ms or more")
        for labeler in self.labelers:
            labeler.held = True
            labeler.crash()
        self.world.time.after(SETTLED_MS, self.drop)

    def drop(self) -> None:
        partitions = range(self.scenario.stream.partitions)
        for p in self.rng.sample(partitions, self.rng.randint(1, len(partitions))):
            self.drop_of(p, self.rng.choice(("impressions", "clicks", "clicks", "both")))
        for labeler in self.labelers:
            labeler.held = False
            self.world.time.after(self.rng.randrange(3_000), labeler.start)

    def drop_of(self, p: int, which: str) -> None:
        """Of one partition: a little below what is needed, up to all that there is."""
        c, records = self.scenario.stream, self.watch.fold(f"{LABEL}/{p}").records
        gone = Gone(records[-1][1] if records else None, len(records), 0, 0)
        firsts = {
            topic: self.rng.randint(
                max(0, needed - 3), max(needed, len(self.broker.records(topic, p)))
            )
            for topic, needed, name in (
                (c.impressions, gone.end >> 20, "impressions"),
                (c.clicks, gone.clicks_needed, "clicks"),
            )
            if which in (name, "both")
        }
        self.broker.first |= {(topic, p): first for topic, first in firsts.items()}
        self.gone[p] = Gone(
            gone.header, gone.batches, firsts.get(c.impressions, 0), firsts.get(c.clicks, 0)
        )
        self.world.trace("FAULT", f"retention takes {firsts} of partition {p}: {self.gone[p]}")
        for offsets, what in zip(self.gone[p].offsets, ("impressions", "clicks"), strict=True):
            if offsets:
                self.watch.count(f"{what} gone")
