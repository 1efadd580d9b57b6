"""A part that blocks, run a step at a time: on a thread of its own, but never at the same time as
the world.

The baton passes: the world resumes a task, the task runs until it waits for something, and only
then does the world go on. So code that is written to block (the checkpointer's driver) is as
deterministic here as everything else.
"""

import threading
from collections.abc import Callable
from typing import Any

Resume = Callable[[Any], None]


class Killed(BaseException):
    """The process of this task is dead."""


class Task:
    """`work` on its own thread. `wait` is called from within it; `start` and `kill` from the
    world."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._mine, self._worlds = (
            threading.Lock(),
            threading.Lock(),
        )  # taken by whoever waits for the baton
        self._mine.acquire()
        self._worlds.acquire()
        self._answer: Any = None
        self._killed = self._ended = False
        self._error: BaseException | None = None

    def start(self) -> None:
        """Run up to the first wait."""
        self._thread.start()
        self._switch()

    def kill(self) -> None:
        """End it where it waits."""
        self._killed = True
        if not self._ended:
            self._switch()
            self._thread.join()

    def wait(self, arrange: Callable[[Resume], None]) -> Any:
        """Let `arrange` see to it that its argument is called later, by the world, and return
        what that is given."""
        if self._killed:
            raise Killed
        arrange(self._resume)
        self._worlds.release()
        self._mine.acquire()
        if self._killed:
            raise Killed
        return self._answer

    def _resume(self, answer: Any) -> None:
        if not self._killed and not self._ended:
            self._answer = answer
            self._switch()

    def _switch(self) -> None:
        self._mine.release()
        self._worlds.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _main(self) -> None:
        self._mine.acquire()
        try:
            if not self._killed:
                self._work()
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._ended = True
            self._worlds.release()
