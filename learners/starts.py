"""Which batch a learner asks to start next, and when."""

from collections.abc import Iterable
from dataclasses import dataclass

from learners.events import Batch
from learners.instructions import Start
from learners.position import Position, clip
from paramserver.messages import StartOutcome, StartReply


@dataclass
class Starts:
    """One start is asked for at a time, and asked again until it is answered: it may have been admitted (K1)."""

    wait_ms: int
    asked: Start | None = None
    at_ms: int = 0  # not before
    waiting: str = "none"  # why the last one was not admitted: staleness | cut | none
    reach: dict[str, int] | None = None  # under a cut, for the next ask: chain -> how far a start may reach (X1)

    def candidate(self, positions: Iterable[Position | None]) -> Batch | None:
        """The oldest batch read; under a cut, one that some shard has and another lacks, no further than that."""
        heads = [p.queue[0] for p in positions if p is not None and p.queue]
        if self.reach is not None:
            reach = self.reach
            heads = [clip(h, h.start, min(h.end, reach[h.chain])) for h in heads if h.start < reach.get(h.chain, 0)]
        return min(heads, key=lambda b: (b.time_ms, b.partition), default=None)

    def told(self, reply: StartReply, positions: Iterable[Position | None], now_ms: int) -> None:
        """Take the clock's answer: when to ask again, and how far."""
        clipped, self.asked, self.reach = self.reach is not None, None, None
        self.waiting = "none"
        if reply.outcome is StartOutcome.WAIT_CUT:
            self.waiting = "cut"
            if not clipped:  # ask at once for what the cut still lacks, if this learner can bring it
                self.reach = dict(reply.highest)
                if self.candidate(positions) is not None:
                    return
                self.reach = None
        elif reply.outcome is StartOutcome.WAIT_STALENESS:
            self.waiting = "staleness"
        else:
            return
        self.at_ms = now_ms + self.wait_ms

    def clear(self) -> None:
        self.asked, self.reach, self.waiting = None, None, "none"
