"""What stands in a column for a value that was given, or not: one piece of code for the log and for
serving.

An impression is read from a log to be learned, and from a request to be answered. Whatever becomes
of a missing value, a wide number or a number without a place in 32 bits is decided here for both,
so that a model is asked in the numbers that it has learned (docs/models.md). A property test holds
the two ways together, bit for bit.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

#: The place on the page of an impression that does not say one.
NO_POSITION = -1


def strings(column: pa.Array) -> pa.Array:
    """A string column without nulls: a missing string is ""."""
    return column.fill_null("") if column.null_count else column


def floats(column: pa.Array) -> npt.NDArray[np.float32]:
    """(n,) of a column of float64: null becomes NaN, what float32 cannot hold infinite."""
    filled = column.fill_null(float("nan")) if column.null_count else column
    with np.errstate(over="ignore"):
        narrow: npt.NDArray[np.float32] = filled.to_numpy(zero_copy_only=False).astype(np.float32)
    return narrow


def positions(column: pa.Array) -> pa.Array:
    """int32 without nulls, of a column of int64 within its range: a missing one is
    `NO_POSITION`."""
    filled = column.fill_null(NO_POSITION) if column.null_count else column
    return filled.cast(pa.int32())
