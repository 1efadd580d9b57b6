"""Pauses between attempts at something that fails: they double up to a limit, and are spread so
that many who failed together do not come back together."""

from dataclasses import dataclass


@dataclass
class Backoff:
    """Of one thing that is tried again and again. `failed` says how long to wait; `worked`
    begins anew."""

    first_ms: int
    max_ms: int
    #: attempts that failed since the last that did not
    failures: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.first_ms <= self.max_ms:
            raise ValueError(
                f"backoff first_ms = {self.first_ms}, max_ms = {self.max_ms}: expected 1 <= first "
                f"<= max"
            )

    def failed(self, chance: float) -> int:
        """The pause before the next attempt, ms. `chance`, drawn from [0, 1), spreads it over
        its upper half."""
        pause_ms = min(self.max_ms, self.first_ms << min(self.failures, 32))
        self.failures += 1
        return max(1, int(pause_ms * (1 + chance) / 2))

    def worked(self) -> None:
        self.failures = 0
