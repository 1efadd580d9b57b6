"""Carries out what a cut says, over the ports of the shards and of the clocks."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from checkpointer.cuts.cut import (
    Abandoned,
    AskHold,
    AskShard,
    Cut,
    Instruction,
    Mark,
    Marked,
    Release,
    Unmark,
)
from paramserver import ClockPort, PortRefused, PortUnreachable, ShardPort

T = TypeVar("T")
R = TypeVar("R")


class Time(Protocol):
    def now_ms(self) -> int:
        """The host's clock, ms since 1970."""

    def steady_ms(self) -> int:
        """A clock that nobody sets: what leases and limits are measured by."""

    def sleep_ms(self, ms: int) -> None:
        """May raise to end the process: every step is safe to die in."""


class WorkerPool(Protocol):
    def each(self, call: Callable[[T], R], items: list[T]) -> list[R]:
        """`call` on all items, at once if possible; raises the first exception after all have
        ended."""


@dataclass(frozen=True)
class Cutting:
    """`perform` one cut after another."""

    shards: Mapping[int, ShardPort]
    clock: ClockPort
    shell: WorkerPool
    time: Time
    poll_ms: int

    def perform(self, cut: Cut) -> Marked | Abandoned:
        """Until it is done. What the cut says in one breath is asked at once."""
        while True:
            said = cut.tick(self.time.steady_ms())
            while said:
                end = next((i for i in said if isinstance(i, Marked | Abandoned)), None)
                asked = [(cut.model, i) for i in said if not isinstance(i, Marked | Abandoned)]
                answers = self.shell.each(self._call, asked)
                if end is not None:
                    return end
                said = [
                    more for about, answer in answers for more in self._told(cut, about, answer)
                ]
            self.time.sleep_ms(max(1, min(self.poll_ms, cut.next_wake_ms - self.time.steady_ms())))

    def _call(self, asked: tuple[str, Instruction]) -> tuple[Instruction, Any]:
        """One call to a port: the instruction and its answer; Refused is one, None is none
        within the deadline."""
        try:
            return asked[1], self._ask(*asked)
        except PortRefused as refused:
            return asked[1], refused
        except PortUnreachable:
            return asked[1], None

    def _ask(self, model: str, asked: Instruction) -> Any:
        match asked:
            case AskHold(_, cut, lease_ms, highest):
                return self.clock.hold(model, cut, lease_ms, highest)
            case AskShard(shard):
                return self.shards[shard].progress(model)
            case Mark(shard, cut, vector):
                return self.shards[shard].mark(model, cut, vector)
            case Unmark(shard, cut):
                return self.shards[shard].unmark(model, cut)
            case Release(_, cut):
                return self.clock.release(model, cut)
        raise AssertionError(asked)

    def _told(self, cut: Cut, asked: Instruction, answer: Any) -> list[Instruction]:
        """What the cut makes of an answer."""
        now_ms = self.time.steady_ms()
        if isinstance(answer, PortRefused):
            return cut.refused(str(answer), now_ms)
        match asked:
            case AskHold():
                return cut.held(answer, now_ms)
            case AskShard(shard):
                return cut.told(shard, answer, now_ms)
            case Mark(shard, name, _):
                return cut.marked(shard, name, answer, now_ms)
        return []


def best_effort(call: Callable[..., object], *arguments: object) -> None:
    """A call that helps but need not succeed: the next mark replaces a copy that was neither
    settled nor dropped."""
    with suppress(PortUnreachable, PortRefused):
        call(*arguments)
