"""How loops over columns are compiled: one decorator for every package."""

from collections.abc import Callable
from typing import TypeVar, cast, overload

from numba import njit

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
    """

    def compiled(function: F) -> F:
        dispatcher = njit(nogil=True, error_model="numpy", inline=inline)(function)
        keep_compiled(dispatcher, function)
        return cast(F, dispatcher)

    return compiled if function is None else compiled(function)
