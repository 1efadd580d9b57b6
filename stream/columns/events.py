"""Impressions and clicks in memory: columns of equal length, in log order.

What the join works on is numpy (positions, times, 64-bit hashes); what only travels on to
`examples` stays in one Arrow table. No column holds a null: a missing string is "", a missing
number NaN, a missing hash 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.columns.column_kinds import (
    CATEGORICAL,
    COLUMN_KINDS,
    LIST,
    VECTOR,
    WEIGHTS,
    ColumnKind,
)
from stream.columns.value_faults import Fault
from stream.kernels import I64, U64, Bools

RowIndex = slice | I64

#: The column of a list's weights is called as the list, and this behind it.
WEIGHTS_SUFFIX = "_weights"
#: Prefix of a feature's column in tables and in `examples`.
FEATURE_PREFIX = "f_"


@dataclass(frozen=True)
class FeatureColumn:
    """A column of features: what of a declared one travels with an impression.

    | kind | column | missing |
    |---|---|---|
    | categorical, text | string | "" |
    | numeric | float32 | NaN |
    | time (milliseconds since 1970) | int64 | 0 |
    | list | list of strings | no values |
    | weights (one a value of the list of that name without `_weights`) | list of float32 | none |
    | vector (`width` numbers) | list of float32 | no numbers |
    | image (`pictures.SQUARED_BYTES`: its pixels) | binary | no bytes |

    A `personal` one identifies a person (a user id, a device): our producer pseudonymises it. With
    `integers`, categories and values of lists are sent as integers, and travel as their digits. A
    `forgiving` image counts as missing where it is none; a `stored` one is the SHA-256 of its file,
    64 hexadecimal digits, and a string. `alias` is the name that it had, by which it is read as
    well.
    """

    name: str
    kind: str
    personal: bool = False
    integers: bool = False
    width: int = 0
    forgiving: bool = False
    stored: bool = False
    alias: str = ""

    def __post_init__(self) -> None:
        if self.kind not in COLUMN_KINDS:
            raise ValueError(
                f"feature {self.name!r}: kind {self.kind!r}, allowed are {', '.join(COLUMN_KINDS)}"
            )
        if not self.name.isidentifier():
            raise ValueError(
                f"feature {self.name!r}: a name is letters, digits and underscores, not starting "
                f"with a digit"
            )
        if self.personal and (self.kind != CATEGORICAL or self.integers):
            raise ValueError(
                f"feature {self.name!r}: a personal feature is categorical and a string, not "
                f"{'integers' if self.integers else repr(self.kind)}"
            )

    @property
    def column(self) -> str:
        """Its name in tables."""
        return FEATURE_PREFIX + self.name

    @property
    def alias_column(self) -> str:
        """In an older record; "" = it had no other name."""
        return FEATURE_PREFIX + self.alias if self.alias else ""

    @property
    def is_plain_string(self) -> bool:
        """Whether it is one string of at most STRING_BYTES_MAX."""
        return self.kind == CATEGORICAL and not self.integers

    @property
    def is_list(self) -> bool:
        """Whether it is a list of values."""
        return self.kind in (LIST, WEIGHTS, VECTOR)

    @property
    def weighted_name(self) -> str:
        """Of weights: the list that they belong to."""
        return self.name.removesuffix(WEIGHTS_SUFFIX)

    @property
    def weighted_column(self) -> str:
        """Of weights: the column of the list that they belong to."""
        return FEATURE_PREFIX + self.weighted_name

    @cached_property
    def _kind(self) -> ColumnKind:
        return COLUMN_KINDS[self.kind](self)

    @property
    def type(self) -> pa.DataType:
        """Of the column in tables and in `examples`."""
        return self._kind.type

    @property
    def wire_type(self) -> pa.DataType:
        """As an event or a request gives it."""
        return self._kind.wire_type

    @property
    def missing(self) -> str | bytes | float | list[Any]:
        """The value of an impression that has none (the table above)."""
        return self._kind.missing

    @property
    def bytes_max(self) -> int | None:
        """The longest value that is right, in bytes, beside 8 of each row; None = as long as its
        record."""
        return self._kind.bytes_max

    def column_of(self, given: pa.Array) -> pa.Array:
        """(n,) of `type`, without nulls, of what was given, (n,) of `wire_type`. What `wrong` finds
        must have been sorted out."""
        return self._kind.column(given)

    def wrong(self, given: pa.Array) -> Bools:
        """Which rows, (n,), give it what it cannot be; `given` of its `wire_type`. `faults` says
        what is wrong with one."""
        return self._kind.wrong(given)

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        """What is wrong with one value, called `name`, as JSON gives it and not null."""
        return self._kind.faults(name, value)


Features = tuple[FeatureColumn, ...]


def impression_schema(features: Iterable[FeatureColumn]) -> pa.Schema:
    """Schema of `Impressions.table`: what travels on, without the numpy columns."""
    fixed = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("shown_at", pa.int32(), nullable=False),
        pa.field("prediction", pa.float32(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
    ]
    return pa.schema(fixed + [pa.field(f.column, f.type, nullable=False) for f in features])


def click_schema() -> pa.Schema:
    """Schema of `Clicks.table`."""
    return pa.schema(
        [
            pa.field("source", pa.string(), nullable=False),
            pa.field("vendor", pa.string(), nullable=False),
        ]
    )


@dataclass(frozen=True, eq=False)
class Events:
    """Equally long columns. `position` rises strictly (T4), `arrival_ms` never falls (T1)."""

    position: I64
    arrival_ms: I64
    ts_ms: I64
    id: U64  # hash of (key, id): `stream.hashing.keys.hash_pair`
    source_hash: U64  # `stream.hashing.keys.hash_strings` of the string; 0 = not given
    vendor_hash: U64
    table: pa.Table

    def __len__(self) -> int:
        return len(self.position)

    def slice(self, start: int, end: int) -> Self:
        """Rows `[start, end)`, sharing memory."""
        return self._rows(slice(start, end), self.table.slice(start, max(0, end - start)))

    def take(self, rows: npt.NDArray[np.int64]) -> Self:
        """The rows of these indices, copied."""
        return self._rows(rows, self.table.take(pa.array(rows)))

    def filter(self, keep: npt.NDArray[np.bool_]) -> Self:
        """The rows where `keep` is true, copied; itself when all are."""
        return self if bool(keep.all()) else self.take(np.flatnonzero(keep))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of all parts, in their order. Raises ValueError without parts, whose schema
        would be unknown."""
        if not parts:
            raise ValueError(f"{cls.__name__}.concat: no parts")
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.arrival_ms for part in parts]),
            np.concatenate([part.ts_ms for part in parts]),
            np.concatenate([part.id for part in parts]),
            np.concatenate([part.source_hash for part in parts]),
            np.concatenate([part.vendor_hash for part in parts]),
            pa.concat_tables([part.table for part in parts]),
        )

    def _rows(self, rows: RowIndex, table: pa.Table) -> Self:
        return type(self)(
            self.position[rows],
            self.arrival_ms[rows],
            self.ts_ms[rows],
            self.id[rows],
            self.source_hash[rows],
            self.vendor_hash[rows],
            table,
        )


@dataclass(frozen=True, eq=False)
class Impressions(Events):
    """Impressions of one partition. `table` has `impression_schema(features)`."""

    @classmethod
    def empty(cls, features: Iterable[FeatureColumn]) -> "Impressions":
        return cls(*_no_rows(), impression_schema(features).empty_table())


@dataclass(frozen=True, eq=False)
class Clicks(Events):
    """Clicks of one partition; `id` is that of the impression. `table` has `click_schema()`."""

    @classmethod
    def empty(cls) -> "Clicks":
        return cls(*_no_rows(), click_schema().empty_table())


def _no_rows() -> tuple[I64, I64, I64, U64, U64, U64]:
    signed, unsigned = np.empty(0, np.int64), np.empty(0, np.uint64)
    return signed, signed, signed, unsigned, unsigned, unsigned
