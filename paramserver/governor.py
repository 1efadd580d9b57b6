"""The governor's judgement, as a pure core: what staleness costs, and whether to train slower or faster for it.

What it costs is measured in pairs: batches as they were learned live, and the same batches, in the same order, learned
in sequence from a copy of the same state (`learners.shadow`). So data, order and starting point are the same on both
sides, and what is left is the staleness.

It stands on a ladder of rungs, loosest first: lower bounds s down to 0, then fewer batches under way at once, which is
what parking learners comes to. It goes down when the cost is beyond the band for certain, and up only when speed is
wanted and the cost is within half the band for certain; never more than DOWN_MAX rungs down or one up for an estimate.
A rung that was left for its cost is not tried again for `patience` estimates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from paramserver.bounds import Rung

#: Rungs that one estimate may go down.
DOWN_MAX = 2
_BOUNDS = (16, 8, 4, 2, 1, 0)


class Estimate(NamedTuple):
    """Log loss above that of the sequence, as a share of it, and the standard error of that share."""

    excess: float
    error: float
    batches: int


class Decision(NamedTuple):
    """`action`: "hold", "slower" or "faster"; `rung`: what is to be in force now; `reason`: for a person."""

    action: str
    rung: Rung
    reason: str


def ladder(bound: int, learners: int) -> tuple[Rung, ...]:
    """From what the operator allows (s = `bound`, -1 = unbounded) down to one batch at a time."""
    if bound < -1 or learners < 1:
        raise ValueError(f"bound {bound}, learners {learners}: allowed are -1, 0, 1, ... and 1, 2, ...")
    rungs = [Rung(bound)] + [Rung(s) for s in _BOUNDS if bound < 0 or s < bound]
    at_once = learners // 2
    while at_once >= 1:
        rungs.append(Rung(0, at_once))
        at_once //= 2
    return tuple(rungs)


def estimate(live: Sequence[float], sequence: Sequence[float]) -> Estimate:
    """Of paired batches' summed log losses. The error is that of a ratio of sums, with batches as the units."""
    n, base = len(live), sum(sequence)
    if n != len(sequence) or n < 2 or base <= 0:
        raise ValueError(f"{n} and {len(sequence)} losses, the sequence's sum {base}: two pairs or more are needed")
    ratio = sum(live) / base
    squares = sum((a - ratio * b) ** 2 for a, b in zip(live, sequence, strict=True))
    return Estimate(ratio - 1.0, math.sqrt(squares * n / (n - 1)) / base, n)


@dataclass
class Governor:
    """`band`: the share of log loss that speed may cost. `certainty`: standard errors that make it certain."""

    rungs: tuple[Rung, ...]
    band: float = 0.005
    certainty: float = 2.0
    patience: int = 8
    at: int = 0
    _left: dict[int, int] = field(default_factory=dict)  # rung that was left for its cost -> estimates to wait

    def decide(self, found: Estimate, speed_wanted: bool) -> Decision:
        """Take one estimate of the present rung. `speed_wanted`: the model's data age grows."""
        self._left = {rung: wait - 1 for rung, wait in self._left.items() if wait > 1}
        low, high = found.excess - self.certainty * found.error, found.excess + self.certainty * found.error
        said = f"{found.excess:+.2%} +- {found.error:.2%} against the sequence over {found.batches} batches"
        if low > self.band:
            return self._slower(low, said)
        if not speed_wanted:
            return Decision("hold", self.rungs[self.at], said)
        if high >= self.band / 2:
            return Decision("hold", self.rungs[self.at], f"{said}: not surely within half the band")
        if self.at == 0 or self.at - 1 in self._left:
            why = "as loose as allowed" if self.at == 0 else "the next rung was left for its cost"
            return Decision("hold", self.rungs[self.at], f"{said}: {why}")
        self.at -= 1
        return Decision("faster", self.rungs[self.at], f"{said}: within half the band {self.band:.2%}, data age grows")

    def _slower(self, low: float, said: str) -> Decision:
        steps = min(DOWN_MAX if low > 2 * self.band else 1, len(self.rungs) - 1 - self.at)
        if steps == 0:
            return Decision("hold", self.rungs[self.at], f"{said}: beyond the band, and as slow as can be")
        self._left |= dict.fromkeys(range(self.at, self.at + steps), self.patience)
        self.at += steps
        return Decision("slower", self.rungs[self.at], f"{said}: beyond the band {self.band:.2%}")
