"""The product's governor over training on virtual time: its process without a process.

`examples` and `evaluations` stand in a log in memory, a cut is a copy of the shard every
`cut_every` batches, and the governor takes its turn after every batch. Its word reaches the clocks
as a lease (K7).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.learning.virtual_training import PARTITIONS, Trained, VirtualTraining, Work
from learners import GovernorConfig
from learners.governor import CompleteCut, CutGone, GovernedSystem, GovernorMetrics, GovernorService
from paramserver import Keys
from paramserver.parts import Snapshot, encode_part, touched_part
from paramserver.server import LocalClock, LocalShard
from stream import Partition, StreamConfig
from stream.internal_topics import BatchHeader, encode_examples
from stream.log import MemoryLog

STREAM = StreamConfig(partitions=PARTITIONS)
CUTS_KEPT = 3


@dataclass
class CopiedCuts:
    """`learners.governor.checkpoint_source` in memory: the last few copies of the shard."""

    kept: dict[int, Snapshot] = field(default_factory=dict)
    count: int = 0

    def take(self, snapshot: Snapshot) -> None:
        self.kept[self.count] = snapshot
        self.count += 1
        while len(self.kept) > CUTS_KEPT:
            del self.kept[min(self.kept)]

    def newest(self) -> CompleteCut | None:
        if not self.kept:
            return None
        number = max(self.kept)
        return CompleteCut(
            number, f"c{number}", self.kept[number].progress, self.kept[number].begun
        )

    def touched(self, cut: CompleteCut, keys: Mapping[str, Keys]) -> Snapshot:
        if cut.number not in self.kept:
            raise CutGone(f"cut {cut.number} is not kept")
        return touched_part(encode_part(self.kept[cut.number]), keys)


class VirtualGovernor:
    """Its `take` is the `on_trained` of a `VirtualTraining`. With `backlog`, all examples stand in
    the log from the beginning, so that data age grows; else each comes just before it is learned.
    """

    def __init__(self, config: GovernorConfig, cut_every: int, backlog: bool = False) -> None:
        self.config, self.cut_every, self.backlog = config, cut_every, backlog
        self.now_ms = 0.0
        self.log = MemoryLog(lambda: int(self.now_ms))
        self.log.create(STREAM.examples, PARTITIONS)
        self.log.create(STREAM.evaluations, 1)
        self.cuts = CopiedCuts()
        self.service: GovernorService | None = None
        self.decisions: list[dict[str, Any]] = []

    def begin(self, world: VirtualTraining) -> GovernorService:
        """The governor's process starts; called by itself after the first batch."""
        clock = LocalClock(world.clocks, lambda: int(world.now_ms))
        governed = GovernedSystem(LocalShard(world.shard), clock, self.log, self.cuts)
        metrics, now_ms = GovernorMetrics(), lambda: int(world.now_ms)
        self.service = GovernorService(
            STREAM, world.model, self.config, governed, metrics, "governor-0", now_ms
        )
        return self.service

    def take(self, world: VirtualTraining, trained: Trained) -> None:
        self.now_ms = world.now_ms
        if len(world.trained) == 1 and self.backlog:
            for work in sorted(world.works, key=lambda w: w.batch.start):
                self._example(work)
        elif not self.backlog:
            self._example(trained.work)
        batch = trained.work.batch
        said = {
            "model": world.model.name,
            "chain": batch.chain,
            "start": batch.start,
            "end": batch.end,
        }
        said |= {"log_loss_sum": trained.log_loss}
        self.log.append(Partition(STREAM.evaluations, 0), json.dumps(said).encode())
        service = self.service or self.begin(world)
        before = service.core.decision
        service.run_once()
        if len(world.trained) % self.cut_every == 0:
            self.cuts.take(world.shard.snapshot(world.model.name))
        if (decision := service.core.decision) is not None and decision is not before:
            found = service.core.estimate
            assert found is not None
            self.decisions.append(
                {
                    "after_batches": len(world.trained),
                    "action": decision.action,
                    "reason": decision.reason,
                    "staleness_bound": decision.level.staleness,
                    "concurrency": decision.level.concurrency,
                    "excess": round(found.excess, 5),
                    "error": round(found.error, 5),
                }
            )

    def _example(self, work: Work) -> None:
        batch = work.batch
        header = BatchHeader(batch.chain, batch.start, batch.end, "s", "c", labelled=batch.rows)
        at = Partition(STREAM.examples, batch.partition)
        self.log.append(at, encode_examples(work.prepared.rows), headers=header.to_headers())
