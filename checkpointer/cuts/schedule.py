"""When the next cut is due: by wall time, by event time learned, or by a barrier in the logs
(E3)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from checkpointer.store import Manifest
from paramserver import Progress
from stream import LABEL, kind_of

#: A cut that meets a learner's end or a shard's start succeeds at the next try; what fails more
#: often is broken.
QUICK_RETRIES = 3


@dataclass(frozen=True)
class Due:
    """Why a cut is due: "first" | "barrier" | "event_time" | "interval" | "idle", or "scale": other
    shards (S6). `barrier` = the period reached, 0 = none."""

    reason: str
    barrier: int = 0


@dataclass
class Schedule:
    """Decides from what the shards report. A cut that is abandoned stays due, and is tried again
    after `retry_ms`.

    A model that has learned no row since its head has nothing new to keep, so nothing is due by
    time: where traffic stops, empty checkpoints would push out those that people may want to go
    back to. But its chains go on over heartbeats, and a head must not fall behind what `examples`
    retains: so such a cut is due each `idle_interval_ms`.
    """

    #: wall time between cuts, ms; 0 = off
    interval_ms: int = 0
    #: event time between cuts, ms; 0 = off
    event_interval_ms: int = 0
    #: wall time between cuts while no row is learned, ms; 0 = none is due then
    idle_interval_ms: int = 0
    #: wall time before an abandoned cut is tried again, ms; after `QUICK_RETRIES` it doubles, up to
    #: the longest
    retry_ms: int = 0
    retry_max_ms: int = 0
    #: kinds of chains that answer barriers: those that a labeler writes for every impression (E3)
    barrier_kinds: tuple[str, ...] = (LABEL,)
    not_before_ms: int = 0
    #: cuts abandoned since one was complete
    failures: int = 0

    def abandoned(self, now_ms: int) -> None:
        doublings = min(max(0, self.failures - QUICK_RETRIES), 32)
        self.failures += 1
        self.not_before_ms = now_ms + min(self.retry_ms << doublings, self.longest_ms)

    def completed(self) -> None:
        self.failures = 0

    @property
    def longest_ms(self) -> int:
        return max(self.retry_ms, self.retry_max_ms)

    def may_try(self, now_ms: int) -> bool:
        """Whether no cut was abandoned just now. A clock that was set back does not hold one up."""
        return not now_ms < self.not_before_ms <= now_ms + self.longest_ms

    def left_ms(self, now_ms: int, head: Manifest | None) -> int:
        """Until a cut is first due by wall time, ms; 0 = that time is over, or there is none."""
        times = [ms for ms in (self.interval_ms, self.idle_interval_ms) if ms > 0]
        if head is None or not times or _is_over(min(times), now_ms - head.created_ms):
            return 0
        return min(times) - (now_ms - head.created_ms)

    def due(self, now_ms: int, shards: Sequence[Progress], head: Manifest | None) -> Due | None:
        """What is due at `now_ms`, if anything. `shards` = what every shard reports; `head` =
        the last complete cut."""
        if not shards or not self.may_try(now_ms):
            return None
        if head is None:
            return Due("first")
        barrier = barrier_reached(shards, self.barrier_kinds)
        if barrier > head.barrier:
            return Due("barrier", barrier)
        if all(_ends(shard) == head.vector for shard in shards):
            return None
        age_ms = now_ms - head.created_ms
        if not _rows_since(shards, head):
            return Due("idle", barrier) if _is_over(self.idle_interval_ms, age_ms) else None
        learned_ms = min(shard.event_time_max_ms for shard in shards)
        if self.event_interval_ms and learned_ms - head.event_time_max_ms >= self.event_interval_ms:
            return Due("event_time", barrier)
        return Due("interval", barrier) if _is_over(self.interval_ms, age_ms) else None


def _is_over(interval_ms: int, age_ms: int) -> bool:
    """Whether so much time has passed; below 0 the clock was set back, and nobody knows. An
    interval of 0 is never."""
    return interval_ms > 0 and not 0 <= age_ms < interval_ms


def _rows_since(shards: Sequence[Progress], head: Manifest) -> bool:
    """Whether any shard has learned a row that the head has not."""
    known = {chain: at.rows for chain, at in head.chains.items()}
    return any(
        at.rows != known.get(chain, 0) for shard in shards for chain, at in shard.chains.items()
    )


def barrier_reached(shards: Sequence[Progress], kinds: Collection[str] = (LABEL,)) -> int:
    """The period that every shard has reached on every chain that answers barriers (E3); 0 =
    none."""
    reached = (
        at.barrier
        for shard in shards
        for chain, at in shard.chains.items()
        if kind_of(chain) in kinds
    )
    return min(reached, default=0)


def _ends(progress: Progress) -> dict[str, int]:
    return {chain: at.end for chain, at in progress.chains.items()}
