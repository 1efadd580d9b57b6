"""How long to wait: after what failed, and for the next record."""

from dataclasses import dataclass


@dataclass
class Backoff:
    """Between attempts at one thing that fails: doubled up to a limit, and spread so that many who
    failed together do not come back together. `failed` says how long to wait; `worked`
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


@dataclass
class IdleWait:
    """Of one loop that reads again and again: the longer, the longer no record came. Whoever waits
    at a log is woken by a record; the limit bounds what is due by time alone."""

    first_ms: int
    max_ms: int
    #: turns in a row in which nothing moved
    idle: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.first_ms <= self.max_ms:
            raise ValueError(
                f"idle wait first_ms = {self.first_ms}, max_ms = {self.max_ms}: expected 1 <= "
                f"first <= max"
            )

    @property
    def wait_ms(self) -> int:
        """For the next turn, ms."""
        return min(self.max_ms, self.first_ms << min(self.idle, 32))

    def turned(self, moved: bool) -> None:
        """A turn is over, and something `moved` in it or did not."""
        self.idle = 0 if moved else self.idle + 1
