"""What a planted bug is: a patch, and where to look for it first. The simulator must catch each
within 100 seeds."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any

Patch = AbstractContextManager[Any]


@dataclass(frozen=True)
class Bug:
    name: str
    what: str  # is done wrong
    plant: Callable[[], list[Patch]]
    first: int = 0  # seeds below are of no use to it ...
    step: int = 1  # ... and only each so many-th is

    def planted(self) -> ExitStack:
        stack = ExitStack()
        for one in self.plant():
            stack.enter_context(one)
        return stack


BUGS: list[Bug] = []


def bug(
    name: str, what: str, **where: int
) -> Callable[[Callable[[], list[Patch]]], Callable[[], list[Patch]]]:
    def register(plant: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
        BUGS.append(Bug(name, what, plant, **where))
        return plant

    return register
