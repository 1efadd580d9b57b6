"""What a model reads of a declared feature's column: categories as strings to be hashed, values of
lists with their weights, numbers. One piece of code for training and for serving, row by row: a row
is the same bits whatever stands beside it (docs/features.md).
"""

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns.column_kinds import TIME
from stream.columns.declaration import (
    AGE,
    ATTENTION,
    HOUR,
    LOWER,
    MEAN,
    NFC,
    NFKC,
    SQRT,
    WEEKDAY,
    Feature,
)
from stream.columns.values import NO_TIME
from stream.kernels import I64, kernel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: Categories of a time or a bucket are written as these.
_DIGITS = pa.array([str(i) for i in range(-1, 2048)], pa.string())
_FORMS = {NFC: "NFC", NFKC: "NFKC"}
#: Of more combining marks in a row the rest is passed over: to put n in order takes n^2 steps
#: (Unicode Standard Annex 15, section 13: Stream-Safe Text Format).
MARKS_MAX = 30


def normalised(values: pa.Array, steps: Sequence[str]) -> pa.Array:
    """Strings after these steps of `declaration.Feature.steps`, without nulls. Of 'digits' the
    tokens of a text take care."""
    if not steps:
        return values
    is_ascii = pc.all(pc.string_is_ascii(values)).as_py() is not False
    for step in steps:
        if step in _FORMS and not is_ascii:
            values = pc.utf8_normalize(_few_marks(values), form=_FORMS[step])
        elif step == LOWER:
            values = pc.ascii_lower(values) if is_ascii else pc.utf8_lower(values)
    return values


def _few_marks(values: pa.Array) -> pa.Array:
    """The strings, with at most MARKS_MAX combining marks in a row."""
    if (pc.max(pc.utf8_length(values)).as_py() or 0) <= MARKS_MAX:
        return values
    many = pc.greater(pc.count_substring_regex(values, r"\p{M}"), MARKS_MAX)
    if not pc.any(many).as_py():
        return values
    cut = [_many_marks().sub(r"\1", text) for text in values.filter(many).to_pylist()]
    return pc.replace_with_mask(values, many, pa.array(cut, pa.string()))


@cache
def _many_marks() -> re.Pattern[str]:
    """Too many characters of a combining class other than 0 in a row."""
    marks = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(c))
    return re.compile(f"([{marks}]{{{MARKS_MAX}}})[{marks}]+")


def or_default(values: pa.Array, default: str | None) -> pa.Array:
    """The strings, with `default` in the place of missing ones ("")."""
    if not default:
        return values
    return pc.if_else(pc.equal(values, ""), pa.scalar(default, pa.string()), values)


def categories(feature: Feature, column: pa.Array, ts_ms: I64) -> pa.Array:
    """(n,) strings, the categories of a feature with one a row. `column` as in `examples`; of a
    time that is the impression's own, `ts_ms` itself. `ts_ms`: times of the impressions."""
    if feature.kind == TIME:
        return or_default(_time_categories(feature, column, ts_ms), feature.default)
    if feature.is_number:
        return _buckets(feature, column)
    return or_default(normalised(column, feature.steps), feature.default)


def _buckets(feature: Feature, column: pa.Array) -> pa.Array:
    """How many bounds are at or below the value, as digits; "" where it is missing and has no
    default."""
    raw = column.to_numpy(zero_copy_only=False).astype(np.float64)
    if feature.default is not None:
        raw = np.where(np.isnan(raw), float(feature.default), raw)
    places = np.searchsorted(np.array(feature.buckets, np.float64), raw, side="right")
    return _digits(places.astype(np.int64), np.isnan(raw))


def _time_categories(feature: Feature, column: pa.Array, ts_ms: I64) -> pa.Array:
    times = column.to_numpy(zero_copy_only=False)
    missing = times == NO_TIME
    if feature.part == AGE:
        return _digits(_age_powers(ts_ms, times), missing)
    local = pa.array(times, pa.timestamp("ms", feature.zone))
    hour = pc.hour(local).to_numpy(zero_copy_only=False)
    if feature.part == HOUR:
        return _digits(hour, missing)
    day = pc.day_of_week(local).to_numpy(zero_copy_only=False)
    return _digits(day if feature.part == WEEKDAY else day * 24 + hour, missing)


def ages(ts_ms: I64, times: I64) -> pa.Array:
    """(n,) strings: how long before `ts_ms` each of `times` was, in powers of two of seconds; "-1"
    of one that came later."""
    return _digits(_age_powers(ts_ms, times), np.zeros(len(times), np.bool_))


def _age_powers(ts_ms: I64, times: I64) -> I64:
    seconds = (ts_ms - times) // 1000
    powers = np.frexp(np.maximum(seconds, 0).astype(np.float64))[1].astype(np.int64)
    found: I64 = np.where(seconds < 0, -1, powers)
    return found


