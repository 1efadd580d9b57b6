"""How this package compiles: one decorator, and the one hash that slots, tables and initial values share.

Kernels release the GIL and are cached on disk beside their source file. Numba notices a change of a kernel's own file
only, so what kernels call across files (`mix64`, `initial_value`) must never change meaning: a checkpoint depends on
both anyway.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T", bound=np.generic)


def kernel(function: F) -> F:
    """Compile for the machine: no GIL, cached, IEEE arithmetic (no fast maths, so results repeat bit for bit).

    Division by zero gives infinity as in numpy: a check that raises would keep loops from being vectorised.
    """
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))


def plain(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """The array, or a copy if it is strided, unaligned or read-only: kernels are compiled for plain arrays alone."""
    flags: Any = array.flags
    return array if flags.carray else np.array(array, order="C")


@kernel
def mix64(key: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which every input bit moves every output bit: murmur3's finalizer (Appleby)."""
    h = np.uint64(key)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> np.uint64(33)
    return h
