"""What stands in a column for a value that was given, or not: one piece of code for the log and for
serving.

An impression is read from a log to be learned, and from a request to be answered. Whatever becomes
of a missing value, a wide number or a number without a place in 32 bits is decided here for both,
so that a model is asked in the numbers that it has learned (docs/models.md). A property test holds
the two ways together, bit for bit.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns.events import (
    IMAGE,
    LIST,
    LIST_VALUES_MAX,
    NO_TIME,
    NUMERIC,
    STRING_BYTES_MAX,
    TEXT,
    TEXT_BYTES_MAX,
    TIME,
    TS_MS_MAX,
    TS_MS_MIN,
    VECTOR,
    FeatureColumn,
)
from stream.columns.pictures import DIGEST, squared
from stream.kernels import I64, Bools

#: The slice of the rows that have a value, of a feature that is no string.
GIVEN = "given"
_SLICES = pa.array([GIVEN, ""])
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


def feature_column(feature: FeatureColumn, given: pa.Array) -> pa.Array:
    """(n,) of `feature.type`, without nulls, of what was given, (n,) of `feature.wire_type`. What
    `wrong_values` finds must have been sorted out."""
    if feature.kind == NUMERIC:
        return pa.array(floats(given))
    if feature.kind == TIME:
        return given.fill_null(NO_TIME) if given.null_count else given
    if feature.kind == IMAGE and not feature.stored:
        found = [squared(one).pixels if one else b"" for one in given.to_pylist()]
        return pa.array(found, feature.type)
    if pa.types.is_list(given.type):
        return _list_column(feature, given)
    return strings(given.cast(pa.string()) if feature.integers else given)


def _list_column(feature: FeatureColumn, given: pa.Array) -> pa.Array:
    values = given.flatten()  # of the lists that are none
    if feature.kind != LIST:
        values = pa.array(floats(values))
    elif feature.integers:
        values = values.cast(pa.string())
    return pa.ListArray.from_arrays(_offsets(given), values, type=feature.type)


def is_missing(column: pa.Array) -> Bools:
    """Which rows, (n,), of a feature's column, as `feature_column` makes it, have no value."""
    missing: Bools
    if pa.types.is_floating(column.type):
        missing = np.isnan(column.to_numpy(zero_copy_only=False))
    elif pa.types.is_integer(column.type):
        missing = column.to_numpy(zero_copy_only=False) == NO_TIME
    elif pa.types.is_list(column.type):
        missing = list_lengths(column) == 0
    else:
        missing = _byte_lengths(column) == 0
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


def _offsets(given: pa.Array) -> pa.Array:
    return pa.array(np.append(0, np.cumsum(list_lengths(given))).astype(np.int32))


def wrong_values(feature: FeatureColumn, given: pa.Array) -> Bools:
    """Which rows, (n,), give a feature what it cannot be; `given` of its `wire_type`. What is wrong
    with one says `stream.decoding.feature_faults`."""
    if feature.kind == NUMERIC:
        infinite: Bools = np.isinf(floats(given))
        return infinite
    if feature.kind == TIME:
        times = given.fill_null(TS_MS_MIN).to_numpy(False)
        outside: Bools = (times < TS_MS_MIN) | (times >= TS_MS_MAX)
        return outside
    if feature.stored:
        digests: Bools = pc.match_substring_regex(given, DIGEST).fill_null(True).to_numpy(False)
        return ~digests & (_byte_lengths(given) > 0)
    if feature.kind == IMAGE:
        if feature.forgiving:
            return np.zeros(len(given), np.bool_)
        return np.array([bool(one and squared(one).wrong) for one in given.to_pylist()], np.bool_)
    if pa.types.is_list(given.type):
        return _wrong_lists(feature, given)
    if feature.integers:
        return np.zeros(len(given), np.bool_)
    return _byte_lengths(given) > (TEXT_BYTES_MAX if feature.kind == TEXT else STRING_BYTES_MAX)


def _wrong_lists(feature: FeatureColumn, given: pa.Array) -> Bools:
    lengths, values = list_lengths(given), given.flatten()
    wrong: Bools
    if feature.kind == VECTOR:
        wrong = (lengths > 0) & (lengths != feature.width)
    else:
        wrong = lengths > LIST_VALUES_MAX
    if feature.kind != LIST:
        one_wrong = ~np.isfinite(floats(values))
    else:
        one_wrong = values.is_null().to_numpy(False)
        if not feature.integers:
            one_wrong |= _byte_lengths(values) > STRING_BYTES_MAX
    if one_wrong.any():
        wrong[np.repeat(np.arange(len(given)), lengths)[one_wrong]] = True
    return wrong


def _byte_lengths(given: pa.Array) -> I64:
    lengths: I64 = pc.binary_length(given).fill_null(0).to_numpy(False).astype(np.int64)
    return lengths


def unequal_lengths(values: pa.Array, weights: pa.Array) -> Bools:
    """Which rows, (n,), give some weights, and not one for each value of the list."""
    of_weights = list_lengths(weights)
    unequal: Bools = (of_weights > 0) & (of_weights != list_lengths(values))
    return unequal
