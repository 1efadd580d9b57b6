"""The batches that follow a cut, in the order in which they were learned live, each with the loss
it had then.

First the evaluations are collected, which are small; then the records of `examples` are read from
where the cut stands, and folded as learners fold them (C2). What was learned and not scored (E1) is
trained by a shadow too, and not compared.
"""

from typing import NamedTuple

from learners.governor.checkpoint_source import CompleteCut
from learners.pacing import Batch, Position
from paramserver import ProgressReply, SlotMap
from stream import LABEL, RETRACT, Fold, kind_of, partition_of
from stream.internal_topics import Fields

#: Evaluations of a window, for each that is to be compared: those of other chains count too.
SCORED_PER_PAIR_MAX = 16


class Scored(NamedTuple):
    """One record of `evaluations`: a batch that was scored, and by then not learned by any
    shard."""

    chain: str
    start: int
    end: int
    log_loss_sum: float


class ShadowBatch(NamedTuple):
    """A batch for the shadow. `live`: the loss it had when it was learned live; None = it is not
    compared."""

    batch: Batch
    live: float | None


def scored(model: str, record: object) -> Scored | None:
    """What a record of `evaluations` says; None for another model's. Raises MalformedRecord if
    it says nothing."""
    said = Fields.of("evaluations", record)
    if said.body.get("model") != model:
        return None
    start = said.integer("start", low=0)
    return Scored(
        said.text("chain"), start, said.integer("end", low=start), said.number("log_loss_sum")
    )


class ComparisonWindow:
    """What follows `cut`, until `wanted` batches of first labels have been scored."""

    def __init__(self, cut: CompleteCut, wanted: int) -> None:
        self.cut, self.wanted = cut, wanted
        self.order: list[Scored] = []
        self.rewritten = (
            False  # rows of the model were replaced meanwhile (S8), which no shadow repeats
        )
        chains = cut.progress.chains
        told = {0: ProgressReply(1, 1, cut.progress, dict(cut.begun))}
        self.positions = {
            p: Position.sought(p, 0, told, SlotMap.even(1))
            for p in sorted({partition_of(chain) for chain in chains})
        }
        self._needed: dict[int, dict[str, int]] = {
            p: {} for p in self.positions
        }  # partition -> chain -> E

    def add(self, one: Scored) -> None:
        """In the order of the log."""
        at = self.cut.progress.chains.get(one.chain)
        if at is None or one.start < at.end or self.complete:
            return
        self.order.append(one)
        needed = self._needed[partition_of(one.chain)]
        needed[one.chain] = max(one.end, needed.get(one.chain, 0))

    @property
    def pairs(self) -> int:
        """Batches that can be compared as far as heard."""
        return sum(kind_of(one.chain) == LABEL for one in self.order)

    @property
    def complete(self) -> bool:
        return self.pairs >= self.wanted or len(self.order) >= SCORED_PER_PAIR_MAX * self.wanted

    def wants(self, partition: int) -> bool:
        """Whether a batch that was scored has not been read yet."""
        chains = self.positions[partition].chains
        return any((chains[chain].end or 0) < end for chain, end in self._needed[partition].items())

    def read(self, batch: Batch) -> None:
        """The next record of its partition. Raises CannotGoOn for a chain that the model did not
        begin with."""
        if not self.wants(batch.partition):
            return
        if (
            self.positions[batch.partition].fold(batch) is Fold.EXTENDS
            and kind_of(batch.chain) == RETRACT
        ):
            self.rewritten = self.rewritten or batch.rows > 0

    def steps(self) -> list[ShadowBatch]:
        """All that is to be trained, once everything wanted has been read."""
        steps: list[ShadowBatch] = []
        for one in self.order:
            queue = self.positions[partition_of(one.chain)].queue
            if not any(batch.chain == one.chain and batch.start == one.start for batch in queue):
                # a piece of a batch that was split where shards stood apart: nobody compares it
                continue
            while True:
                batch = queue.popleft()
                found = (batch.chain, batch.start) == (one.chain, one.start)
                compared = found and batch.end == one.end and kind_of(batch.chain) == LABEL
                steps.append(ShadowBatch(batch, one.log_loss_sum if compared else None))
                if found:
                    break
        return steps
