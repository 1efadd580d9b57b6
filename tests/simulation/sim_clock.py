"""Virtual time: a queue of actions, run in order of (time, insertion). Nothing here or above it
sleeps."""

import heapq
from collections import deque
from collections.abc import Callable

Action = Callable[[], None]

#: The virtual epoch, in ms: far from zero, so that a stamp in seconds or a forgotten clock stands
#: out.
EPOCH_MS = 1_700_000_000_000


class VirtualTime:
    """The one clock of a simulated world, in milliseconds, and everything that is still to
    happen in it."""

    def __init__(self, start_ms: int = EPOCH_MS) -> None:
        self.now_ms = start_ms
        self.steps = 0
        self._queue: list[tuple[int, int, Action]] = []
        self._serial = 0

    def after(self, delay_ms: float, action: Action) -> None:
        delay_ms = int(delay_ms)
        self._serial += 1
        at_ms = self.now_ms + delay_ms if delay_ms > 0 else self.now_ms
        heapq.heappush(self._queue, (at_ms, self._serial, action))

    def at(self, at_ms: int, action: Action) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (max(at_ms, self.now_ms), self._serial, action))

    def step(self) -> bool:
        """Run the next action. False when there is none left."""
        if not self._queue:
            return False
        self.now_ms, _, action = heapq.heappop(self._queue)
        self.steps += 1
        action()
        return True

    def clear(self) -> None:
        """Nothing more is to happen."""
        self._queue.clear()

    def run_until(self, until_ms: int) -> None:
        queue = self._queue
        while queue and queue[0][0] <= until_ms:
            self.step()
        self.now_ms = max(self.now_ms, until_ms)


class Trace:
    """What happened, for a person to read: the last lines always, all of them when `loud`."""

    def __init__(self, time: VirtualTime, loud: bool = False, keep: int = 60) -> None:
        self.time, self.loud = time, loud
        self.last: deque[tuple[int, str, str]] = deque(maxlen=keep)

    def __call__(self, who: str, what: str) -> None:
        entry = (self.time.now_ms - EPOCH_MS, who, what)
        self.last.append(entry)
        if self.loud:
            print(self.line(entry))

    @staticmethod
    def line(entry: tuple[int, str, str]) -> str:
        return f"{entry[0] / 1000:9.3f}s  {entry[1]:<14} {entry[2]}"