def _digits(numbers: I64, missing: npt.NDArray[np.bool_]) -> pa.Array:
    """As strings, "" where missing. Numbers from -1 to 2046."""
    written = _DIGITS.take(pa.array(numbers + 1))
    if not missing.any():
        return written
    return pc.if_else(pa.array(missing), pa.scalar("", pa.string()), written)


class ListValues(NamedTuple):
    """Values of many rows behind each other: row i has `[ends[i], ends[i + 1])` of `values`, with
    those of `weights`. Every row has one at least."""

    values: pa.Array  # (m,) strings
    ends: I64  # (n + 1,)
    weights: Floats  # (m,)
    clipped: int = 0  # weights beyond the largest


def list_values(
    feature: Feature, column: pa.Array, weights: pa.Array | None, weight_max: float
) -> ListValues:
    """The values of a list that a model reads: the first `max_values`, normalised; of an empty list
    the default. Weights are scaled as `pool` says; where none were given, each is 1 before that."""
    flat = normalised(column.flatten(), feature.steps)
    given = column.offsets.to_numpy().astype(np.int64)
    given -= given[0]
    take, ends = _cut(given, feature.max_values)
    scale = np.ones(len(take), np.float64)
    clipped = 0
    if weights is not None:
        starts = weights.offsets.to_numpy().astype(np.int64)
        raw = weights.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        _weigh(raw, starts - starts[0], given, ends, scale)
        clipped = int(np.count_nonzero(np.abs(scale) > weight_max))
        scale = np.clip(scale, -weight_max, weight_max)
    if len(take) != len(flat) or (take == len(flat)).any():
        flat = pa.concat_arrays([flat, pa.array([feature.default or ""], pa.string())])
        flat = flat.take(pa.array(take))
    return ListValues(flat, ends, pooled_weights(ends, scale, feature.pool), clipped)


def pooled_weights(ends: I64, weights: Doubles, pool: str) -> Floats:
    """(m,) what each value's row is multiplied by, so that a row's sum is the sum, the mean (by
    weight) or the sum by the root of the squared weights' sum (of n, where all are 1). Attention
    begins with the mean."""
    out = np.empty(len(weights), np.float32)
    _scale(ends, weights, 1 if pool in (MEAN, ATTENTION) else 2 if pool == SQRT else 0, out)
    return out


def pieces(values: Floats, knots: Sequence[float]) -> Floats:
    """(n, len(knots) - 1): how far a value has come through each piece, 0 to 1 (piecewise linear
    encoding, Gorishniy et al. 2022)."""
    at = np.array(knots, np.float64)
    way = (values.astype(np.float64)[:, None] - at[:-1]) / (at[1:] - at[:-1])
    through: Floats = np.clip(way, 0.0, 1.0).astype(np.float32)
    return through


def vectors(column: pa.Array, width: int) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """(n, width) and which rows have none, (n,): those have zeros. A vector of another width, which
    only a record from before the declaration can hold, counts as none."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    flat = column.flatten().to_numpy(zero_copy_only=False)
    has = np.diff(offsets) == width
    out = np.zeros((len(column), width), np.float64)
    at = (offsets[:-1] - offsets[0])[has]
    out[has] = flat[at[:, None] + np.arange(width)]
    return out, ~has


@kernel
def _cut(offsets: I64, most: int) -> tuple[I64, I64]:
    """(which values are taken, where rows end among them): the first of each row; of an empty one
    the value behind all."""
    rows = len(offsets) - 1
    ends = np.zeros(rows + 1, np.int64)
    for i in range(rows):
        ends[i + 1] = ends[i] + max(1, min(most, offsets[i + 1] - offsets[i]))
    take = np.empty(ends[rows], np.int64)
    for i in range(rows):
        for j in range(ends[i + 1] - ends[i]):
            take[ends[i] + j] = offsets[i] + j if offsets[i] + j < offsets[i + 1] else offsets[rows]
    return take, ends


@kernel
def _weigh(raw: Doubles, starts: I64, offsets: I64, ends: I64, out: Doubles) -> None:
    """The weights of the values that are taken; rows whose weights are not as many as their values
    keep 1."""
    for i in range(len(ends) - 1):
        count = starts[i + 1] - starts[i]
        if count > 0 and count == offsets[i + 1] - offsets[i]:
            for j in range(ends[i + 1] - ends[i]):
                out[ends[i] + j] = raw[starts[i] + j]


@kernel
def _scale(ends: I64, weights: Doubles, pool: int, out: Floats) -> None:
    for i in range(len(ends) - 1):
        total = 0.0
        for j in range(ends[i], ends[i + 1]):
            total += abs(weights[j]) if pool == 1 else weights[j] * weights[j]
        by = 1.0 if pool == 0 else total if pool == 1 else np.sqrt(total)
        for j in range(ends[i], ends[i + 1]):
            out[j] = weights[j] / by if by > 0.0 else 0.0
