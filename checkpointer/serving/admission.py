"""Which predictions wait, and which are told 503 at once: the core behind `http_server`.

Requests are answered one after the other, in the order in which they came. How long one more would
wait is known before anything of it is parsed: the CPU time of those who wait, each by the bytes of
its body, times the wall time that a second of it takes lately. Above a limit it is not let in. So
whoever is let in is answered in time, and who is not costs a line of text and no model. Where
nobody waits, one is let in whatever it costs.

A burst may wait for `wait_max_s`. A queue that has not been empty for `_STANDING_S` is none: its
length adds to what everybody waits and to nothing that is answered, and bodies that wait for long
have left the processor's caches when their turn comes. It may be a quarter as long, until it is
empty (after controlled delay, as in B. Maurer, Fail at scale, ACM Queue 13(8), 2015).
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
#: Weight of a measurement against that of the next one.
_KEPT = 0.98
#: Lengths whose variance is a smaller share of their mean square are all alike.
_SPREAD_MIN = 1e-6
#: As `_KEPT`, of one turn of answers against the next.
_PACE_KEPT = 0.9
#: A second of CPU time takes at most so many of wall time, as far as is believed.
_PACE_MAX = 20.0
#: A queue that has not been empty for so long is of no burst, and may be so much as long.
_STANDING_S, _STANDING_SHARE = 0.1, 0.25
#: Who was let in and waits for so many times `wait_max_s` all the same, as where the machine stood
#: still, is not answered: the client has gone on.
_LATE = 5.0


@dataclass
class RequestCost:
    """CPU seconds of an answer by the bytes of the request: base + slope x bytes, least squares of
    what was measured, the newest counting most."""

    base_s: float = 0.0005
    slope_s: float = 0.0
    #: weighted sums over bytes x and seconds y; at first one measurement: `base_s`
    _n: float = 1.0
    _x: float = 0.0
    _y: float = 0.0005
    _xx: float = 0.0
    _xy: float = 0.0

    def seconds(self, nbytes: int) -> float:
        return self.base_s + self.slope_s * nbytes

    def measured(self, nbytes: int, seconds: float) -> None:
        self._n = _KEPT * self._n + 1.0
        self._x = _KEPT * self._x + nbytes
        self._y = _KEPT * self._y + seconds
        self._xx = _KEPT * self._xx + nbytes * nbytes
        self._xy = _KEPT * self._xy + nbytes * seconds
        spread = self._n * self._xx - self._x * self._x
        slope = 0.0
        if spread > _SPREAD_MIN * self._n * self._xx:
            slope = (self._n * self._xy - self._x * self._y) / spread
        self.slope_s = min(max(slope, 0.0), self._y / self._x if self._x else 0.0)
        self.base_s = (self._y - self.slope_s * self._x) / self._n


@dataclass
class Allowance:
    """Work that may take a share of the time, and so many seconds at once."""

    share: float
    burst_s: float
    _debt_s: float = 0.0
    _at_s: float = 0.0

    def may(self, now_s: float) -> bool:
        self._debt_s = max(0.0, self._debt_s - self.share * (now_s - self._at_s))
        self._at_s = now_s
        return self._debt_s < self.burst_s

    def took(self, seconds: float) -> None:
        self._debt_s += seconds


@dataclass
class RequestAdmission(Generic[T]):
    """Changes only through its methods. Times are monotonic, s."""

    waiting_max: int
    wait_max_s: float
    cost: RequestCost = field(default_factory=RequestCost)
    #: wall seconds that a CPU second of answers takes
    pace: float = 1.0
    _waiting: deque[tuple[T, float, float]] = field(default_factory=deque)
    _ahead_s: float = 0.0  # CPU time of those who wait
    _since_s: float = 0.0  # since when somebody waits
    _is_standing: bool = False
    _wall_s: float = 0.01
    _cpu_s: float = 0.01

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wait_s(self) -> float:
        """How long one more would wait for its turn."""
        return self._ahead_s * self.pace

    @property
    def is_full(self) -> bool:
        """Whether one more would wait too long."""
        most_s = self.wait_max_s * (_STANDING_SHARE if self._is_standing else 1.0)
        return len(self._waiting) >= self.waiting_max or self._ahead_s * self.pace > most_s

    def answered_in_s(self, nbytes: int) -> float:
        """After how long a request with a body of so many bytes would be answered."""
        return (self._ahead_s + self.cost.seconds(nbytes)) * self.pace

    def admit(self, asked: T, nbytes: int, now_s: float) -> bool:
        """Let it wait for its turn, if that comes in time."""
        if self.is_full:
            return False
        if not self._waiting:
            self._since_s = now_s
        takes_s = self.cost.seconds(nbytes)
        self._waiting.append((asked, now_s, takes_s))
        self._ahead_s += takes_s
        return True

    def next(self, now_s: float) -> tuple[T, bool] | None:
        """Whose turn it is, and whether in time; None = nobody waits."""
        if not self._waiting:
            return None
        asked, since_s, takes_s = self._waiting.popleft()
        self._ahead_s = max(0.0, self._ahead_s - takes_s) if self._waiting else 0.0
        self._is_standing = bool(self._waiting) and now_s - self._since_s > _STANDING_S
        return asked, now_s - since_s <= _LATE * self.wait_max_s

    def progressed(self, wall_s: float, cpu_s: float) -> None:
        """While some waited, answers took `cpu_s` of these `wall_s`."""
        self._wall_s = _PACE_KEPT * self._wall_s + wall_s
        self._cpu_s = _PACE_KEPT * self._cpu_s + cpu_s
        self.pace = min(max(1.0, self._wall_s / self._cpu_s), _PACE_MAX)

    def retry_after_s(self) -> int:
        """After how long it is worth asking again, whole seconds."""
        return max(1, round(self.wait_s))
