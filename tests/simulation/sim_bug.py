"""What a planted bug is: wrong functions in the place of right ones, and where to look for it
first. The simulator must catch each within 100 seeds.

What is replaced is named by reference, `replaced(Chain.fold, bad)`: whoever renames a method
renames it here with the same tool, and a name that is gone fails as soon as the bug is planted. A
bug that fails by itself, since what it reaches for is not there any more, is no bug that was
caught: `BROKEN` says so, and the test of planted bugs fails. One in the place of what nothing calls
any more changes nothing: `CALLED` stays empty, and the test says that in place of "not caught".
"""

import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Any
from unittest.mock import patch

Patch = AbstractContextManager[Any]

#: What planted bugs failed of by themselves, since this process began.
BROKEN: list[str] = []
#: What planted bugs stood in the place of and was called, since this set was cleared.
CALLED: set[str] = set()
_OWN_FAULTS = (AttributeError, NameError, TypeError)


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


def replaced(right: Any, wrong: Any, of: Any = None) -> Patch:
    """`wrong` in the place of a function, method or property, while the patch is entered. `of`: the
    module that looks it up, where that is not the one that defines it. TypeError if `wrong` cannot
    be called as `right` is."""
    function = _function(right)
    owner = of
    if owner is None:
        owner = sys.modules[function.__module__]
        for name in function.__qualname__.split(".")[:-1]:
            owner = getattr(owner, name)
    return patch.object(owner, function.__name__, _in_place_of(function, wrong))


def _function(found: Any) -> Any:
    if isinstance(found, property):
        return found.fget
    return getattr(found, "__func__", found)


def _in_place_of(right: Any, wrong: Any) -> Any:
    """`wrong` under the name of `right`, told on when it fails by itself."""
    if isinstance(wrong, property):
        return property(_in_place_of(right, wrong.fget))
    if isinstance(wrong, classmethod | staticmethod):
        return type(wrong)(_in_place_of(right, wrong.__func__))
    needed = [
        one
        for one in inspect.signature(right).parameters.values()
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    inspect.signature(wrong).bind(*needed)

    @wraps(right)
    def told_on(*args: Any, **named: Any) -> Any:
        CALLED.add(right.__qualname__)
        try:
            return wrong(*args, **named)
        except _OWN_FAULTS as error:
            if _last_file(error.__traceback__).rpartition("/")[2].startswith("sim_bug"):
                BROKEN.append(f"{right.__qualname__}: {type(error).__name__}: {error}")
            raise

    return told_on


def _last_file(trace: TracebackType | None) -> str:
    found = ""
    while trace is not None:
        found, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return found
