"""The governor's conduct, as a pure core: when it compares, what it may spend, what it says to the
clock holder.

A comparison begins from a complete cut and takes the batches that follow it. It says something of
the level in force only if that level was in force for all of them, so:

- after every change of what is in force, by this governor, an operator, or a lease that ran out,
  only a cut counts that stopped starts after it, which the clock holder tells by name;
- a comparison under way is given up at such a change, and when a batch is scored a second time: a
  shard went back.

What is spent, in rows, is at most `share_max` of the rows learned live since this governor began,
and one comparison more. At the loosest level nothing is set, and no lease is held.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from learners.governor.checkpoint_source import CompleteCut
from learners.governor.window import ComparisonWindow, Scored
from learners.governor_config import GovernorConfig
from paramserver import Bounds, PaceLevel
from paramserver.clocks import SLOWEST, Decision, Estimate, Governor, estimate, pace_levels

#: Scored batches remembered: for a comparison that begins later than its first batches, and to see
#: repeats.
SCORED_MAX = 4_096
#: A backlog that shrinks to less than this share of what it was is not growing.
SHRINKS = 0.9


class LeaseRequest(NamedTuple):
    """What is to be said to the clock holder. `lease_ms` = 0: the lease is given back."""

    sequence: int
    level: PaceLevel
    lease_ms: int


class Governing:
    """One governor of one model. `name` names it among others of its model, and is kept over its
    restarts."""

    def __init__(self, config: GovernorConfig, name: str) -> None:
        self.config, self.name = config, name
        self.governor: Governor | None = (
            None  # None until the clock holder has answered, and a learner has joined
        )
        self.bounds: Bounds | None = None  # as answered last
        self.window: ComparisonWindow | None = None
        self.began_ms = 0  # of the window
        self.estimate: Estimate | None = None
        self.decision: Decision | None = None
        self.backlog: int | None = None  # records of examples that waited at the last estimate
        self.rows_spent, self.rows_live = 0, 0
        self.counts: Counter[str] = Counter()  # windows by what became of them, leases lost
        self.decided: Counter[tuple[str, str]] = Counter()  # decisions by action and why
        self._newest: CompleteCut | None = None
        self._first_rows = 0  # learned live when this governor began
        self._cut_min = 0  # the number of the next cut that may be compared from ...
        self._cut_over = ""  # ... if it is not the one of this name
        self._heard: OrderedDict[tuple[str, int], Scored] = OrderedDict()
        self._sequence, self._said_ms, self._holds = 0, 0, False

    # --- the clock holder
    # -----------------------------------------------------------------------------------

    def bounded(self, bounds: Bounds) -> None:
        """What the clock holder answers."""
        before, self.bounds = self.bounds, bounds
        self._sequence = max(self._sequence, bounds.sequence)
        if before is not None and before.in_force != bounds.in_force:
            self.drop("changed")
            self._skip(bounds.cut)
        if self._holds and bounds.governor != self.name:
            self._holds = False
            self.counts["leases lost"] += 1
        if self.governor is not None:
            if before is None or before.ordered != bounds.ordered:
                self._stand()
        elif bounds.learners:
            self._begin(bounds)

    def _begin(self, bounds: Bounds) -> None:
        """Go on at the level of an earlier life whose lease has not run out, else begin as
        configured."""
        config, levels = (
            self.config,
            pace_levels(bounds.ordered.staleness, bounds.learners, bounds.ordered.concurrency),
        )
        self.governor = Governor(levels, config.band, config.certainty, config.patience)
        if bounds.governor == self.name and bounds.governed is not None:
            governed = bounds.governed
            self.governor.at = next(
                (n for n, r in enumerate(levels) if r.tightened(governed) == r), len(levels) - 1
            )
        elif config.begin == "slowest":
            self.governor.at = len(levels) - 1

    def _stand(self) -> None:
        """On the list of levels of what the operator allows and of the learners that there are."""
        bounds, governor = self.bounds, self.governor
        if bounds is not None and governor is not None and bounds.learners:
            governor.stand_on(
                pace_levels(bounds.ordered.staleness, bounds.learners, bounds.ordered.concurrency)
            )

    def lease_request(self, now_ms: int) -> LeaseRequest | None:
        """What is to be said now, if anything: a new level, the same one again before its lease
        runs out, or that it is given back."""
        bounds, governor = self.bounds, self.governor
        if bounds is None or governor is None or bounds.governor not in ("", self.name):
            return None
        if governor.at == 0:
            return self._say(governor.level, 0, now_ms) if bounds.governor == self.name else None
        due = (
            not self._holds
            or bounds.governed != governor.level
            or now_ms >= self._said_ms + self.config.lease_ms // 3
        )
        return self._say(governor.level, self.config.lease_ms, now_ms) if due else None

    def _say(self, level: PaceLevel, lease_ms: int, now_ms: int) -> LeaseRequest:
        self._sequence += 1
        self._said_ms = now_ms
        return LeaseRequest(self._sequence, level, lease_ms)

    def answered(self, lease_request: LeaseRequest, bounds: Bounds) -> None:
        """The answer to a word."""
        self._holds = bounds.governor == self.name and lease_request.lease_ms > 0
        self.bounded(bounds)

    def farewell(self, now_ms: int) -> LeaseRequest | None:
        """What is said at the end of an orderly life: nothing is left behind."""
        return (
            self._say(self.governor.level, 0, now_ms)
            if self.governor is not None and self._holds
            else None
        )

    # --- comparisons
    # ----------------------------------------------------------------------------------------

    def add(self, one: Scored) -> None:
        """A batch was scored, in the order of the log."""
        key = (one.chain, one.start)
        if key in self._heard:
            self.drop("disturbed")
            return
        self._heard[key] = one
        if len(self._heard) > SCORED_MAX:
            self._heard.popitem(last=False)
        if self.window is not None:
            self.window.add(one)

    def saw(self, cut: CompleteCut, now_ms: int) -> None:
        """The newest complete cut, as often as it is looked for. A comparison may begin from it."""
        if self._newest is None:
            self._first_rows = cut.rows
            self._cut_min = (
                cut.number + 1
            )  # of what followed this one, something may not have been heard
        self._newest = cut
        self.rows_live = max(0, cut.rows - self._first_rows)
        within = self.rows_spent <= self.config.share_max * self.rows_live
        fresh = cut.number >= self._cut_min and cut.cut != self._cut_over
        if self.window is None and self.governor is not None and fresh and within:
            self.window, self.began_ms = ComparisonWindow(cut, self.config.window_batches), now_ms
            for one in self._heard.values():
                self.window.add(one)
        elif self.window is not None and now_ms > self.began_ms + self.config.window_timeout_ms:
            self.drop("timeout")

    def drop(self, outcome: str) -> None:
        """Give up the comparison under way, if any; the next begins from a newer cut."""
        if self.window is not None:
            self.counts[f"window {outcome}"] += 1
            self.window = None
            self._skip()

    def _skip(self, cut: str = "") -> None:
        """Nothing begins from a cut that was seen, nor from this one, which may be under way."""
        self._cut_over = cut or self._cut_over
        if self._newest is not None:
            self._cut_min = self._newest.number + 1

    def judged(
        self, live: Sequence[float], sequence: Sequence[float], rows: int, backlog: int | None
    ) -> Decision:
        """The comparison is done: paired losses, the rows it trained, and the records of examples
        that wait now (None = not known). Raises ValueError, and decides nothing, if the pairs say
        nothing."""
        assert self.governor is not None
        self.rows_spent += rows
        try:
            found = estimate(live, sequence)
        except ValueError:
            self.drop("says nothing")
            raise
        self.drop("judged")
        self._stand()
        self.estimate = found
        self.decision = self.governor.decide(found, self._speed_wanted(backlog))
        self.backlog = backlog
        self.decided[self.decision.action, self.decision.why] += 1
        return self.decision

    def _speed_wanted(self, backlog: int | None) -> bool:
        """Whether data age grows for want of training: what waits in `examples` is the part of it
        that speed changes. So does a large backlog that does not shrink."""
        if backlog is None or self.backlog is None:
            return False
        return backlog >= self.config.backlog_min and backlog > SHRINKS * self.backlog

    @property
    def at_its_end(self) -> bool:
        """It stands at the slowest level, and quality still suffers: nothing more can be done
        here."""
        return self.decision is not None and self.decision.why == SLOWEST
