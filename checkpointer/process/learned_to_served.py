"""How long what was learned waits to be served: the core behind `served_watch`.

One process sees, on its own clock, what shards have applied and which checkpoint a replica answers
with. A state V, seen applied, is served once a replica answers with a checkpoint at or above V on
every chain. So no two clocks are compared.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

#: States that were seen and are not served yet; beyond it every second one is left out.
SEEN_MAX = 4_096
#: Published checkpoints whose vectors are known.
PUBLISHED_MAX = 256

Vector = Mapping[str, int]  # chain -> E


@dataclass
class LearnedToServed:
    """Changes only through its methods. Times are monotonic, s."""

    _seen: deque[tuple[float, Vector]] = field(default_factory=deque)
    _vectors: dict[int, Vector] = field(default_factory=dict)  # number of a checkpoint -> vector
    _newest: Vector = field(default_factory=dict)

    def __len__(self) -> int:
        """How many states wait to be served."""
        return len(self._seen)

    def learned(self, vector: Vector, now_s: float) -> None:
        """Shards were seen at this state. Whoever stands behind what was seen has been restored
        from a checkpoint: what it has not learned again is not waited for."""
        if vector == self._newest:
            return
        if not _covers(vector, self._newest):
            self._seen.clear()
        self._newest = dict(vector)
        self._seen.append((now_s, self._newest))
        if len(self._seen) > SEEN_MAX:
            self._seen = deque(list(self._seen)[::2])

    def published(self, number: int, vector: Vector) -> None:
        """This checkpoint may be served from now on."""
        self._vectors[number] = dict(vector)
        while len(self._vectors) > PUBLISHED_MAX:
            del self._vectors[next(iter(self._vectors))]

    def served(self, number: int, now_s: float) -> list[float]:
        """A replica answers with this checkpoint. Returns how long each state waited that it is
        the first to serve, s, in the order in which they were learned."""
        vector, waits = self._vectors.get(number), []
        while vector is not None and self._seen and _covers(vector, self._seen[0][1]):
            waits.append(now_s - self._seen.popleft()[0])
        return waits


def highest(vectors: list[Vector]) -> dict[str, int]:
    """What some shard has applied, chain by chain."""
    found: dict[str, int] = {}
    for vector in vectors:
        for chain, end in vector.items():
            found[chain] = max(end, found.get(chain, end))
    return found


def _covers(vector: Vector, other: Vector) -> bool:
    return all(vector.get(chain, -1) >= end for chain, end in other.items())
