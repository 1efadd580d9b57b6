"""How a move is made short before it is made: what shards are to hold is read ahead of it, cut by
cut (S6).

A round is a cut, and the shards of the new map read what it gives them, beside what they have. What
is learned meanwhile is for the next round, which is shorter for it; the move is the last one, the
only one with starts stopped.
"""

from dataclasses import dataclass, field

from paramserver import SlotMap

#: Rounds before a move, at most; a round as short as this is the last; so is one that is hardly
#: shorter than the one before it: as much is learned in a round as is read.
ROUNDS_MAX = 4
ENOUGH_MS = 300
SHRINKS = 0.8


@dataclass
class Preparation:
    """Of a move to this map. Times are of a clock that nobody sets."""

    slot_map: SlotMap
    rounds: int = field(default=0, init=False)
    _began_ms: int = field(default=0, init=False)
    _before_ms: int = field(default=1 << 62, init=False)  # how long the round before took

    def cut(self, now_ms: int) -> None:
        """A round begins: a cut is taken, and read by those of the map."""
        self.rounds += 1
        self._began_ms = now_ms

    def enough(self, now_ms: int) -> bool:
        """Those of the map hold this round's cut: whether the move is next, or another round."""
        took_ms, before_ms = self.lasts_ms(now_ms), self._before_ms
        self._before_ms = took_ms
        return self.rounds >= ROUNDS_MAX or took_ms <= ENOUGH_MS or took_ms > SHRINKS * before_ms

    def lasts_ms(self, now_ms: int) -> int:
        """How long this round has lasted."""
        return now_ms - self._began_ms
