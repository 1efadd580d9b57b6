"""A wait by a clock that may be set back."""


class Wait:
    """Over `for_ms` after it began, and as soon as the clock stands before its beginning: a clock
    that was ahead and is set right must not prolong what it began."""

    def __init__(self) -> None:
        self._began_ms = self._for_ms = 0

    def begin(self, now_ms: int, for_ms: int) -> None:
        self._began_ms, self._for_ms = now_ms, for_ms

    def over(self, now_ms: int) -> bool:
        """Whether it is over; one that never began is."""
        return not 0 <= now_ms - self._began_ms < self._for_ms
