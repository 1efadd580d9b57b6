"""Where a learner stands in one partition, and one batch between its start and its end."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from learners.events import Batch
from learners.instructions import Push
from paramserver.messages import Epoch, PullReply
from paramserver.ports import ProgressReply
from stream.chain import Chain, Fold

Range = tuple[int, int]


class MissingChain(Exception):
    """A record of a chain that the model did not begin with (S5)."""


@dataclass
class Position:
    """A place in `examples[partition]`, kept *with the incarnations that answered when it was sought* (S2).

    `chains` start at the smallest end of any shard, never at the first record seen (C2); `ends` are the ends of all
    shards, at which batches are split, and the largest of which says what is not scored any more (S1, E1).
    """

    partition: int
    seek: int
    incarnations: dict[int, int]
    map_epochs: dict[int, int]
    chains: dict[str, Chain]
    ends: dict[str, list[int]]
    next_record: int | None
    queue: deque[Batch] = field(default_factory=deque)
    paused: bool = False
    first: int | None = None  # offset of the first record read here
    folded: set[str] = field(default_factory=set)  # chains that a record was folded into

    @staticmethod
    def sought(partition: int, seek: int, told: dict[int, ProgressReply]) -> "Position":
        """From what every shard answered; each reply's progress is there."""
        progress = {shard: reply.progress for shard, reply in told.items() if reply.progress is not None}
        names = sorted(set.intersection(*(set(p.chains) for p in progress.values())))
        chains, ends = {}, {}
        for name in names:
            stand = [p.chains[name] for p in progress.values()]
            # A barrier at E is passed after the range that ends at E, so (end, barrier) is the order on one chain.
            end, barrier = min((s.end, s.barrier) for s in stand)
            chains[name] = Chain(end, barrier)
            ends[name] = sorted({s.end for s in stand})
        records = [p.next_record.get(partition) for p in progress.values()]
        known = [r for r in records if r is not None]
        return Position(
            partition,
            seek,
            {shard: reply.incarnation for shard, reply in told.items()},
            {shard: reply.map_epoch for shard, reply in told.items()},
            chains,
            ends,
            min(known) if len(known) == len(records) else None,
        )

    def fold(self, batch: Batch) -> Fold:
        """Fold one record in; what extends the chain is queued, trimmed and split at the ends of the shards.

        Raises MissingChain.
        """
        chain = self.chains.get(batch.chain)
        if chain is None:
            raise MissingChain(batch.chain)
        if self.first is None:
            self.first = batch.record
        kind, at = chain.fold(batch.start, batch.end, batch.barrier or None)
        if kind is Fold.EXTENDS:
            self.queue.extend(split(batch._replace(start=at, barrier=0), self.ends[batch.chain]))
        elif kind is Fold.BARRIER:
            self.queue.append(batch)
        if kind is not Fold.DANGLES:
            self.folded.add(batch.chain)
        return kind

    def scored(self, batch: Batch) -> bool:
        """Whether no shard has applied the batch as far as known (E1)."""
        return batch.start >= self.ends[batch.chain][-1]

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


@dataclass
class Flight:
    """A started batch. It ends when every shard has acknowledged all its pieces, or when it is abandoned (K1).

    `pieces[shard]`: the ranges that the shard has not acknowledged, in order; all keep the batch's stamp (S1).
    """

    clock: int
    batch: Batch
    seek: int
    epoch: Epoch
    incarnations: dict[int, int]
    map_epochs: dict[int, int]
    scored: bool
    pieces: dict[int, list[Range]]
    pulls: dict[int, PullReply] = field(default_factory=dict)
    results: dict[Range, Any] = field(default_factory=dict)  # None while it is computed
    gaps: int = 0
    abandoned: bool = False

    @staticmethod
    def of(batch: Batch, clock: int, epoch: Epoch, position: Position) -> "Flight":
        pieces = {shard: [(batch.start, batch.end)] for shard in position.incarnations}
        return Flight(
            clock,
            batch,
            position.seek,
            epoch,
            position.incarnations,
            position.map_epochs,
            position.scored(batch),
            pieces,
        )

    @property
    def whole(self) -> Range:
        return self.batch.start, self.batch.end

    @property
    def pulled(self) -> bool:
        return not self.batch.rows or len(self.pulls) == len(self.incarnations)

    @property
    def acknowledged(self) -> bool:
        return not any(self.pieces.values())

    def push(self, shard: int, version: int) -> Push:
        """The first piece that the shard has not acknowledged. `version`: the shard's, where nothing was pulled."""
        start, end = self.pieces[shard][0]
        batch = clip(self.batch, start, end)
        pull = self.pulls.get(shard)
        return Push(
            0,
            shard,
            self.clock,
            self.epoch,
            self.map_epochs[shard],
            self.incarnations[shard],
            batch.chain,
            start,
            end,
            batch.partition,
            batch.next_record,
            batch.barrier,
            version if pull is None else pull.version,
            self.results[start, end],
        )


def ready_to_push(flights: Iterable[Flight], shard: int) -> Flight | None:
    """The oldest with a piece for this shard; never one past a piece of its partition that is not computed yet."""
    held: set[int] = set()
    for flight in flights:
        pieces = flight.pieces[shard]
        if flight.abandoned or not pieces or flight.batch.partition in held:
            continue
        if flight.results.get(pieces[0]) is not None:
            return flight
        held.add(flight.batch.partition)
    return None
