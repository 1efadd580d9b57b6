"""Processes that are to be started again while the run goes on, one after the other (pure)."""

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum


class RenewalState(Enum):
    """What a process does."""

    RUNS = "runs"
    STARTS = "starts"
    GOES = "goes"  # it is not wanted any more


class Renewals:
    """Each process is told to end once the one before it runs again, however long that takes: of
    the replicas one answers all the time, and a configuration that cannot be run ends one process
    and not all."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._told = False  # the first of them was told to end

    def __len__(self) -> int:
        return len(self._waiting)

    def order(self, names: Iterable[str]) -> None:
        """These too. The one whose turn it is, again: it may have started before."""
        later = list(self._waiting)[1 if self._told else 0 :]
        self._waiting.extend(name for name in names if name not in later)

    def look(self, state: Callable[[str], RenewalState]) -> str | None:
        """Who is to be told to end now."""
        while self._waiting:
            now = state(self._waiting[0])
            if now is RenewalState.GOES or (self._told and now is RenewalState.RUNS):
                self._waiting.popleft()
                self._told = False
            elif self._told:
                return None
            else:
                self._told = True
                return self._waiting[0]
        return None
