"""Rows on the wire in 16 bits: bfloat16 (float32's range, 8 bits of precision) or float16 (11 bits,
up to 65,504).

A row is rounded to the nearest number that the encoding has, ties to even. Only what travels is
rounded: the shard keeps float32 and sums updates there, so errors do not build up. NaN stays NaN
and what is too large becomes infinite, which the shard refuses by name (S4).
"""

import platform
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.extending import intrinsic

from paramserver.kernel import plain
from paramserver.messages import Rows
from stream.kernels import kernel

Bits = npt.NDArray[np.uint16]


class Encoding(Enum):
    """Its number on the wire."""

    FLOAT32 = 0
    BFLOAT16 = 1
    FLOAT16 = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array that travels, little-endian."""
        return np.dtype("<f4") if self is Encoding.FLOAT32 else np.dtype("<u2")


#: By the names of `[paramserver] wire`.
ENCODINGS = {encoding.name.lower(): encoding for encoding in Encoding}


@kernel
def _to_bfloat16(words: npt.NDArray[np.uint32], out: Bits) -> None:
    """Sums are cut to 32 bits at once, or the compiler works in 64."""
    for i in range(len(words)):
        word = words[i]
        high = np.uint32(word >> np.uint32(16))
        up = np.uint32(np.uint32(0x7FFF) + np.uint32(high & np.uint32(1)))
        rounded = np.uint32(np.uint32(word + up) >> np.uint32(16))
        nan = np.uint32(high | np.uint32(0x40))
        is_nan = np.uint32(word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        out[i] = np.uint16(nan if is_nan else rounded)


@kernel
def _from_bfloat16(bits: Bits, out: npt.NDArray[np.uint32]) -> None:
    for i in range(len(bits)):
        out[i] = np.uint32(bits[i]) << np.uint32(16)


@intrinsic
def _half(context: Any, number: Any) -> Any:
    """The bits of a float32 as float16, nearest, ties to even."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), generate


@intrinsic
def _wide(context: Any, bits: Any) -> Any:
    """float32 of the bits of a float16."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@kernel
def _to_float16(numbers: npt.NDArray[np.float32], out: Bits) -> None:
    for i in range(len(numbers)):
        out[i] = _half(numbers[i])


@kernel
def _from_float16(bits: Bits, out: npt.NDArray[np.float32]) -> None:
    for i in range(len(bits)):
        out[i] = _wide(bits[i])


def _has_float16() -> bool:
    """Whether the processor converts to and from float16: else the compiler calls what is not
    there. x86 since 2012."""
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    return not x86 or bool(get_host_cpu_features().get("f16c"))


_FLOAT16 = _has_float16()


def encode_rows(rows: npt.NDArray[Any], encoding: Encoding) -> npt.NDArray[Any]:
    """An array of the same shape, to be sent; `rows` itself where it can be sent as it is, or is
    encoded already."""
    if rows.dtype == encoding.dtype:
        return np.ascontiguousarray(rows)
    out = np.empty(rows.shape, np.uint16)
    encode_into(plain(rows), out, encoding)
    return out


def encode_into(rows: Rows, out: Bits, encoding: Encoding) -> None:
    """The same into `out`, for an encoding in 16 bits; both arrays are plain and of one shape."""
    if encoding is Encoding.BFLOAT16:
        _to_bfloat16(rows.reshape(-1).view(np.uint32), out.reshape(-1))
    elif _FLOAT16:
        _to_float16(rows.reshape(-1), out.reshape(-1))
    else:
        with np.errstate(over="ignore"):
            out[:] = rows.astype(np.float16).view(np.uint16)


def decode_rows(sent: npt.NDArray[Any], encoding: Encoding) -> Rows:
    """float32 rows of what was sent; `sent` itself where it is that already."""
    if encoding is Encoding.FLOAT32:
        return sent
    if encoding is Encoding.FLOAT16 and not _FLOAT16:
        return sent.view(np.float16).astype(np.float32)
    out = np.empty(sent.shape, np.float32)
    if encoding is Encoding.FLOAT16:
        _from_float16(plain(sent).reshape(-1), out.reshape(-1))
    else:
        _from_bfloat16(plain(sent).reshape(-1), out.reshape(-1).view(np.uint32))
    return out
