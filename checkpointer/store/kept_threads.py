"""Threads that are kept for the next call (shell): starting one costs more than most calls to a
store on this machine."""

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

#: A thread without work ends after so long.
IDLE_S = 10.0

#: What to do, and what to say once the thread is free again; neither raises.
Job = tuple[Callable[[], None], Callable[[], None]]


class KeptThread:
    """One thread, and its next job."""

    def __init__(self, kept: "KeptThreads", name: str) -> None:
        self.jobs: SimpleQueue[Job] = SimpleQueue()
        self._kept = kept
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        while True:
            try:
                work, done = self.jobs.get(timeout=IDLE_S)
            except Empty:
                if self._kept.leave(self):
                    return
                continue  # it was taken meanwhile: its job comes
            work()
            self._kept.keep(self)
            done()
            del work, done  # what they hold is not kept with the thread


class KeptThreads:
    """May be shared by threads, and is free of locks that a fork could leave closed. How many
    there are at once is for the caller to bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: deque[KeptThread] = deque()

    def __len__(self) -> int:
        """How many wait for work."""
        return len(self._idle)

    def run(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Do `work` on another thread, then `done`. Raises RuntimeError where none can be
        started."""
        try:
            one = self._idle.pop()
            while not one.thread.is_alive():  # as in the child of a fork
                one = self._idle.pop()
        except IndexError:
            one = KeptThread(self, self._name)
            one.thread.start()
        one.jobs.put((work, done))

    def keep(self, one: KeptThread) -> None:
        self._idle.append(one)

    def leave(self, one: KeptThread) -> bool:
        """Whether it may end: nobody has taken it."""
        try:
            self._idle.remove(one)
        except ValueError:
            return False
        return True
