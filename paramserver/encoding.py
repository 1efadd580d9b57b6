"""Rows on the wire in 16 bits: bfloat16 (float32's range, 8 bits of precision) or float16 (11 bits, up to 65,504).

A row is rounded to the nearest number that the encoding has, ties to even. Only what travels is rounded: the shard
keeps float32 and sums updates there, so errors do not build up. NaN stays NaN and what is too large becomes infinite,
which the shard refuses by name (S4).
"""

from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.kernel import kernel, plain
from paramserver.messages import Rows

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
    for i in range(len(words)):
        word = words[i]
        rounded = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        is_nan = (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        out[i] = np.uint16((word >> np.uint32(16)) | np.uint32(0x40)) if is_nan else np.uint16(rounded)


@kernel
def _from_bfloat16(bits: Bits, out: npt.NDArray[np.uint32]) -> None:
    for i in range(len(bits)):
        out[i] = np.uint32(bits[i]) << np.uint32(16)


def encode_rows(rows: Rows, encoding: Encoding) -> npt.NDArray[Any]:
    """An array of the same shape, to be sent; `rows` itself where it can be sent as it is."""
    if encoding is Encoding.FLOAT32:
        return np.ascontiguousarray(rows, encoding.dtype)
    if encoding is Encoding.FLOAT16:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(rows, np.float16).view(encoding.dtype)
    out = np.empty(rows.shape, np.uint16)
    _to_bfloat16(plain(rows).reshape(-1).view(np.uint32), out.reshape(-1))
    return out


def decode_rows(sent: npt.NDArray[Any], encoding: Encoding) -> Rows:
    """float32 rows of what was sent; `sent` itself where it is that already."""
    if encoding is Encoding.FLOAT32:
        return sent
    if encoding is Encoding.FLOAT16:
        return sent.view(np.float16).astype(np.float32)
    out = np.empty(sent.shape, np.float32)
    _from_bfloat16(plain(sent).reshape(-1), out.reshape(-1).view(np.uint32))
    return out
