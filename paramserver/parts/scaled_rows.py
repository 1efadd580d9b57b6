"""Rows in 8 or 16 bits, as replicas may read them: whole numbers, and a scale for each row.

A weight is number x scale, the scale the row's largest weight by the largest number; so each weight
is off by half a scale at most, and a row is what it is whatever stands beside it. Rows that a delta
leaves out are then the bits that a base would say.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.messages import Rows

_TYPES: dict[int, type[np.signedinteger]] = {8: np.int8, 16: np.int16}
#: Rows at once: what is computed on the way stays small.
_ROWS = 65_536


class ScaledRows(NamedTuple):
    """(n, dim) int8 or int16, and (n,) float32."""

    numbers: npt.NDArray[np.signedinteger]
    scales: npt.NDArray[np.float32]


def is_smaller(dim: int, bits: int) -> bool:
    """Whether rows of so many weights take fewer bytes so."""
    return dim * bits // 8 + 4 < 4 * dim


def scaled(rows: Rows, bits: int) -> ScaledRows:
    """The nearest such rows. Of a row that holds a NaN or an infinity the scale is NaN."""
    kind, most = _TYPES[bits], np.float32(2 ** (bits - 1) - 1)
    found = ScaledRows(np.empty(rows.shape, kind), np.empty(len(rows), np.float32))
    for at in range(0, len(rows), _ROWS):
        some = rows[at : at + _ROWS]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            scales = np.abs(some).max(axis=1, initial=0) / most
            scales[~np.isfinite(scales)] = np.nan
            beyond = np.isinf(scales * most)  # rounded up, of a weight near the largest float
            scales[beyond] = np.nextafter(scales[beyond], np.float32(0))
            numbers = np.rint(some / scales[:, None])
        numbers[~np.isfinite(numbers)] = 0
        found.numbers[at : at + _ROWS] = np.clip(numbers, -most, most)
        found.scales[at : at + _ROWS] = scales
    return found


def widened(numbers: npt.NDArray[np.signedinteger], scales: npt.NDArray[np.float32]) -> Rows:
    """(n, dim) float32. ValueError where they are not of each other."""
    is_ours = numbers.dtype in _TYPES.values() and scales.dtype == np.float32
    if not is_ours or numbers.ndim != 2 or scales.shape != (len(numbers),):
        raise ValueError(
            f"weights are {numbers.dtype} {numbers.shape} with scales {scales.dtype} "
            f"{scales.shape}, expected int8 or int16 (n, dim) with float32 (n,)"
        )
    rows: Rows = numbers * scales[:, None]
    return rows
