"""When a process that ended is started again: at once, later, or much later. Never not at all
(pure)."""

from collections import deque
from dataclasses import dataclass, field

MINUTE_MS = 60_000
#: The wait after a first end that nobody brought about; doubled with each further one.
WAIT_FIRST_MS = 500
#: So many ends in a row, each within a minute of its start, and a process *keeps ending*.
ENDS_TO_KEEP_ENDING = 3
#: The same, whoever ended it: somebody, or the system for want of memory, kills it again and again.
KILLS_TO_KEEP_ENDING = 5


@dataclass
class Restarts:
    """One process's history of starts and ends. `limit` restarts within a minute are free of the
    longest wait."""

    limit: int
    wait_max_ms: int
    starts_ms: deque[int] = field(default_factory=deque)  # within the last minute
    ends: int = 0  # in a row, each within a minute of its start
    own_ends: int = 0  # of these in a row, those that were no kill -9
    since_ms: int = 0  # the first of them

    def on_start(self, now_ms: int) -> None:
        self._forget(now_ms)
        self.starts_ms.append(now_ms)

    def on_end(self, now_ms: int, killed: bool) -> int:
        """How long to wait before the next start, ms. `killed`: by SIGKILL, from outside."""
        if not self.ends or now_ms - (self.starts_ms[-1] if self.starts_ms else 0) >= MINUTE_MS:
            self.ends = self.own_ends = 0
            self.since_ms = now_ms
        self.ends += 1
        self.own_ends = 0 if killed else self.own_ends + 1
        self._forget(now_ms)
        if len(self.starts_ms) > self.limit:
            return self.wait_max_ms
        if killed:
            return 0
        return min(self.wait_max_ms, WAIT_FIRST_MS << min(self.own_ends - 1, 20))

    def keeps_ending(self, now_ms: int) -> bool:
        """Whether this is more than a crash: it does not come up, or not for a minute."""
        self._forget(now_ms)
        lives = bool(self.starts_ms) and now_ms - self.starts_ms[-1] >= MINUTE_MS
        often = self.own_ends >= ENDS_TO_KEEP_ENDING or self.ends >= KILLS_TO_KEEP_ENDING
        return not lives and (often or len(self.starts_ms) > self.limit)

    def settle(self, now_ms: int, started_ms: int) -> None:
        """Told of a process that runs: a minute of life ends a row of ends."""
        if self.ends and now_ms - started_ms >= MINUTE_MS:
            self.ends = self.own_ends = 0

    def _forget(self, now_ms: int) -> None:
        while self.starts_ms and now_ms - self.starts_ms[0] > MINUTE_MS:
            self.starts_ms.popleft()
        while len(self.starts_ms) > self.limit + 2:
            self.starts_ms.popleft()
