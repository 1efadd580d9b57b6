"""Sums of scored rows by the values of a column, so that a model that is worse for one vendor or
country is seen."""

from collections.abc import Mapping
from typing import Any

#: column -> value -> [rows, log loss, predictions, labels], sums
Slices = Mapping[str, Mapping[str, list[float]]]

SUMS = 4
#: Values of one column that a sum keeps; further ones go to `OTHER`.
VALUES_MAX = 256
OTHER = "other"


def joined(one: Slices, more: Slices) -> dict[str, dict[str, list[float]]]:
    """The sums of both."""
    out = {
        column: {value: list(sums) for value, sums in values.items()}
        for column, values in one.items()
    }
    for column, values in more.items():
        mine = out.setdefault(column, {})
        for value, sums in values.items():
            at = value if value in mine or len(mine) < VALUES_MAX else OTHER
            mine[at] = [a + b for a, b in zip(mine.get(at, [0.0] * SUMS), sums, strict=True)]
    return out


def read(body: Any) -> dict[str, dict[str, list[float]]]:
    """What a record of `evaluations` says. ValueError or TypeError for what is no such sums, or
    not finite."""
    out: dict[str, dict[str, list[float]]] = {}
    for column, values in (body or {}).items():
        out[str(column)] = {str(value): _sums(sums) for value, sums in values.items()}
    return out


def _sums(sums: Any) -> list[float]:
    found = [float(number) for number in sums]
    if len(found) != SUMS or not all(abs(number) < float("inf") for number in found):
        raise ValueError(f"{sums!r}: expected {SUMS} finite sums")
    return found
