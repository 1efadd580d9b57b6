"""Numbers in 16 bits, and how they are rounded to: by chance, so that what roundings lose is right
on average.

A number x between two neighbours a < x < b of the 16-bit numbers becomes b with probability (x - a)
/ (b - a) (stochastic rounding; Gupta et al. 2015): many steps that are each too small to reach a
neighbour still add up to their sum. The chance is a hash of the row's key, the range of the push,
and the column, so that the same pushes give the same bits on every shard and after every restart.
What is a 16-bit number already stays that number.

float16 is clamped to its largest finite number, 65,504. Both formats are kept little-endian, two to
a word.
"""

import numpy as np
import numpy.typing as npt

from paramserver.messages import Rows
from paramserver.tables.row_header import RowNumbers, Words, key_of
from stream.kernels import kernel, mix64

Bits16 = npt.NDArray[np.uint16]

#: float16's exponents begin 112 above float32's: as float32, its bits shifted up are the number by
#: 2^-112.
_UP, _DOWN = np.float32(2.0**112), np.float32(2.0**-112)
_FLOAT16_MAX = np.float32(65504)
#: The largest bfloat16, as float32's bits.
_BFLOAT16_MAX = np.uint32(0x7F7F0000)


@kernel
def from_bfloat16(
    bits16: Bits16, first: int, rows: RowNumbers, bits: Words, at: int, count: int
) -> None:
    """`count` numbers from column `first` of each row >= 0 on, into columns `at` on of `bits`
    (m, ...), as float32."""
    a, b, n = np.uint64(first), np.uint64(at), np.uint64(count)
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(n):
                bits[i, b + j] = np.uint32(np.uint32(bits16[r, a + j]) << np.uint32(16))


@kernel
def from_float16(
    bits16: Bits16, first: int, rows: RowNumbers, bits: Words, out: Rows, at: int, count: int
) -> None:
    """The same of float16; `out` is the memory of `bits`."""
    a, b, n = np.uint64(first), np.uint64(at), np.uint64(count)
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(n):
                h = np.uint32(bits16[r, a + j])
                sign, rest = (
                    np.uint32((h & np.uint32(0x8000)) << np.uint32(16)),
                    np.uint32(h & np.uint32(0x7FFF)),
                )
                bits[i, b + j] = np.uint32(sign | np.uint32(rest << np.uint32(13)))
            for j in range(n):
                out[i, b + j] = out[i, b + j] * _UP


@kernel
def from_words(
    words: Words, first: int, rows: RowNumbers, bits: Words, at: int, count: int
) -> None:
    """The same of what is float32 already."""
    a, b, n = np.uint64(first), np.uint64(at), np.uint64(count)
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(n):
                bits[i, b + j] = words[r, a + j]


@kernel
def _chance(seed: np.uint32, column: np.uint64) -> np.uint32:
    """32 bits of a row's draw for a column: murmur3's 32-bit finalizer. Products are cut to 32 bits
    at once, or the compiler would multiply 64."""
    h = np.uint32(seed + np.uint32(np.uint32(column) * np.uint32(0x9E3779B9)))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@kernel
def draws(words: Words, rows: RowNumbers, seed: np.uint64, out: npt.NDArray[np.uint32]) -> None:
    """What each row >= 0 draws by: a hash of its key, which its head holds, and the push's seed."""
    mixed = mix64(seed)
    for i in range(len(rows)):
        if rows[i] >= 0:
            out[i] = np.uint32(mix64(key_of(words, rows[i]) ^ mixed) >> np.uint64(32))


@kernel
def to_bfloat16(
    bits: Words,
    at: int,
    count: int,
    bits16: Bits16,
    first: int,
    rows: RowNumbers,
    drawn: npt.NDArray[np.uint32],
) -> None:
    """The inverse of `from_bfloat16`, rounding by what each row draws; with an empty array to
    the nearest."""
    a, b, n = np.uint64(first), np.uint64(at), np.uint64(count)
    for i in range(len(rows)):
        if rows[i] < 0:
            continue
        r = np.uint64(rows[i])
        if len(drawn):
            seed = drawn[i]
            for j in range(n):
                word = bits[i, b + j]
                up = np.uint32(_chance(seed, b + j) & np.uint32(0xFFFF))
                kept = np.uint32(min(np.uint32(word & np.uint32(0x7FFFFFFF)), _BFLOAT16_MAX) + up)
                bits16[r, a + j] = np.uint16(
                    np.uint32(word & np.uint32(0x80000000) | kept) >> np.uint32(16)
                )
        else:
            for j in range(n):
                word = bits[i, b + j]
                kept = np.uint32(
                    min(np.uint32(word & np.uint32(0x7FFFFFFF)), _BFLOAT16_MAX) + np.uint32(0x8000)
                )
                bits16[r, a + j] = np.uint16(
                    np.uint32(word & np.uint32(0x80000000) | kept) >> np.uint32(16)
                )


@kernel
def to_float16(
    bits: Words, wide: Rows, at: int, count: int, bits16: Bits16, first: int, rows: RowNumbers,
    drawn: npt.NDArray[np.uint32],
) -> None:  # fmt: skip
    """The same of float16; `wide` is the memory of `bits`, and is scribbled over."""
    a, b, n = np.uint64(first), np.uint64(at), np.uint64(count)
    for i in range(len(rows)):
        if rows[i] < 0:
            continue
        r = np.uint64(rows[i])
        for j in range(n):
            wide[i, b + j] = min(max(wide[i, b + j], -_FLOAT16_MAX), _FLOAT16_MAX) * _DOWN
        if len(drawn):
            seed = drawn[i]
            for j in range(n):
                word = bits[i, b + j]
                up = np.uint32(_chance(seed, b + j) & np.uint32(0x1FFF))
                kept = np.uint32(
                    np.uint32(np.uint32(word & np.uint32(0x7FFFFFFF)) + up) >> np.uint32(13)
                )
                bits16[r, a + j] = np.uint16(
                    np.uint32(np.uint32(word >> np.uint32(16)) & np.uint32(0x8000)) | kept
                )
        else:
            for j in range(n):
                word = bits[i, b + j]
                kept = np.uint32(
                    np.uint32(word & np.uint32(0x7FFFFFFF)) + np.uint32(0x1000)
                ) >> np.uint32(13)
                bits16[r, a + j] = np.uint16(
                    np.uint32(np.uint32(word >> np.uint32(16)) & np.uint32(0x8000)) | kept
                )


@kernel
def to_words(bits: Words, at: int, count: int, words: Words, first: int, rows: RowNumbers) -> None:
    """The inverse of `from_words`."""
    a, b, n = np.uint64(first), np.uint64(at), np.uint64(count)
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(n):
                words[r, a + j] = bits[i, b + j]
