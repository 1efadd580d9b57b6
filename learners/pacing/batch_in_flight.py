"""One batch between its start and its end."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from learners.pacing.events import Batch
from learners.pacing.instructions import Push
from learners.pacing.position import Position, clip
from paramserver import Epoch, Outcome, PullReply, PushReply, SlotMap

Range = tuple[int, int]
_ACKNOWLEDGED = (Outcome.APPLIED, Outcome.DUPLICATE, Outcome.PARTLY_APPLIED)


@dataclass
class BatchInFlight:
    """A started batch. It ends when every shard has acknowledged all its pieces, or when it is
    abandoned (K1).

    `pieces[shard]`: the ranges that the shard has not acknowledged, in order; all keep the batch's
    stamp (S1).
    """

    clock: int
    batch: Batch
    seek: int
    epoch: Epoch
    incarnations: dict[int, int]
    slot_map: SlotMap
    scored: bool
    pieces: dict[int, list[Range]]
    pulls: dict[int, PullReply] = field(default_factory=dict)
    results: dict[Range, Any] = field(default_factory=dict)  # None while it is computed
    gaps: int = 0
    abandoned: bool = False

    @staticmethod
    def of(batch: Batch, clock: int, epoch: Epoch, position: Position) -> "BatchInFlight":
        pieces = {shard: [(batch.start, batch.end)] for shard in position.incarnations}
        return BatchInFlight(
            clock,
            batch,
            position.seek,
            epoch,
            position.incarnations,
            position.slot_map,
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

    def take_missing(self) -> list[Range]:
        """The pieces that some shard waits for and nobody computes yet, once each; the whole
        first, on one pull."""
        if self.abandoned or not self.pulled:
            return []
        missing = dict.fromkeys(
            p[0] for p in self.pieces.values() if p and p[0] not in self.results
        )
        self.results |= dict.fromkeys(missing)
        return list(missing)

    def acknowledge(self, push: Push, reply: PushReply) -> bool:
        """Take a shard's answer to its first piece. False: it neither learned the piece nor
        stands inside it."""
        if reply.outcome in _ACKNOWLEDGED:
            del self.pieces[push.shard][0]
        elif reply.outcome is Outcome.OVERLAP and push.start < reply.end < push.end:
            # What lies below E is acknowledged by E itself; the rest is pushed on its own, with the
            # same stamp (S1).
            self.pieces[push.shard][0] = (reply.end, push.end)
        else:
            return False
        return True

    def push(self, shard: int, version: int) -> Push:
        """The first piece that the shard has not acknowledged. `version`: the shard's, where
        nothing was pulled."""
        start, end = self.pieces[shard][0]
        batch = clip(self.batch, start, end)
        pull = self.pulls.get(shard)
        return Push(
            0,
            shard,
            self.clock,
            self.epoch,
            self.slot_map.epoch,
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


def ready_to_push(flights: Iterable[BatchInFlight], shard: int) -> BatchInFlight | None:
    """The oldest with a piece for this shard; never one past a piece of its partition that is
    not computed yet."""
    held: set[int] = set()
    for flight in flights:
        pieces = flight.pieces.get(shard)
        if flight.abandoned or not pieces or flight.batch.partition in held:
            continue
        if flight.results.get(pieces[0]) is not None:
            return flight
        held.add(flight.batch.partition)
    return None
