"""Sums of scored rows by the values of a column, so that a model that is worse for one vendor or
country is seen."""

from collections.abc import Mapping
from typing import Any

from learners import SLICES_MAX

#: column -> value -> [rows, log loss, predictions, labels], sums
Slices = Mapping[str, Mapping[str, list[float]]]

SUMS = 4
#: No sum over one batch is larger: so many of them stay finite.
SUM_MAX = 1 << 50
#: Values of one column that a sum keeps; further ones, and those of longer names, go to `OTHER`.
VALUES_MAX = 256
NAME_BYTES_MAX = 1_024
OTHER = "other"


def joined(one: Slices, more: Slices) -> dict[str, dict[str, list[float]]]:
    """The sums of both; of columns beyond the first `SLICES_MAX` none."""
    out = {
        column: {value: list(sums) for value, sums in values.items()}
        for column, values in one.items()
    }
    for column, values in more.items():
        if column not in out and len(out) >= SLICES_MAX:
            continue
        mine = out.setdefault(column, {})
        for value, sums in values.items():
            at = value if value in mine or _has_room(mine, value) else OTHER
            mine[at] = [a + b for a, b in zip(mine.get(at, [0.0] * SUMS), sums, strict=True)]
    return out


def _has_room(mine: Mapping[str, list[float]], value: str) -> bool:
    return _size(value) <= NAME_BYTES_MAX and len(mine) < VALUES_MAX


def read(body: Any) -> dict[str, dict[str, list[float]]]:
    """What a record of `evaluations` says. ValueError, TypeError or AttributeError for what is no
    such sums, or more than a learner says of one batch."""
    columns = body or {}
    if len(columns) > SLICES_MAX or any(_size(name) > NAME_BYTES_MAX for name in columns):
        raise ValueError(
            f"{len(columns)} columns, allowed are {SLICES_MAX} of names of {NAME_BYTES_MAX} bytes"
        )
    said = {
        str(column): {str(value): _sums(sums) for value, sums in values.items()}
        for column, values in columns.items()
    }
    return joined({}, said)


def _size(name: str) -> int:
    """Bytes of a name. ValueError where it is not UTF-8."""
    return len(name.encode())


def _sums(sums: Any) -> list[float]:
    found = [float(number) for number in sums]
    if len(found) != SUMS or not all(abs(number) <= SUM_MAX for number in found):
        raise ValueError(f"{sums!r:.80}: expected {SUMS} sums of up to {SUM_MAX}")
    return found
