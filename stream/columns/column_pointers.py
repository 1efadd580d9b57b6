"""Where the columns of a batch lie in memory, so that one call of a kernel reads all of them.

A call a column would hand over the interpreter's lock as often, while the other threads of a
process wait for it.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stream.kernels import kernel

#: (m, 4) int64, of every column: what it holds, the address of its first value (of strings: of
#: their offsets), and the address and number of the bytes that the offsets point into.
Placed = npt.NDArray[np.int64]

STRING, INT64, INT32, INT8, FLOAT32, HASHED = range(6)
_NUMBERS = {
    pa.int64(): (INT64, 8),
    pa.int32(): (INT32, 4),
    pa.int8(): (INT8, 1),
    pa.float32(): (FLOAT32, 4),
}
#: Laid out alike: offsets, and bytes that they point into.
_STRINGS = (pa.string(), pa.binary())


def placed(columns: Sequence[pa.Array]) -> Placed:
    """Of columns of one length above 0: strings, binary, int64, int32, int8 or float32. They must
    outlive what is made of it. Raises ValueError on nulls and on another type."""
    out = []
    for column in columns:
        if column.null_count:
            raise ValueError(f"{column.null_count} of {len(column)} values of a column are null")
        kind = column.type
        buffers, skipped = column.buffers(), column.offset
        if kind in _STRINGS:
            data = (0, 0) if buffers[2] is None else (buffers[2].address, buffers[2].size)
            out.append((STRING, buffers[1].address + 4 * skipped, *data))
        elif kind not in _NUMBERS:
            raise ValueError(
                f"a column of {kind}, expected string, binary, int64, int32, int8 or float32"
            )
        else:
            number, width = _NUMBERS[kind]
            out.append((number, buffers[1].address + width * skipped, 0, 0))
    return np.array(out, np.int64).reshape(-1, 4)


def check_offsets(columns: Sequence[pa.Array]) -> None:
    """Raises ValueError where the offsets of strings fall, which `validate` of Arrow passes over: a
    kernel that follows them would leave the column. And what `placed` raises."""
    if columns and len(columns[0]) and _falls(placed(columns), len(columns[0])):
        raise ValueError("the offsets of a column of strings fall")


def placed_hashes(low: npt.NDArray[np.uint64], high: npt.NDArray[np.uint64]) -> Placed:
    """(1, 4) of a column that is two hashes a row, made before: where both begin."""
    return np.array([(HASHED, low.ctypes.data, high.ctypes.data, 0)], np.int64)


@kernel
def _falls(columns: Placed, rows: int) -> bool:
    falls = False
    for c in range(len(columns)):
        if columns[c, 0] == STRING:
            offsets = numba.carray(pointer(columns[c, 1]), rows + 1, np.int32)
            for i in range(rows):
                falls |= offsets[i + 1] < offsets[i]
    return falls


@intrinsic
def pointer(context: Any, address: Any) -> Any:
    """An address as `numba.carray` takes it. The kernel that asks is told by its caller what
    lies there."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate
