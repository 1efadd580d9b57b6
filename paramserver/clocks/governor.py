"""The governor's judgement, as a pure core: what staleness costs, and whether to train slower or
faster for it.

What it costs is measured in pairs: batches as they were learned live, and the same batches, in the
same order, learned in sequence from a copy of the same state (`learners.governor.shadow`). So data,
order and starting point are the same on both sides, and what is left is the staleness.

It stands on a list of levels of levels, loosest first: lower bounds s down to 0, then fewer batches
under way at once, which is what parking learners comes to. It goes down when the cost is beyond the
band for certain, and up only when speed is wanted and the cost is within half the band for certain;
never more than DOWN_MAX levels down or one up for an estimate. A level that was left for its cost
is not tried again for `patience` estimates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from paramserver.bounds import PaceLevel

#: Levels that one estimate may go down.
DOWN_MAX = 2
_BOUNDS = (16, 8, 4, 2, 1, 0)


class Estimate(NamedTuple):
    """Log loss above that of the sequence, as a share of it, and the standard error of that
    share."""

    excess: float
    error: float
    batches: int


class Decision(NamedTuple):
    """`action`: "hold", "slower" or "faster"; `level`: what is to be in force now; `why`: one of
    `WHY`; `reason`: for a person, with the numbers."""

    action: str
    level: PaceLevel
    reason: str
    why: str = ""


#: Why a decision was taken: for a metric, which must not have numbers in its labels.
WHY = (
    "within the band",
    "beyond the band",
    "as slow as can be",
    "not surely within half the band",
    "as loose as allowed",
    "the next rung was left for its cost",
    "data age grows",
)
(WITHIN, BEYOND, SLOWEST, UNSURE, LOOSEST, LEFT, GROWS) = WHY


def pace_levels(bound: int, learners: int, concurrency: int = 0) -> tuple[PaceLevel, ...]:
    """From what the operator allows (s = `bound`, -1 = unbounded; `concurrency`, 0 = no limit) down
    to one batch at a time."""
    if bound < -1 or learners < 1 or concurrency < 0:
        raise ValueError(
            f"bound {bound}, learners {learners}, concurrency {concurrency}: allowed are -1, 1 "
            f"and 0 on"
        )
    allowed = PaceLevel(bound, concurrency)
    levels = [allowed] + [PaceLevel(s, concurrency) for s in _BOUNDS if bound < 0 or s < bound]
    at_once = learners // 2
    while at_once >= 1:
        if not concurrency or at_once < concurrency:
            levels.append(PaceLevel(0, at_once))
        at_once //= 2
    return tuple(levels)


def estimate(live: Sequence[float], sequence: Sequence[float]) -> Estimate:
    """Of paired batches' summed log losses. The error is that of a ratio of sums, with batches
    as the units."""
    n, base = len(live), sum(sequence)
    if n != len(sequence) or n < 2 or base <= 0:
        raise ValueError(
            f"{n} and {len(sequence)} losses, the sequence's sum {base}: two pairs or more are "
            f"needed"
        )
    ratio = sum(live) / base
    squares = sum((a - ratio * b) ** 2 for a, b in zip(live, sequence, strict=True))
    return Estimate(ratio - 1.0, math.sqrt(squares * n / (n - 1)) / base, n)


@dataclass
class Governor:
    """`band`: the share of log loss that speed may cost. `certainty`: standard errors that make
    it certain."""

    levels: tuple[PaceLevel, ...]
    band: float = 0.005
    certainty: float = 2.0
    patience: int = 8
    at: int = 0
    _left: dict[PaceLevel, int] = field(
        default_factory=dict
    )  # level that was left for its cost -> estimates to wait

    @property
    def level(self) -> PaceLevel:
        return self.levels[self.at]

    def stand_on(self, levels: tuple[PaceLevel, ...]) -> None:
        """Another list of levels, since the operator allows something else or learners came or
        went. It stays at the loosest level that is no looser than its present one; at the top it
        stays at the top."""
        if levels == self.levels:
            return
        present = self.level
        if self.at:
            self.at = next(
                (n for n, r in enumerate(levels) if r.tightened(present) == r), len(levels) - 1
            )
        self.levels = levels

    def decide(self, found: Estimate, speed_wanted: bool) -> Decision:
        """Take one estimate of the present level. `speed_wanted`: the model's data age grows."""
        self._left = {level: wait - 1 for level, wait in self._left.items() if wait > 1}
        low, high = (
            found.excess - self.certainty * found.error,
            found.excess + self.certainty * found.error,
        )
        said = (
            f"{found.excess:+.2%} +- {found.error:.2%} against the sequence over "
            f"{found.batches} batches"
        )
        if low > self.band:
            return self._slower(low, said)
        if not speed_wanted:
            return self._decided("hold", said, WITHIN)
        if high >= self.band / 2:
            return self._decided("hold", said, UNSURE)
        if self.at == 0 or self.levels[self.at - 1] in self._left:
            return self._decided("hold", said, LOOSEST if self.at == 0 else LEFT)
        self.at -= 1
        return self._decided("faster", f"{said}: within half the band {self.band:.2%}", GROWS)

    def _slower(self, low: float, said: str) -> Decision:
        said = f"{said}: beyond the band {self.band:.2%}"
        steps = min(DOWN_MAX if low > 2 * self.band else 1, len(self.levels) - 1 - self.at)
        if steps == 0:
            return self._decided("hold", said, SLOWEST)
        self._left |= dict.fromkeys(self.levels[self.at : self.at + steps], self.patience)
        self.at += steps
        return self._decided("slower", said, BEYOND)

    def _decided(self, action: str, said: str, why: str) -> Decision:
        return Decision(action, self.level, said if why == BEYOND else f"{said}: {why}", why)
