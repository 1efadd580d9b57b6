"""What bounds a model's training: an operator's setting (K6), and a governor's lease, which only
tightens it (K7)."""

from dataclasses import dataclass
from typing import NamedTuple

#: A lease that lasts longer is none: it would stand for so long after its governor died.
GOVERNOR_LEASE_MAX_MS = 600_000


class PaceLevel(NamedTuple):
    """`staleness`: the bound s, -1 = unbounded. `concurrency`: batches under way at once, 0 = no
    limit."""

    staleness: int
    concurrency: int = 0

    def tightened(self, by: "PaceLevel") -> "PaceLevel":
        """Of each number the tighter one."""
        bounds = [s for s in (self.staleness, by.staleness) if s >= 0]
        limits = [n for n in (self.concurrency, by.concurrency) if n > 0]
        return PaceLevel(min(bounds, default=-1), min(limits, default=0))


@dataclass
class GovernorLease:
    """A governor's lease. `sequence` numbers its words: one that was overtaken by a later one
    changes nothing."""

    governor: str
    sequence: int
    level: PaceLevel
    until_ms: int


class Bounds(NamedTuple):
    """What a clock holder answers to whoever asks what bounds a model, or sets it."""

    ordered: PaceLevel  # by an operator, or as configured
    paused: bool
    learners: int  # that have joined and are not fenced, parked ones included
    governor: str = ""  # whose lease is in force; "" = nobody's
    governed: PaceLevel | None = None
    left_ms: int = 0  # until it runs out
    sequence: int = 0  # of the last word taken: a governor that starts goes on above it
    # that stopped starts last: one of another name, if not older, began after this was answered
    # (X1)
    cut: str = ""

    @property
    def in_force(self) -> PaceLevel:
        return self.ordered if self.governed is None else self.ordered.tightened(self.governed)
