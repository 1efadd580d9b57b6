"""Where a learner stands in one partition of `examples`."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from learners.pacing.events import Batch
from paramserver import ProgressReply, SlotMap
from stream import RETRACT, Chain, Fold, kind_of, label_chain


class CannotGoOn(Exception):
    """What is needed is not there; the message says what to do."""


@dataclass
class Position:
    """A place in `examples[partition]`, kept *with the incarnations that answered when it was
    sought* (S2).

    `chains` start at the smallest end of any shard, never at the first record seen (C2); `ends` are
    the ends of all shards, at which batches are split, and the largest of which says what is not
    scored any more (S1, E1).
    """

    partition: int
    seek: int
    incarnations: dict[int, int]
    slot_map: SlotMap  # under which all of them answered (S6)
    chains: dict[str, Chain]
    ends: dict[str, list[int]]
    next_record: int | None
    queue: deque[Batch] = field(default_factory=deque)
    paused: bool = False
    first: int | None = None  # offset of the first record read here
    folded: set[str] = field(default_factory=set)  # chains that a record was folded into
    logged: dict[str, int] = field(default_factory=dict)  # where each chain stands in what was read
    floor: int = 0  # of `impressions[partition]`: where the model began on `label` (C1)

    @staticmethod
    def sought(
        partition: int, seek: int, told: dict[int, ProgressReply], slot_map: SlotMap
    ) -> "Position":
        """From what every shard of a map answered under it; each reply's progress is there."""
        progress = {
            shard: reply.progress for shard, reply in told.items() if reply.progress is not None
        }
        names = sorted(set.intersection(*(set(p.chains) for p in progress.values())))
        chains, ends = {}, {}
        for name in names:
            stand = [p.chains[name] for p in progress.values()]
            # A barrier counts at E, wherever below it stands (E3b): it is passed after the range
            # that ends at E, so (end, barrier) is the order on one chain.
            end, barrier = min((s.end, s.barrier) for s in stand)
            chains[name] = Chain(end, barrier)
            ends[name] = sorted({s.end for s in stand})
        records = [p.next_record.get(partition) for p in progress.values()]
        known = [r for r in records if r is not None]
        return Position(
            partition,
            seek,
            {shard: reply.incarnation for shard, reply in told.items()},
            slot_map,
            chains,
            ends,
            min(known) if len(known) == len(records) else None,
            floor=max(
                (reply.begun.get(label_chain(partition), 0) for reply in told.values()), default=0
            ),
        )

    def fold(self, batch: Batch) -> Fold:
        """Fold one record in; what extends the chain is queued, trimmed and split at the ends of
        the shards.

        Raises CannotGoOn.
        """
        chain = self.chains.get(batch.chain)
        if chain is None:
            raise CannotGoOn(
                f"examples[{self.partition}] offset {batch.record}: the model did not begin with "
                f"chain {batch.chain!r};"
                " begin it with a vector that names all chains (S5)"
            )
        if self.first is None:
            self.first = batch.record
        batch = batch._replace(
            record_end=batch.end, floor=self.floor if kind_of(batch.chain) == RETRACT else 0
        )
        if self.next_record is None and self._dangles_in_log(batch):
            return Fold.DANGLES
        kind, at = chain.fold(batch.start, batch.end, batch.barrier or None)
        if kind is Fold.EXTENDS:
            self.queue.extend(split(batch._replace(start=at, barrier=0), self.ends[batch.chain]))
        elif kind is Fold.BARRIER:
            self.queue.append(batch._replace(start=at, end=at))  # where shards take it (E3b)
        if kind is not Fold.DANGLES:
            self.folded.add(batch.chain)
        elif self.next_record is None and self.first and batch.chain not in self.folded:
            # Nobody knows where to read on, and what is left of the log begins above E: not to be
            # skipped.
            raise self.lost(self.first)
        return kind

    def _dangles_in_log(self, batch: Batch) -> bool:
        """Whether it stands above the end of its chain, read from the log's first record: a model
        may begin above that end, and a record that dangles may begin just there (C2)."""
        end = self.logged.get(batch.chain, batch.start)
        self.logged[batch.chain] = max(end, batch.end) if batch.start <= end else end
        return batch.start > end

    def lost(self, first: int) -> CannotGoOn:
        """The log begins only at `first`, above what is needed."""
        ends = {name: chain.end for name, chain in self.chains.items()}
        needed = "an earlier record" if self.next_record is None else f"record {self.next_record}"
        return CannotGoOn(
            f"examples[{self.partition}]: {needed} is needed to go on from {ends}, and the first "
            f"one still there is"
            f" {first}: restore checkpoint X or replay from the archive"
        )

    def scored(self, batch: Batch) -> bool:
        """Whether it says something of labels, and no shard has applied it as far as known (E1)."""
        return kind_of(batch.chain) != RETRACT and batch.start >= self.ends[batch.chain][-1]

    def take(self, batch: Batch) -> None:
        """The first of the queue, or its beginning, was started."""
        head = self.queue.popleft()
        if batch.end < head.end:
            self.queue.appendleft(head._replace(start=batch.end))


def split(batch: Batch, ends: Iterable[int]) -> list[Batch]:
    """The batch cut at every end that lies inside it. Only the last part moves the next record."""
    cuts = [batch.start, *(e for e in ends if batch.start < e < batch.end), batch.end]
    return [clip(batch, start, end) for start, end in pairwise(cuts)]


def clip(batch: Batch, start: int, end: int) -> Batch:
    next_record = batch.next_record if end == batch.end else batch.record
    return batch._replace(start=start, end=end, next_record=next_record)
