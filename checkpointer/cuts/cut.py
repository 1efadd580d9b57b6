"""One attempt at a cut: stop starts, wait until all shards stand at one vector, mark it everywhere,
resume (X1).

    waiting --all at one vector--> marking --all marked--> marked
       ^                             |
       +------ one stands elsewhere -+   from both: --refused, timeout, new incarnation--> abandoned

Pure: events and `now_ms` in, instructions out. Whoever performs an instruction that has an answer
(`AskHold`, `AskProgress`, `Mark`) reports exactly one event for it: the answer, None for no answer
within the deadline, or `refused`. Until then the same question is not asked again.

Starts stop by a lease that the clock holder keeps and that runs out by itself: a checkpointer that
dies stops nobody. The stop makes a cut *likely*; what makes it *right* is that every shard marks
only at exactly the named vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from paramserver import MarkReply, Progress, ProgressReply


class AskHold(NamedTuple):
    """Call `hold`: stop starts above `highest`, or renew that. Answer with `Cut.held`."""

    model: str
    cut: str
    lease_ms: int
    highest: dict[str, int]


class AskShard(NamedTuple):
    """Call `progress`. Answer with `Cut.told`."""

    shard: int


class Mark(NamedTuple):
    """Call `mark`. Answer with `Cut.marked`."""

    shard: int
    cut: str
    vector: dict[str, int]


class Unmark(NamedTuple):
    """Call `unmark`; no answer is needed: the next mark replaces what is left."""

    shard: int
    cut: str


class Release(NamedTuple):
    """Call `release`; no answer is needed: the lease runs out."""

    model: str
    cut: str


class Marked(NamedTuple):
    """The cut stands: every shard keeps its state at `vector` under the name `cut`. Write the
    parts."""

    cut: str
    vector: dict[str, int]
    incarnations: dict[int, int]
    progress: dict[int, Progress]


class Abandoned(NamedTuple):
    """Nothing stands; try another cut later. `reason` is one of a few words, `detail` says
    where."""

    reason: str  # "refused" | "timeout" | "incarnation" | "not_begun" | "disagreement"
    detail: str


Instruction = AskHold | AskShard | Mark | Unmark | Release | Marked | Abandoned


class State(Enum):
    WAITING = "waiting"
    MARKING = "marking"
    MARKED = "marked"
    ABANDONED = "abandoned"


#: State -> what may come after it, and when. Nothing else may; docs/states.md shows it.
TRANSITIONS: Mapping[State, Mapping[State, str]] = {
    State.WAITING: {
        State.MARKING: "starts are stopped, and all shards stand at one place",
        State.ABANDONED: "too late, refused, another incarnation, or a shard that has not begun",
    },
    State.MARKING: {
        State.WAITING: "a shard stands elsewhere, or a barrier has reached some shards only",
        State.MARKED: "all shards have marked, at one place",
        State.ABANDONED: "too late, refused, another incarnation, or marks that disagree",
    },
    State.MARKED: {},
    State.ABANDONED: {},
}


@dataclass(frozen=True)
class Pace:
    """How long a hold lasts without renewal, a whole attempt, and the pause between two looks,
    ms."""

    lease_ms: int = 2_000
    timeout_ms: int = 30_000
    poll_ms: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.poll_ms <= self.lease_ms <= self.timeout_ms:
            raise ValueError(
                f"cut: poll_ms {self.poll_ms}, lease_ms {self.lease_ms} and timeout_ms "
                f"{self.timeout_ms} "
                "must be positive and rise in this order"
            )


class Cut:
    """One attempt, named `cut`. Each round of marks has its own name: `cut`, `cut.2`, `cut.3`, ...,
    so that what is delayed from one round cannot touch the next."""

    def __init__(
        self,
        model: str,
        cut: str,
        shards: Sequence[int],
        now_ms: int,
        pace: Pace | None = None,
        keep_hold: bool = False,
    ) -> None:
        """`keep_hold`: starts stay stopped once all have marked; who asked for that renews and
        releases (S6)."""
        if not shards or not cut:
            raise ValueError(
                f"cut {cut!r} of shards {list(shards)}: expected a name and at least one shard"
            )
        self.model, self.cut, self.shards, self.pace = model, cut, tuple(shards), pace or Pace()
        self.state, self.keep_hold = State.WAITING, keep_hold
        self.rounds = 0
        self.hold_ms = 0  # from the first granted hold until starts resume
        self._began_ms = now_ms
        self._held_ms: int | None = None
        self._renew_at_ms = self._poll_at_ms = now_ms
        self._highest: dict[str, int] = {}
        self._standing: dict[int, Progress] = {}  # of this look; emptied when a look is stale
        self._incarnations: dict[int, int] = {}
        self._marks: dict[int, Progress] = {}
        self._vector: dict[str, int] = {}
        self._hold_asked = False
        self._progress_asked: set[int] = set()
        self._marks_asked: set[int] = set()

    @property
    def done(self) -> bool:
        return self.state in (State.MARKED, State.ABANDONED)

    @property
    def round_name(self) -> str:
        return self.cut if self.rounds <= 1 else f"{self.cut}.{self.rounds}"

    @property
    def next_wake_ms(self) -> int:
        """When `tick` may have something to do if nothing else happens."""
        return min(self._renew_at_ms, self._poll_at_ms, self._began_ms + self.pace.timeout_ms)

    # --- events
    # ---------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> list[Instruction]:
        """Time passed: renew the hold, look at the shards again, or give up."""
        if self.done:
            return []
        if now_ms - self._began_ms >= self.pace.timeout_ms:
            return self._abandon(
                "timeout", f"{self.state.value} after {now_ms - self._began_ms} ms", now_ms
            )
        out = self._hold(now_ms)
        if now_ms >= self._poll_at_ms:
            self._poll_at_ms = now_ms + self.pace.poll_ms
            out += self._ask()
        return out

    def held(self, granted: bool | None, now_ms: int) -> list[Instruction]:
        """The clock holder answered `AskHold`."""
        self._hold_asked = False
        if self.done:
            return []
        if granted is None:
            self._renew_at_ms = now_ms + self.pace.poll_ms
            return []
        if not granted:
            return self._abandon(
                "refused", "another cut holds, or a learner was fenced within a batch", now_ms
            )
        if self._held_ms is None:
            self._held_ms = now_ms
            self._poll_at_ms = now_ms
        return self.tick(now_ms)

    def told(self, shard: int, reply: ProgressReply | None, now_ms: int) -> list[Instruction]:
        """A shard answered `AskProgress`."""
        self._progress_asked.discard(shard)
        if self.done or reply is None:
            return []
        fault = self._incarnation_fault(shard, reply.incarnation)
        if fault:
            return self._abandon("incarnation", fault, now_ms)
        if reply.progress is None:
            return self._abandon(
                "not_begun", f"model {self.model!r} has not begun on shard {shard}", now_ms
            )
        self._standing[shard] = reply.progress
        self._raise_highest(reply.progress, now_ms)
        if (
            self.state is State.WAITING
            and self._held_ms is not None
            and self._agreed()
            and not self._marks_asked
        ):
            self._go(State.MARKING)
            self.rounds += 1
            self._vector = {chain: at.end for chain, at in reply.progress.chains.items()}
            return self._hold(now_ms) + self._ask()
        return self._hold(now_ms)

    def marked(
        self, shard: int, cut: str, reply: MarkReply | None, now_ms: int
    ) -> list[Instruction]:
        """A shard answered `Mark` of the round named `cut`."""
        self._marks_asked.discard(shard)
        if self.state is not State.MARKING or cut != self.round_name:
            return [Unmark(shard, cut)] if reply is None or reply.marked else []
        if reply is None:
            return []  # asked again at the next look: a repeated mark answers the same
        fault = self._incarnation_fault(shard, reply.incarnation)
        if fault:
            return self._abandon("incarnation", fault, now_ms)
        if not reply.marked:
            self._raise_highest(reply.progress, now_ms)
            return self._back_to_waiting(now_ms)
        self._marks[shard] = reply.progress
        return self._finish(now_ms) if len(self._marks) == len(self.shards) else []

    def refused(self, detail: str, now_ms: int) -> list[Instruction]:
        """A shard or the clock holder refused a call: it says why, and the same again would be
        refused again."""
        return [] if self.done else self._abandon("refused", detail, now_ms)

    # --- steps
    # ----------------------------------------------------------------------------------------------

    def _hold(self, now_ms: int) -> list[Instruction]:
        if self._hold_asked or now_ms < self._renew_at_ms:
            return []
        self._hold_asked = True
        self._renew_at_ms = now_ms + max(1, self.pace.lease_ms // 3)
        return [AskHold(self.model, self.cut, self.pace.lease_ms, dict(self._highest))]

    def _ask(self) -> list[Instruction]:
        """Look at (or mark) every shard that owes no answer."""
        if self._held_ms is None:
            return []
        if self.state is State.MARKING:
            late = [s for s in self.shards if s not in self._marks and s not in self._marks_asked]
            self._marks_asked.update(late)
            return [Mark(shard, self.round_name, dict(self._vector)) for shard in late]
        idle = [shard for shard in self.shards if shard not in self._progress_asked]
        self._progress_asked.update(idle)
        return [AskShard(shard) for shard in idle]

    def _finish(self, now_ms: int) -> list[Instruction]:
        """All have marked: parts of one cut agree in more than their ends, else something is
        wrong or still moving."""
        first = self._marks[self.shards[0]].chains
        for shard, progress in self._marks.items():
            for chain, at in progress.chains.items():
                if at.barrier != first[chain].barrier:
                    return self._back_to_waiting(now_ms)
                if at != first[chain]:
                    detail = (
                        f"chain {chain!r} at {at.end}: shard {self.shards[0]} has "
                        f"{first[chain]}, {shard} has {at}"
                    )
                    return self._abandon("disagreement", detail, now_ms)
        self._go(State.MARKED)
        self._resume(now_ms)
        marked = Marked(
            self.round_name, dict(self._vector), dict(self._incarnations), dict(self._marks)
        )
        return [marked] if self.keep_hold else [Release(self.model, self.cut), marked]

    def _back_to_waiting(self, now_ms: int) -> list[Instruction]:
        """One stands elsewhere: all unmark, and wait again. Marks still under way unmark when
        they answer."""
        self._go(State.WAITING)
        unmarks: list[Instruction] = [Unmark(shard, self.round_name) for shard in self._marks]
        self._marks, self._standing = {}, {}
        self._poll_at_ms = now_ms + self.pace.poll_ms
        return unmarks + self._hold(now_ms)

    def _abandon(self, reason: str, detail: str, now_ms: int) -> list[Instruction]:
        self._go(State.ABANDONED)
        self._resume(now_ms)
        unmarks: list[Instruction] = [Unmark(shard, self.round_name) for shard in self._marks]
        return [*unmarks, Release(self.model, self.cut), Abandoned(reason, detail)]

    def _go(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"cut {self.cut}: {self.state} -> {state} is no transition")
        self.state = state

    def _resume(self, now_ms: int) -> None:
        if self._held_ms is not None:
            self.hold_ms = now_ms - self._held_ms

    def held_for_ms(self, now_ms: int) -> int:
        """How long starts have been stopped, where the hold was kept."""
        return 0 if self._held_ms is None else now_ms - self._held_ms

    # --- what the shards say
    # --------------------------------------------------------------------------------

    def _agreed(self) -> bool:
        if len(self._standing) < len(self.shards):
            return False
        places = [_place(progress) for progress in self._standing.values()]
        return all(place == places[0] for place in places)

    def _raise_highest(self, progress: Progress, now_ms: int) -> None:
        """A chain's highest end bounds what may still start: it makes the others catch up, and
        nobody go on."""
        for chain, at in progress.chains.items():
            if at.end > self._highest.get(chain, -1):
                self._highest[chain] = at.end
                self._renew_at_ms = now_ms

    def _incarnation_fault(self, shard: int, incarnation: int) -> str:
        known = self._incarnations.setdefault(shard, incarnation)
        return "" if known == incarnation else f"shard {shard} was {known} and is {incarnation}"


def _place(progress: Progress) -> Mapping[str, tuple[int, int]]:
    return {chain: (at.end, at.barrier) for chain, at in progress.chains.items()}
