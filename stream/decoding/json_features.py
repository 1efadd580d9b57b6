"""Features of many rows as JSON gave them, in lists of Python values, read into the columns that
`examples` has of them: what `decode` does of a log, for a request.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from stream.columns import (
    IMAGE,
    WEIGHTS,
    FeatureColumn,
    rounded,
    unequal_lengths,
)
from stream.decoding.event_faults import feature_faults, too_many_pixels

_NONE = type(None)
_SCALARS: dict[str, frozenset[type]] = {
    "string": frozenset({str, _NONE}),
    "binary": frozenset({str, bytes, _NONE}),
    "int64": frozenset({int, _NONE}),
    "double": frozenset({int, float, _NONE}),
}


class WrongValue(ValueError):
    """Carries the row, the field, and what is wrong with it and how to put it right."""

    def __init__(self, row: int, name: str, reason: str) -> None:
        super().__init__(f"row {row}, {name} {reason}")
        self.row, self.name, self.reason = row, name, reason


def given_features(
    features: Sequence[FeatureColumn], given: Mapping[str, Sequence[Any]], rows: int
) -> dict[str, pa.Array]:
    """By `FeatureColumn.column`, (rows,) each of its `type`, without nulls. `given`: by that name
    one value a row, None = missing; what is not there is missing in all. Raises WrongValue."""
    images = [f for f in features if f.kind == IMAGE and not f.stored]
    pictures = (one for f in images for one in given.get(f.column, ()))
    if (heavy := too_many_pixels(pictures, "request")) is not None:
        raise WrongValue(0, images[0].name, heavy[1])
    read = {f.column: _read(f, given.get(f.column, [None] * rows)) for f in features}
    for feature in features:
        if feature.kind != WEIGHTS or feature.weighted_column not in read:
            continue
        unequal = np.flatnonzero(
            unequal_lengths(read[feature.weighted_column], read[feature.column])
        )
        if len(unequal):
            _refuse(int(unequal[0]), feature, features, given)
    return {f.column: f.column_of(read[f.column]) for f in features}


def _read(feature: FeatureColumn, values: Sequence[Any]) -> pa.Array:
    """Of `wire_type`. Raises WrongValue."""
    wire = feature.wire_type
    try:
        if not _fits(values, wire):
            raise pa.ArrowInvalid("a value of another type")
        column = _column(values, wire)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        for row, value in enumerate(values):
            _check(row, feature, value)
        raise WrongValue(0, feature.name, f"cannot be read as {wire} ({error})") from error
    wrong = np.flatnonzero(feature.wrong(column))
    if len(wrong):
        _check(int(wrong[0]), feature, values[int(wrong[0])])
        raise AssertionError("a value is wrong by columns and right by itself")
    return column


def _column(values: Sequence[Any], wire: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, wire)
    except pa.ArrowInvalid:
        return pa.array([rounded(value, wire) for value in values], wire)


def _fits(values: Sequence[Any], wire: pa.DataType) -> bool:
    """Whether all values are of the types that JSON gives for this one: pyarrow takes a boolean for
    a number, and a string for a list."""
    if not pa.types.is_list(wire):
        return set(map(type, values)) <= _SCALARS[str(wire)]
    if not set(map(type, values)) <= {list, _NONE}:
        return False
    return _fits([one for value in values if value for one in value], wire.value_type)


def _check(row: int, feature: FeatureColumn, value: Any) -> None:
    """Raises WrongValue for one that is wrong by itself, whatever list weights belong to."""
    bag = {feature.name: value}
    if feature.kind == WEIGHTS and isinstance(value, list):
        bag[feature.weighted_name] = [""] * len(value)
    for name, reason in feature_faults(bag, (feature,)):
        raise WrongValue(row, name.removeprefix("features."), reason)


def _refuse(
    row: int,
    feature: FeatureColumn,
    features: Sequence[FeatureColumn],
    given: Mapping[str, Sequence[Any]],
) -> None:
    names = (feature.name, feature.weighted_name)
    bag = {f.name: given[f.column][row] for f in features if f.name in names and f.column in given}
    for name, reason in feature_faults(bag, tuple(features)):
        raise WrongValue(row, name.removeprefix("features."), reason)
