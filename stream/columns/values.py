"""What stands in a column for a value that was given, or not: for the log and for serving.

Whatever becomes of a missing value, a wide number or a number without a place in 32 bits is decided
here for both (docs/models.md); `column_kinds` says which of it a feature's column is made by.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.kernels import I64, Bools

#: The slice of the rows that have a value, of a feature that is no string.
GIVEN = "given"
_SLICES = pa.array([GIVEN, ""])
#: A time that was not given.
NO_TIME = 0
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


def rounded(value: Any, wanted: pa.DataType) -> Any:
    """A value as Python has it, with floats for integers where `wanted` has floats, lists and
    structs included: beyond 2^53 the nearest, which JSON's text is read as, and which Arrow does
    not take of an integer. Raises OverflowError for one that no float is near."""
    if pa.types.is_floating(wanted):
        return float(value) if type(value) is int else value
    if pa.types.is_list(wanted) and isinstance(value, list):
        return [rounded(one, wanted.value_type) for one in value]
    if pa.types.is_struct(wanted) and isinstance(value, dict):
        return {field.name: rounded(value.get(field.name), field.type) for field in wanted}
    return value


def positions(column: pa.Array) -> pa.Array:
    """int32 without nulls, of a column of int64 within its range: a missing one is
    `NO_POSITION`."""
    filled = column.fill_null(NO_POSITION) if column.null_count else column
    return filled.cast(pa.int32())


def is_missing(column: pa.Array) -> Bools:
    """Which rows, (n,), of a column that `FeatureColumn.column_of` makes have no value."""
    missing: Bools
    if pa.types.is_floating(column.type):
        missing = np.isnan(column.to_numpy(zero_copy_only=False))
    elif pa.types.is_integer(column.type):
        missing = column.to_numpy(zero_copy_only=False) == NO_TIME
    elif pa.types.is_list(column.type):
        missing = list_lengths(column) == 0
    else:
        missing = byte_lengths(column) == 0
    return missing


def slice_values(column: pa.Array) -> pa.Array:
    """What the breaker and verdicts call the slices of a feature's column: strings as they are, of
    others `GIVEN`, and "" where there is no value."""
    if pa.types.is_string(column.type):
        return column
    return _SLICES.take(pa.array(is_missing(column).astype(np.int8)))


def list_lengths(given: pa.Array) -> I64:
    """Values of each list, int64 (n,); 0 of a null."""
    lengths: I64 = given.value_lengths().fill_null(0).to_numpy(False).astype(np.int64)
    return lengths


def offsets_of(given: pa.Array) -> pa.Array:
    """(n + 1,) int32: where the values of each list begin among all."""
    return pa.array(np.append(0, np.cumsum(list_lengths(given))).astype(np.int32))


def byte_lengths(given: pa.Array) -> I64:
    """Bytes of each string, int64 (n,); 0 of a null."""
    import pyarrow.compute as pc  # not before something is computed

    lengths: I64 = pc.binary_length(given).fill_null(0).to_numpy(False).astype(np.int64)
    return lengths


def unequal_lengths(values: pa.Array, weights: pa.Array) -> Bools:
    """Which rows, (n,), give some weights, and not one for each value of the list."""
    of_weights = list_lengths(weights)
    unequal: Bools = (of_weights > 0) & (of_weights != list_lengths(values))
    return unequal
