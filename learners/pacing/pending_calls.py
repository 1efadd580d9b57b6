"""The calls of one learner that are not answered: under way, or to be made again later."""

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from learners.pacing.instructions import Call
from paramserver import Outcome, StartOutcome

C = TypeVar("C", bound=Call)


class PendingCalls:
    """Numbers every call once. Bounded by its user: one join, renewal, park and start, one question
    and one push a shard, and per batch one pull a shard and one end."""

    def __init__(self) -> None:
        self._last = 0
        self._under_way: dict[int, Call] = {}
        self._later: list[tuple[int, Call]] = []

    def number(self) -> int:
        """A number never given before."""
        self._last += 1
        return self._last

    def make(self, call: C) -> C:
        """The call under a new number, now under way."""
        numbered = call._replace(call=self.number())
        self._under_way[numbered.call] = numbered
        return cast(C, numbered)

    def answered(self, number: int) -> Call | None:
        """The call that ends with this answer, or None if it is no longer meant."""
        return self._under_way.pop(number, None)

    def retry(self, call: Call, at_ms: int) -> None:
        self._later.append((at_ms, call))

    def due(self, now_ms: int) -> list[Call]:
        """The calls to be made again now, in the order in which they were put off."""
        if not self._later:
            return []
        due = [call for at, call in self._later if at <= now_ms]
        self._later = [(at, call) for at, call in self._later if at > now_ms]
        return due

    def drop(self, call: Call) -> None:
        self._under_way.pop(call.call, None)
        self._later = [(at, other) for at, other in self._later if other is not call]

    def of(self, kind: type[C]) -> Iterator[C]:
        """Those of one kind, under way or put off."""
        for call in self._under_way.values():
            if isinstance(call, kind):
                yield call
        for _, call in self._later:
            if isinstance(call, kind):
                yield call

    def any(self, kind: type[Call]) -> bool:
        return next(iter(self.of(kind)), None) is not None

    @property
    def next_ms(self) -> int | None:
        """When the next one is to be made again."""
        return min((at for at, _ in self._later), default=None)

    def clear(self) -> None:
        """Forget all; numbers go on, so that no answer is taken for another's."""
        self._under_way.clear()
        self._later.clear()


def says_fenced(reply: Any) -> bool:
    """Whether the answer of any call says so: Ended and Park answer False, Renew None, the
    others an outcome (K3)."""
    return (
        reply is None
        or reply is False
        or getattr(reply, "outcome", None) in (Outcome.FENCED, StartOutcome.FENCED)
    )
