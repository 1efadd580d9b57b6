"""How long to wait before asking again for a start that the staleness bound holds back (K2, K4).

Asking costs both sides, and how long the others take is much the same from batch to batch. So a
learner keeps in mind how long it waited lately, asks again after half of what is left of that, and
beyond it now and then. It asks a few times where every few milliseconds would be dozens, and is
late by little. If waits become shorter, it is too late once or twice: the first ask comes after
half the wait expected, so what it expects falls by a quarter at each start.
"""

from dataclasses import dataclass

#: Beyond what was expected, a pause is this part of what it has waited already.
BEYOND = 8
#: An operator may lower what holds it back at any time.
PAUSE_MS_MAX = 250


@dataclass
class StartBackoff:
    """Of one learner. `pause_ms_min`: between two asks at least."""

    pause_ms_min: int
    expected_ms: float = 0.0
    _since_ms: int | None = None

    def held_back(self, now_ms: int) -> int:
        """Told to wait: ask again after so many ms."""
        if self._since_ms is None:
            self._since_ms = now_ms
        waited = now_ms - self._since_ms
        left = self.expected_ms - waited
        pause = left / 2 if left > 0 else waited / BEYOND
        return int(min(max(pause, self.pause_ms_min), max(PAUSE_MS_MAX, self.pause_ms_min)))

    def admitted(self, now_ms: int) -> None:
        """A start that did not have to wait counts as a wait of nothing."""
        waited = 0 if self._since_ms is None else now_ms - self._since_ms
        self.expected_ms += (waited - self.expected_ms) / 2
        self._since_ms = None

    def forget(self) -> None:
        """What it waited for is no more: another epoch, or another reason to wait."""
        self._since_ms = None
