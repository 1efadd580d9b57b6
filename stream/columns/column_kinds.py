"""Kinds of columns, a class each: all that is known of the values of a feature that travels.

An impression is read from a log to be learned, and from a request to be answered. What types its
columns have, what stands for a missing value, which values are wrong, by columns, and what is wrong
with one of them, in words, is said here for both, so that a model is asked in the numbers that it
has learned. Property tests hold log and request together bit for bit, and columns and words.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from stream.columns.pictures import DIGEST, GIVEN_BYTES_MAX, squared
from stream.columns.value_faults import (
    STRING_BYTES_MAX,
    TS_MS_MAX,
    TS_MS_MIN,
    Fault,
    float_faults,
    integer_faults,
    is_nan,
    shown,
    string_faults,
    time_faults,
)
from stream.columns.values import NO_TIME, byte_lengths, floats, list_lengths, offsets_of, strings
from stream.kernels import Bools

CATEGORICAL, NUMERIC, TEXT, TIME = "categorical", "numeric", "text", "time"
LIST, WEIGHTS, VECTOR, IMAGE = "list", "weights", "vector", "image"
#: The longest text, in UTF-8 bytes; the most values of a list; the widest vector.
TEXT_BYTES_MAX, LIST_VALUES_MAX, VECTOR_WIDTH_MAX = 16_384, 1_024, 4_096


class ColumnKind(ABC):
    """What the values of a column are."""

    type: pa.DataType  # of the column in tables and in `examples`
    wire_type: pa.DataType  # as an event or a request gives it
    missing: str | bytes | float | list[Any]  # the value of an impression that has none
    #: The longest value that is right, in bytes, beside 8 of each row; None = as long as its
    #: record.
    bytes_max: int | None = 0

    @abstractmethod
    def column(self, given: pa.Array) -> pa.Array:
        """(n,) of `type`, without nulls, of what was given, (n,) of `wire_type`, when what is
        wrong has been sorted out."""

    def wrong(self, given: pa.Array) -> Bools:
        """Which rows, (n,), give what it cannot be; `given` of `wire_type`."""
        return np.zeros(len(given), np.bool_)

    @abstractmethod
    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        """What is wrong with one value, as JSON gives it and not null."""


class StringColumn(ColumnKind):
    """A string of so many bytes in UTF-8; a missing one is ""."""

    type = wire_type = pa.string()
    missing = ""

    def __init__(self, kind: str, bytes_max: int):
        self._kind, self.bytes_max = kind, bytes_max
        self._most = bytes_max

    def column(self, given: pa.Array) -> pa.Array:
        return strings(given)

    def wrong(self, given: pa.Array) -> Bools:
        return byte_lengths(given) > self._most

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        if isinstance(value, list):
            fix = "send one string, or declare it a list"
            yield name, f"is {shown(value)}; it is declared {self._kind}: {fix}"
        else:
            yield from string_faults(name, value, needed=False, bytes_max=self._most)


class IntegerColumn(ColumnKind):
    """A category that is sent as an integer, and travels as its digits."""

    type, wire_type = pa.string(), pa.int64()
    missing = ""
    bytes_max = STRING_BYTES_MAX

    def column(self, given: pa.Array) -> pa.Array:
        return strings(given.cast(pa.string()))

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        yield from integer_faults(name, value, "it is declared of type integer")


class NumberColumn(ColumnKind):
    """float32; a missing one is NaN."""

    type, wire_type = pa.float32(), pa.float64()
    missing = float("nan")

    def column(self, given: pa.Array) -> pa.Array:
        return pa.array(floats(given))

    def wrong(self, given: pa.Array) -> Bools:
        infinite: Bools = np.isinf(floats(given))
        return infinite

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        if not is_nan(value):
            yield from float_faults(name, value, "it is declared numeric: send a number")


class TimeColumn(ColumnKind):
    """Milliseconds since 1970; a missing one is `NO_TIME`."""

    type = wire_type = pa.int64()
    missing = NO_TIME

    def column(self, given: pa.Array) -> pa.Array:
        return given.fill_null(NO_TIME) if given.null_count else given

    def wrong(self, given: pa.Array) -> Bools:
        times = given.fill_null(TS_MS_MIN).to_numpy(False)
        outside: Bools = (times < TS_MS_MIN) | (times >= TS_MS_MAX)
        return outside

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        yield from time_faults(name, value)


class ListColumn(ColumnKind):
    """Strings, or integers that travel as their digits; a missing list has no values."""

    type = pa.list_(pa.string())
    bytes_max = None

    def __init__(self, integers: bool):
        self._integers = integers
        self.wire_type = pa.list_(pa.int64() if integers else pa.string())
        self.missing = []

    def column(self, given: pa.Array) -> pa.Array:
        values = given.flatten()  # of the lists that are none
        values = values.cast(pa.string()) if self._integers else values
        return pa.ListArray.from_arrays(offsets_of(given), values, type=self.type)

    def wrong(self, given: pa.Array) -> Bools:
        values = given.flatten()
        one_wrong = values.is_null().to_numpy(False)
        if not self._integers:
            one_wrong |= byte_lengths(values) > STRING_BYTES_MAX
        return _with_wrong_values(list_lengths(given) > LIST_VALUES_MAX, given, one_wrong)

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        of = "integers" if self._integers else "strings"
        if not isinstance(value, list):
            yield name, f"is {shown(value)}; it is declared {LIST}: send a list of {of}"
            return
        if len(value) > LIST_VALUES_MAX:
            yield name, f"has {len(value)} values; send at most {LIST_VALUES_MAX}"
        for i, one in enumerate(value):
            at = f"{name}[{i}]"
            if one is None:
                yield _null_fault(at, of)
            elif self._integers:
                yield from integer_faults(at, one, "the list is declared of type integer")
            else:
                yield from string_faults(at, one, needed=True)


class NumbersColumn(ColumnKind):
    """A list of float32; a missing one has none. `width`: so many, or none; 0 = as many as come,
    up to LIST_VALUES_MAX."""

    type, wire_type = pa.list_(pa.float32()), pa.list_(pa.float64())
    bytes_max = None

    def __init__(self, kind: str, width: int):
        self._kind, self._width = kind, width
        self.missing = []

    def column(self, given: pa.Array) -> pa.Array:
        values = pa.array(floats(given.flatten()))
        return pa.ListArray.from_arrays(offsets_of(given), values, type=self.type)

    def wrong(self, given: pa.Array) -> Bools:
        lengths = list_lengths(given)
        by_width: Bools = (lengths > 0) & (lengths != self._width)
        wrong = by_width if self._width else lengths > LIST_VALUES_MAX
        return _with_wrong_values(wrong, given, ~np.isfinite(floats(given.flatten())))

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield name, f"is {shown(value)}; it is declared {self._kind}: send a list of numbers"
            return
        if self._width and value and len(value) != self._width:
            yield (
                name,
                f"has {len(value)} numbers; it is declared of width {self._width}: send so many, "
                f"or leave it out",
            )
        elif not self._width and len(value) > LIST_VALUES_MAX:
            yield name, f"has {len(value)} values; send at most {LIST_VALUES_MAX}"
        for i, one in enumerate(value):
            at = f"{name}[{i}]"
            if one is None:
                yield _null_fault(at, "numbers")
            else:
                yield from float_faults(at, one, "send a number")


class PictureColumn(ColumnKind):
    """A picture's file, which travels as `pictures.SQUARED_BYTES`: its pixels; a missing one has no
    bytes. A `forgiving` column takes what is no picture for missing."""

    type = wire_type = pa.binary()
    missing = b""
    bytes_max = GIVEN_BYTES_MAX

    def __init__(self, forgiving: bool):
        self._forgiving = forgiving

    def column(self, given: pa.Array) -> pa.Array:
        found = [squared(one).pixels if one else b"" for one in given.to_pylist()]
        return pa.array(found, self.type)

    def wrong(self, given: pa.Array) -> Bools:
        if self._forgiving:
            return super().wrong(given)
        return np.array([bool(one and squared(one).wrong) for one in given.to_pylist()], np.bool_)

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        file = _encoded(value)
        if file is None:
            yield name, f"is {shown(value)}; send the base64 of a picture's file"
        elif not isinstance(file, bytes):
            fix = "send its file's base64 as a string"
            yield name, f"is {shown(file)}; it is declared image: {fix}"
        elif file and not self._forgiving and (wrong := squared(file).wrong):
            yield name, wrong


class DigestColumn(ColumnKind):
    """The SHA-256 of a picture's file in a store, 64 hexadecimal digits; a missing one is ""."""

    type = wire_type = pa.string()
    missing = ""
    bytes_max = GIVEN_BYTES_MAX

    def column(self, given: pa.Array) -> pa.Array:
        return strings(given)

    def wrong(self, given: pa.Array) -> Bools:
        import pyarrow.compute as pc  # not before something is computed

        digests: Bools = pc.match_substring_regex(given, DIGEST).fill_null(True).to_numpy(False)
        return ~digests & (byte_lengths(given) > 0)

    def faults(self, name: str, value: Any) -> Iterator[Fault]:
        digest = _encoded(value)
        if not isinstance(digest, bytes) or (digest and not re.fullmatch(DIGEST.encode(), digest)):
            yield (
                name,
                f"is {shown(value)}; send the SHA-256 of the picture's file in the store, 64 "
                f"hexadecimal digits in lower case: no address is fetched",
            )


