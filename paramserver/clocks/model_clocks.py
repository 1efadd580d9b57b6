"""The clocks of one model: its members, what bounds them (K2, K6, K7), and the stop lease of a
cut (X1)."""

from dataclasses import dataclass, field
from typing import NamedTuple

from paramserver.bounds import Bounds, GovernorLease, PaceLevel
from paramserver.messages import Epoch

#: A member of an unbounded clock (s = -1) may have this many batches running, and no more.
OUTSTANDING_MAX = 1_024


class Range(NamedTuple):
    """What a started batch covers."""

    chain: str
    start: int
    end: int
    barrier: int


@dataclass
class Member:
    """One epoch of one learner."""

    learner: str
    epoch: Epoch
    allowed_at: int  # sequence of the first list that names it
    lease_until_ms: int
    progress_ms: int  # when it last came on: joined, was admitted, ended a batch
    started: int
    parked: bool = True  # and then nothing is outstanding
    outstanding: dict[int, Range] = field(default_factory=dict)
    ticket: int = 0
    fenced_at: int | None = None  # sequence of the first list without it

    @property
    def acknowledged(self) -> int:
        return min(self.outstanding, default=self.started)


@dataclass
class StartHold:
    """The stop lease of a cut (X1): only ranges up to `highest` (chain -> E) may start."""

    cut: str
    until_ms: int
    highest: dict[str, int]
    #: a learner was fenced in the middle of a batch: the cut is to be abandoned
    broken: bool = False

    def catches_up(self, asked: Range) -> bool:
        """Whether some shard may have this range already. A barrier's empty range at the highest
        end counts: one shard may know the barrier and another not, and parts of one cut agree on
        it."""
        return asked.end <= self.highest.get(asked.chain, -1)


@dataclass
class ModelClocks:
    """The clocks of one model. `staleness`, `concurrency` and `paused` are an operator's, or as
    configured."""

    staleness: int
    members: dict[Epoch, Member] = field(default_factory=dict)
    highest: int = 0  # the highest clock of this era
    hold: StartHold | None = None
    paused: bool = False
    concurrency: int = 0  # batches under way at once, of all members; 0 = no limit
    lease: GovernorLease | None = None
    last_cut: str = ""  # that stopped starts

    def minimum(self) -> int:
        return min(
            (m.acknowledged for m in self.members.values() if not m.parked), default=self.highest
        )

    def running(self) -> int:
        """Batches under way. Those of a fenced member count until every shard has confirmed its
        fence."""
        return sum(len(member.outstanding) for member in self.members.values())

    def holding(self, now_ms: int) -> StartHold | None:
        """The hold in force, if any. It runs out by itself; nothing needs to be alive for that."""
        hold = self.hold
        return hold if hold is not None and not hold.broken and now_ms < hold.until_ms else None

    def governing(self, now_ms: int) -> GovernorLease | None:
        """The governor's lease in force, if any. It runs out by itself, like a hold."""
        lease = self.lease
        return lease if lease is not None and now_ms < lease.until_ms else None

    def bounds(self, now_ms: int) -> Bounds:
        ordered = PaceLevel(self.staleness, self.concurrency)
        learners = sum(member.fenced_at is None for member in self.members.values())
        sequence, lease = self.lease.sequence if self.lease else 0, self.governing(now_ms)
        if lease is None:
            return Bounds(ordered, self.paused, learners, sequence=sequence, cut=self.last_cut)
        left_ms = lease.until_ms - now_ms
        return Bounds(
            ordered,
            self.paused,
            learners,
            lease.governor,
            lease.level,
            left_ms,
            sequence,
            self.last_cut,
        )

    def govern(self, request: GovernorLease, now_ms: int) -> None:
        """Take a governor's lease, unless another one's lease is in force or a later word of its
        own came first (K7)."""
        last = self.lease
        if last is not None:
            overtaken = last.governor == request.governor and request.sequence <= last.sequence
            if overtaken or (
                last.governor != request.governor and self.governing(now_ms) is not None
            ):
                return
        self.lease = request

    def in_force(self, now_ms: int) -> PaceLevel:
        """What the next start is judged by: the operator's setting, tightened by a lease that has
        not run out."""
        ordered, lease = PaceLevel(self.staleness, self.concurrency), self.governing(now_ms)
        return ordered if lease is None else ordered.tightened(lease.level)

    def admits(self, member: Member, clock: int, now_ms: int) -> bool:
        """K2: every active learner, the asker included, has acknowledged at least `clock - s`."""
        s, concurrency = self.in_force(now_ms)
        if concurrency and self.running() >= concurrency:
            return False
        if s < 0:
            return len(member.outstanding) < OUTSTANDING_MAX
        floor = clock - s
        return member.acknowledged >= floor and self.minimum() >= floor
