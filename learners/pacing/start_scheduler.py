"""Which batch a learner asks to start next, and when."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from learners.pacing.events import Batch
from learners.pacing.instructions import Start
from learners.pacing.position import Position, clip
from learners.pacing.start_backoff import StartBackoff
from paramserver import StartOutcome, StartReply

#: An operator may raise the staleness bound at any time; a learner finds out by asking for one more
#: this often.
PROBE_MS = 2_000


@dataclass
class StartScheduler:
    """One start is asked for at a time, and asked again until it is answered: it may have been
    admitted (K1).

    `staleness` is the bound s as far as known (-1 = none): the clock decides (K2), this only saves
    useless asking.
    """

    wait_ms: int
    paused_ms: int  # the same while an operator has paused training
    outstanding_max: int
    staleness: int = 0
    asked: Start | None = None
    at_ms: int = 0  # not before
    probe_at_ms: int = 0
    waiting: str = "none"  # why the last one was not admitted: staleness | cut | paused | none
    backoff: StartBackoff = field(init=False)
    reach: dict[str, int] | None = (
        None  # under a cut, for the next ask: chain -> how far a start may reach (X1)
    )

    def __post_init__(self) -> None:
        self.backoff = StartBackoff(self.wait_ms)

    def may_ask(self, outstanding: int, now_ms: int) -> bool:
        if self.asked is not None or now_ms < self.at_ms or outstanding >= self.outstanding_max:
            return False
        if self.staleness < 0 or outstanding <= self.staleness:
            return True
        if now_ms < self.probe_at_ms:
            return False
        self.probe_at_ms = now_ms + PROBE_MS
        return True

    def candidate(self, positions: Iterable[Position | None]) -> tuple[Batch, Position] | None:
        """The oldest batch read; under a cut, one that some shard has and another lacks, no
        further than that."""
        heads = [(p.queue[0], p) for p in positions if p is not None and p.queue]
        if self.reach is not None:
            reach = self.reach
            below = [(h, p) for h, p in heads if h.start < reach.get(h.chain, 0)]
            heads = [(clip(h, h.start, min(h.end, reach[h.chain])), p) for h, p in below]
        return min(heads, key=lambda found: (found[0].time_ms, found[0].partition), default=None)

    def told(
        self, reply: StartReply, outstanding: int, positions: Iterable[Position | None], now_ms: int
    ) -> None:
        """Take the clock's answer: when to ask again, and how far."""
        clipped, self.asked, self.reach = self.reach is not None, None, None
        self.waiting = "none"
        if reply.outcome is StartOutcome.ADMITTED:
            self.backoff.admitted(now_ms)
            if 0 <= self.staleness < outstanding:
                self.staleness = outstanding
            return
        if reply.outcome is StartOutcome.WAIT_CUT:
            self.waiting = "cut"
            if (
                not clipped
            ):  # ask at once for what the cut still lacks, if this learner can bring it
                self.reach = dict(reply.highest)
                if self.candidate(positions) is not None:
                    return
                self.reach = None
        else:
            self.waiting = "paused" if reply.outcome is StartOutcome.WAIT_PAUSED else "staleness"
        if self.waiting == "staleness":
            self.at_ms = now_ms + self.backoff.held_back(now_ms)
        else:
            self.backoff.forget()
            self.at_ms = now_ms + (self.paused_ms if self.waiting == "paused" else self.wait_ms)

    def joined(self, staleness: int, now_ms: int) -> None:
        """A new epoch: nothing is asked, and the bound is the one it was told."""
        self.asked, self.reach, self.waiting = None, None, "none"
        self.backoff.forget()
        self.staleness, self.probe_at_ms = staleness, now_ms + PROBE_MS