def _with_wrong_values(wrong: Bools, given: pa.Array, one_wrong: Bools) -> Bools:
    """Which lists are wrong, (n,): those, and the ones that hold a wrong value, of (m,)."""
    if one_wrong.any():
        wrong[np.repeat(np.arange(len(given)), list_lengths(given))[one_wrong]] = True
    return wrong


def _null_fault(at: str, of: str) -> Fault:
    return at, f"is null; leave it out, or send one of the {of}"


def _encoded(value: Any) -> Any:
    """The bytes of a string; None = it holds half of a character. Others as they are."""
    if not isinstance(value, str):
        return value
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None


class Declared(Protocol):
    """What the values of a column may depend on."""

    @property
    def integers(self) -> bool: ...
    @property
    def width(self) -> int: ...
    @property
    def forgiving(self) -> bool: ...
    @property
    def stored(self) -> bool: ...


#: By name, what makes each of what is declared.
COLUMN_KINDS: dict[str, Callable[[Declared], ColumnKind]] = {
    CATEGORICAL: lambda of: (
        IntegerColumn() if of.integers else StringColumn(CATEGORICAL, STRING_BYTES_MAX)
    ),
    NUMERIC: lambda of: NumberColumn(),
    TEXT: lambda of: StringColumn(TEXT, TEXT_BYTES_MAX),
    TIME: lambda of: TimeColumn(),
    LIST: lambda of: ListColumn(of.integers),
    WEIGHTS: lambda of: NumbersColumn(WEIGHTS, 0),
    VECTOR: lambda of: NumbersColumn(VECTOR, of.width),
    IMAGE: lambda of: DigestColumn() if of.stored else PictureColumn(of.forgiving),
}
