"""How long to wait for the next record: the longer, the longer none came."""

from dataclasses import dataclass


@dataclass
class IdleWait:
    """Of one loop that reads again and again. Whoever waits at a log is woken by a record; the
    limit bounds what is due by time alone."""

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
