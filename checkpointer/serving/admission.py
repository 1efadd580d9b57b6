"""Which predictions wait, and which are told 503 at once: the core behind `http_server`.

Requests are answered one after the other, in the order in which they came. How long one more would
wait is known: how many wait, times what one takes lately. Above `wait_max_s` it is not let in. So
whoever is let in is answered in time, and who is not costs a line of text and no model.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
#: Share of the newest in the mean of what requests take.
_NEWEST = 0.05
#: Who was let in and waits for so many times `wait_max_s` all the same, as where the machine stood
#: still, is not answered: the client has gone on.
_LATE = 5.0


@dataclass
class RequestAdmission(Generic[T]):
    """Changes only through its methods. Times are monotonic, s."""

    waiting_max: int
    wait_max_s: float
    #: what one request takes, at first and then as measured
    takes_s: float = 0.0005
    _waiting: deque[tuple[T, float]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wait_s(self) -> float:
        """How long one more would wait."""
        return len(self._waiting) * self.takes_s

    def admit(self, asked: T, now_s: float) -> bool:
        """Let it wait for its turn, if that comes in time."""
        if len(self._waiting) >= self.waiting_max or self.wait_s > self.wait_max_s:
            return False
        self._waiting.append((asked, now_s))
        return True

    def next(self, now_s: float) -> tuple[T, bool] | None:
        """Whose turn it is, and whether in time; None = nobody waits."""
        if not self._waiting:
            return None
        asked, since_s = self._waiting.popleft()
        return asked, now_s - since_s <= _LATE * self.wait_max_s

    def took(self, seconds: float) -> None:
        """What the last one took."""
        self.takes_s += _NEWEST * (seconds - self.takes_s)

    def retry_after_s(self) -> int:
        """After how long it is worth asking again, whole seconds."""
        return max(1, round(self.wait_s))
