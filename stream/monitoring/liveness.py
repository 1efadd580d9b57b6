"""Which loops of a process turn, and which hang (pure).

A loop says so at each turn. One that began a turn and has not ended it within its limit hangs:
`/live` says which one, and whoever runs the process ends it. To wait for a broker or a store is no
hang: such a wait has a deadline of its own, and behind it stands the next turn.
"""

from collections.abc import Callable

#: Longest turn, s, unless the configuration says otherwise (`run.turn_max_s`).
TURN_MAX_S = 300.0


class Loop:
    """One loop of a process. Belongs to the thread that turns it; any thread may look."""

    def __init__(self, elapsed_s: Callable[[], float]) -> None:
        self._elapsed_s = elapsed_s
        self._began_s: float | None = None

    def turn(self) -> None:
        """A turn begins, or got on: what it does next may take a turn's time again."""
        self._began_s = self._elapsed_s()

    def rest(self) -> None:
        """Nothing is to be done until somebody gives it work, however long that takes; or it has
        ended."""
        self._began_s = None

    @property
    def is_turning(self) -> bool:
        return self._began_s is not None

    @property
    def silent_s(self) -> float:
        """Since it last said anything; 0 where it rests."""
        began_s = self._began_s
        return 0.0 if began_s is None else max(0.0, self._elapsed_s() - began_s)


class Liveness:
    """The loops of one process, by name."""

    def __init__(self, elapsed_s: Callable[[], float], turn_max_s: float = TURN_MAX_S) -> None:
        """`elapsed_s`: a clock that nobody sets. `turn_max_s`: 0 = no loop ever counts as
        hanging."""
        self._elapsed_s, self.turn_max_s = elapsed_s, turn_max_s
        self.loops: dict[str, Loop] = {}

    def loop(self, name: str) -> Loop:
        """A loop that rests until its first turn."""
        loop = self.loops[name] = self._make()
        return loop

    def _make(self) -> Loop:
        return Loop(self._elapsed_s)

    @property
    def hang(self) -> str:
        """Which loop hangs, in words; "" = none does."""
        most_s = self.turn_max_s
        for name, loop in list(self.loops.items()):
            silent_s = loop.silent_s
            if most_s and silent_s > most_s:
                return f"loop {name} has not turned for {silent_s:.0f} s (limit {most_s:g})"
        return ""
