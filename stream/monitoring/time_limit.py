"""A limit of waiting that grows with what else the machine does (shell)."""

import os
import time
from collections.abc import Callable

#: A machine busier than this has stopped rather than slowed.
BUSY_MAX = 16.0


def processes_per_core() -> float:
    """How many processes want each core of this machine, over the last minute; 1 where there is a
    core for each, and BUSY_MAX at most."""
    return min(BUSY_MAX, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


class TimeLimit:
    """`seconds` of a machine that has a core for each of its processes: of the time that passes, a
    wait counts the share that one process gets."""

    def __init__(
        self,
        seconds: float,
        busy: Callable[[], float] = processes_per_core,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left_s, self._busy, self._now_s = seconds, busy, now_s
        self._looked_s = now_s()

    @property
    def left_s(self) -> float:
        """What is left, on a machine as busy as this one is now; 0 once it is over."""
        now_s, busy = self._now_s(), self._busy()
        self._left_s -= (now_s - self._looked_s) / busy
        self._looked_s = now_s
        return max(0.0, self._left_s * busy)

    @property
    def over(self) -> bool:
        return not self.left_s
