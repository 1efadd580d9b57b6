"""A rest after each look at a log, by what the look cost (pure)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LookRest:
    """Where a broker is far or slow, a thread must not spend its time on looks alone: after one,
    the next is `times` later than it took, and `max_s` at most. `elapsed_s`: seconds since any
    moment, by a clock that nobody sets; one that stands still makes looks cost nothing."""

    def __init__(self, times: float, max_s: float, elapsed_s: Callable[[], float]) -> None:
        self._times, self._max_s, self._elapsed_s = times, max_s, elapsed_s
        self._until_s = float("-inf")

    @property
    def over(self) -> bool:
        return self._elapsed_s() >= self._until_s

    @contextmanager
    def look(self) -> Iterator[None]:
        """One look. One that raises is followed by no rest: its caller tries again as it does
        after any failure."""
        began_s = self._elapsed_s()
        yield
        ended_s = self._elapsed_s()
        self._until_s = ended_s + min(self._max_s, self._times * (ended_s - began_s))
