"""When the next cut is due: by wall time, by event time learned, or by a barrier in the logs (E3)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from checkpointer.manifest import Manifest
from paramserver.messages import Progress
from stream.chain import LABEL, kind_of


@dataclass(frozen=True)
class Due:
    """Why a cut is due: "first" | "barrier" | "event_time" | "interval", or "scale": other shards are wanted (S6).
    `barrier` = the period reached, 0 = none."""

    reason: str
    barrier: int = 0


@dataclass
class Schedule:
    """Decides from what the shards report. A cut that is abandoned stays due, and is tried again after `retry_ms`.

    A model at the very vector and barrier of its head has nothing new to keep, so nothing is due.
    """

    #: wall time between cuts, ms; 0 = off
    interval_ms: int = 0
    #: event time between cuts, ms; 0 = off
    event_interval_ms: int = 0
    #: wall time before an abandoned cut is tried again, ms
    retry_ms: int = 0
    #: kinds of chains that answer barriers: those that a labeler writes for every impression (E3)
    barrier_kinds: tuple[str, ...] = (LABEL,)
    not_before_ms: int = 0

    def abandoned(self, now_ms: int) -> None:
        self.not_before_ms = now_ms + self.retry_ms

    def may_try(self, now_ms: int) -> bool:
        """Whether no cut was abandoned just now. A clock that was set back does not hold one up."""
        return not now_ms < self.not_before_ms <= now_ms + self.retry_ms

    def due(self, now_ms: int, shards: Sequence[Progress], head: Manifest | None) -> Due | None:
        """What is due at `now_ms`, if anything. `shards` = what every shard reports; `head` = the last complete cut."""
        if not shards or not self.may_try(now_ms):
            return None
        if head is None:
            return Due("first")
        barrier = barrier_reached(shards, self.barrier_kinds)
        if barrier > head.barrier:
            return Due("barrier", barrier)
        if all(_ends(shard) == head.vector for shard in shards):
            return None
        learned_ms = min(shard.event_time_max_ms for shard in shards)
        if self.event_interval_ms and learned_ms - head.event_time_max_ms >= self.event_interval_ms:
            return Due("event_time", barrier)
        age_ms = now_ms - head.created_ms
        if self.interval_ms and not 0 <= age_ms < self.interval_ms:  # below 0: the clock was set back
            return Due("interval", barrier)
        return None


def barrier_reached(shards: Sequence[Progress], kinds: Collection[str] = (LABEL,)) -> int:
    """The period that every shard has reached on every chain that answers barriers (E3); 0 = none."""
    reached = (at.barrier for shard in shards for chain, at in shard.chains.items() if kind_of(chain) in kinds)
    return min(reached, default=0)


def _ends(progress: Progress) -> dict[str, int]:
    return {chain: at.end for chain, at in progress.chains.items()}
