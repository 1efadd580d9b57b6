"""How long a fetch may wait at the broker for a first record (pure)."""

#: Shortest and longest, ms. A record ends the wait; what it holds up is a partition that is sought
#: or resumed meanwhile, which the next fetch is the first to ask for.
FETCH_WAIT_MS, FETCH_WAIT_MAX_MS = 100, 500
#: The wait is so many times shorter than the time since a reader's partitions last moved.
QUIET_PER_WAIT = 4


class FetchWait:
    """Of one reader: short while it moves, long where nothing comes, since each fetch that comes
    back empty costs both sides."""

    def __init__(self, now_s: float) -> None:
        self._moved_s = now_s

    def moved(self, now_s: float) -> None:
        """Records came, or a partition was assigned, sought, paused or resumed."""
        self._moved_s = now_s

    def wait_ms(self, now_s: float) -> int:
        quiet_ms = 1_000 * (now_s - self._moved_s)
        return int(min(FETCH_WAIT_MAX_MS, max(FETCH_WAIT_MS, quiet_ms / QUIET_PER_WAIT)))
