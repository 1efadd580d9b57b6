"""What tells the loop of the present thread that it gets on (shell): whoever reads a log or asks a
store does not know which loop it does so for."""

import contextlib
import threading
from collections.abc import Iterator

from stream.monitoring.liveness import Loop

_present = threading.local()


class ThreadLoop(Loop):
    """A loop that what it calls can find."""

    def turn(self) -> None:
        _present.loop = self
        super().turn()


def got_on() -> None:
    """A part of a turn is done, such as records that were read: a fold of a long chain is many of
    them, and no hang."""
    loop: Loop | None = getattr(_present, "loop", None)
    if loop is not None and loop.is_turning:
        loop.turn()


@contextlib.contextmanager
def bounded_wait() -> Iterator[None]:
    """What is waited for within has a deadline of its own: it is no part of a turn."""
    loop: Loop | None = getattr(_present, "loop", None)
    if loop is None or not loop.is_turning:
        yield
        return
    loop.rest()
    try:
        yield
    finally:
        loop.turn()
