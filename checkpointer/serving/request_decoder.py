"""From the bytes of a `POST /predict`, or a request of another form, to `answer.Values`.

The usual request, rows (and a context) of strings and numbers that the model knows by name, is read
in one pass over its bytes (`checkpointer.json_rows`). What that does not understand is read again
as any JSON is: it may be in columns, or have features that are ignored, or be wrong, and then the
message says what is (`request`).
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from checkpointer.json_rows import (
    BAG,
    FEATURES,
    NUMBER,
    PASSED,
    PLACE,
    ROW,
    STRING,
    FieldName,
    FieldNames,
    names_of,
    read_request,
)
from checkpointer.serving.answer import Values
from checkpointer.serving.request import (
    CARRIED,
    IDENTIFIERS,
    POSITION,
    SHOWN_AT,
    Given,
    checked_column,
    given,
    request_of,
)
from learners.models import TextEncoder, hash_text
from stream.columns import FEATURE_PREFIX, STRING_BYTES_MAX, Features

Numbers = npt.NDArray[np.float64]

#: Shapes kept, each for the names that contexts give.
_SHAPES_MAX = 32
#: Ends a value, where no value holds it; else the byte that no UTF-8 holds does.
_MARK, _NO_UTF8 = 0, 0xFF
#: Room for a string with escapes: one that needs more is too long.
_SCRATCH_BYTES = STRING_BYTES_MAX + 8


class Decoded(NamedTuple):
    values: Values
    ignored: tuple[str, ...] = ()


class RequestDecoder:
    """Decodes the requests of one model. Threads may share it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._features: Features = encoder.features
        self._shapes = lru_cache(_SHAPES_MAX)(encoder.shape)
        #: a position that is hashed is the text of a number: read as any JSON is
        self._is_read_at_once = SHOWN_AT not in encoder.strings
        self._names = _names(encoder) if self._is_read_at_once else None
        self._nowhere = len(encoder.numeric) - 1 if SHOWN_AT in encoder.numeric else -1

    def decode(self, body: bytes, rows_max: int) -> Decoded:
        """Raises BadRequest."""
        values = None if self._names is None else self._read(self._names, body, rows_max)
        if values is not None:
            return Decoded(values)
        return self.of_given(given(body, self._features, rows_max))

    def of_given(self, asked: Given) -> Decoded:
        """Raises BadRequest."""
        shared = tuple(n for n in self._encoder.strings if _column(n) in asked.shared)
        own = [n for n in self._encoder.strings if n not in shared]
        try:
            flat: list[str] = []
            for name in (*shared, *own):
                flat += _texts(name, (asked.shared if name in shared else asked.own)[_column(name)])
            numbers = np.empty((asked.rows, len(self._encoder.numeric)), np.float64)
            for g, name in enumerate(self._encoder.numeric):
                numbers[:, g] = _numbers(name, (asked.own | asked.shared)[_column(name)])
            checked_column(SHOWN_AT, (asked.own | asked.shared)[SHOWN_AT])
            values = self._hashed(flat, asked.rows, shared, numbers)
        except (_Misfit, UnicodeError):
            request_of(asked, self._features)  # says what is wrong
            raise
        return Decoded(values, asked.ignored)

    def _read(self, names: FieldNames, body: bytes, rows_max: int) -> Values | None:
        """In one pass; None = it is to be read as any JSON is."""
        if not body.isascii() and not _is_utf8(body):
            return None
        low, high, stated, missing, *_ = self._encoder.parts
        room = 1 + min(body.count(b"{"), rows_max)
        parts, own = np.zeros((room, len(low)), np.uint64), np.empty(len(low), np.bool_)
        numbers = np.empty((room, len(self._encoder.numeric)))
        numbers.fill(np.nan)
        rows = read_request(
            np.frombuffer(body, np.uint8), *names, low, high, stated, missing, self._nowhere,
            np.empty(_SCRATCH_BYTES, np.uint8), parts, own, numbers,
        )  # fmt: skip
        if rows < 0:
            return None
        numbers = numbers[1 : 1 + rows]
        if numbers.size:
            try:
                numbers = _narrow(numbers)
            except _Misfit:
                return None
        return Values(rows, parts[: 1 + rows], own, numbers)

    def _hashed(
        self, flat: list[str], count: int, shared: tuple[str, ...], numbers: Numbers
    ) -> Values:
        """Raises _Misfit for a string that is too long, UnicodeEncodeError for half a surrogate
        pair."""
        low, high, stated, *_ = self._encoder.parts
        text, mark = _text(flat)
        shape = self._shapes(shared)
        parts = np.zeros((1 + count, len(low)), np.uint64)
        parts[0] = stated
        at, longest = hash_text(text, mark, 0, shape.shared, low, high, parts[:1])
        end, of_rows = hash_text(text, mark, at, shape.own, low, high, parts[1:])
        if end != len(text):
            raise ValueError(f"a text of other values than {count} rows have")
        if max(longest, of_rows) > STRING_BYTES_MAX:
            raise _Misfit
        parts[1:, ~shape.is_own] = parts[0, ~shape.is_own]
        return Values(count, parts, shape.is_own, numbers)


class _Misfit(ValueError):
    """A value of another kind than is read here."""


def _names(encoder: TextEncoder) -> FieldNames:
    row = {name: FieldName(STRING, encoder.part_of(name)) for name in IDENTIFIERS}
    row |= {name: FieldName(PASSED, -1) for name in CARRIED}
    columns = {name: g for g, name in enumerate(encoder.numeric)}
    row |= {POSITION: FieldName(PLACE, columns.pop(SHOWN_AT, -1)), "features": FieldName(BAG, -1)}
    bag = {
        n: FieldName(STRING, encoder.part_of(n)) for n in encoder.strings if n not in IDENTIFIERS
    }
    bag |= {name: FieldName(NUMBER, g) for name, g in columns.items()}
    return names_of({ROW: row, FEATURES: bag})


def _column(name: str) -> str:
    return name if name in (*IDENTIFIERS, SHOWN_AT) else FEATURE_PREFIX + name


def _texts(name: str, values: list[Any]) -> list[str]:
    if name == SHOWN_AT:
        return [str(value) for value in checked_column(SHOWN_AT, values).to_pylist()]
    if not set(map(type, values)) <= {str, type(None)}:
        raise _Misfit
    return [value or "" for value in values]


def _numbers(name: str, values: list[Any]) -> Numbers:
    if name == SHOWN_AT:
        places: Numbers = checked_column(SHOWN_AT, values).to_numpy().astype(np.float64)
        return places
    if not set(map(type, values)) <= {int, float, type(None)}:
        raise _Misfit
    try:
        return _narrow(np.array(values, np.float64))
    except OverflowError as error:
        raise _Misfit from error


def _narrow(numbers: Numbers) -> Numbers:
    """To 32 bits, as every number is; what they do not hold does not fit."""
    with np.errstate(over="ignore"):
        narrow: Numbers = numbers.astype(np.float32).astype(np.float64)
    if np.isinf(narrow).any():
        raise _Misfit
    return narrow


def _text(flat: list[str]) -> tuple[npt.NDArray[np.uint8], int]:
    """The values behind each other, and the byte that ends each."""
    data = "".join(value + chr(_MARK) for value in flat).encode()
    if data.count(_MARK) == len(flat):
        return np.frombuffer(data, np.uint8), _MARK
    data = b"".join(value.encode() + bytes((_NO_UTF8,)) for value in flat)
    return np.frombuffer(data, np.uint8), _NO_UTF8


def _is_utf8(body: bytes) -> bool:
    try:
        str(body, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
