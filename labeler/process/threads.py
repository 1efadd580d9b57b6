"""The threads of a labelling process, which end together, and the loop that drives one
`Labelling` (shell)."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from stream import IdleWait, Loop
from stream.internal_topics import BatchHeader

logger = logging.getLogger(__name__)

#: How long to wait for an acknowledgement at least before looking for new records again.
IN_FLIGHT_MS = 5
#: Where nothing comes, a loop waits up to so many times as long as it does at first.
IDLE_MAX = 4

Work = Callable[[threading.Event], None]


class ThreadGroup:
    """Threads beside the main one. What one of them raises ends the process: the next one reads
    back what the log holds."""

    def __init__(self, works: Mapping[str, Work], drain_ms: int):
        """`works`: by the thread's name; each ends soon after its event is set."""
        self._ending, self._drain_ms = threading.Event(), drain_ms
        self._threads = [
            threading.Thread(target=self._guard, args=(name, work), name=name, daemon=True)
            for name, work in works.items()
        ]
        self._failure: BaseException | None = None

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop all, and wait at most `drain_ms` for each."""
        self._ending.set()
        for thread in self._threads:
            thread.join(self._drain_ms / 1000)

    def reraise(self) -> None:
        """Raise what ended a thread, if anything did."""
        if self._failure is not None:
            raise self._failure

    def _guard(self, name: str, work: Work) -> None:
        try:
            work(self._ending)
        except BaseException as error:
            logger.exception("%s failed", name)
            self._failure = error


class Turns:
    """When the next turn begins: not sooner after the last one began than `every_ms`, or than an
    acknowledgement that is waited for. Where records come few at a time, each look at them costs
    more than they do; and where they come in masses, a turn takes longer than this."""

    def __init__(self, every_ms: int, elapsed_s: Callable[[], float] = time.monotonic):
        self._every_s, self._elapsed_s = every_ms / 1000, elapsed_s
        self._began_s = float("-inf")

    def begin(self) -> None:
        self._began_s = self._elapsed_s()

    @property
    def rest_s(self) -> float:
        """How long to wait before the next."""
        return max(0.0, self._began_s + self._every_s - self._elapsed_s())

    def wait_ms(self, moved: bool) -> int:
        """How long to wait for what is on its way, if the turn `moved` anything or did not."""
        return max(0 if moved else IN_FLIGHT_MS, int(self.rest_s * 1_000))


class LabellingStep(Protocol):
    """What a loop turns: a `labelling.Labelling`, or a `retracting.Retracting`."""

    def own(self, partitions: Iterable[int]) -> None: ...

    def run_once(self, now_ms: int, wait_ms: int) -> bool: ...

    @property
    def in_flight(self) -> bool: ...

    def wait(self, timeout_ms: int) -> None: ...

    def take_acknowledged(self) -> list[BatchHeader]: ...


class LabellingLoop:
    """Turns one `Labelling` again and again, and waits where there is nothing to do."""

    def __init__(
        self,
        labelling: LabellingStep,
        owned: Callable[[], Iterable[int]],
        now: Callable[[], int],
        poll_ms: int,
        watched: Loop,
    ):
        """`watched` is told of each turn."""
        self._labelling, self._owned, self._now, self._poll_ms = labelling, owned, now, poll_ms
        self._watched = watched

    def run(
        self,
        ending: threading.Event,
        heard: Callable[[list[BatchHeader]], None],
        failed: Callable[[], bool],
    ) -> None:
        """Until `ending`, or something `failed`. After each turn `heard` is given the batches
        that reached the log."""
        labelling, wait_ms, turns = self._labelling, 0, Turns(self._poll_ms)
        idle = IdleWait(self._poll_ms, IDLE_MAX * self._poll_ms)
        while not ending.is_set() and not failed():
            turns.begin()
            self._watched.turn()
            now_ms = self._now()
            labelling.own(self._owned())
            moved = labelling.run_once(now_ms, wait_ms)
            idle.turned(moved or labelling.in_flight)
            wait_ms = idle.wait_ms if idle.idle else 0
            if labelling.in_flight:
                labelling.wait(turns.wait_ms(moved))
            else:  # also where it neither read nor waited: what it holds waits for others
                ending.wait(turns.rest_s)
            heard(labelling.take_acknowledged())
        self._watched.rest()
