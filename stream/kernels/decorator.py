"""How loops over columns are compiled: one decorator for every package."""

from collections.abc import Callable
from typing import TypeVar, cast, overload

from numba import njit
from numba.core import config

from stream.kernels.cache import keep_compiled

F = TypeVar("F", bound=Callable[..., object])


@overload
def kernel(function: F, /) -> F: ...
@overload
def kernel(*, inline: str) -> Callable[[F], F]: ...
def kernel(function: F | None = None, /, *, inline: str = "never") -> F | Callable[[F], F]:
    """Compile for the machine: no GIL, cached, IEEE arithmetic (no fast maths, so results repeat
    bit for bit).

    Division by zero gives infinity as in numpy: a check that raises would keep loops from being
    vectorised. `inline="always"` pastes a small kernel into its callers before types are known.
    In a process that was begun with NUMBA_DISABLE_JIT=1 it stays what it is: to load what was
    compiled takes a second and 60 MB, which a command that loops over little does not need.
    """

    def compiled(function: F) -> F:
        if config.DISABLE_JIT:
            return function
        dispatcher = njit(nogil=True, error_model="numpy", inline=inline)(function)
        keep_compiled(dispatcher, function)
        return cast(F, dispatcher)

    return compiled if function is None else compiled(function)
