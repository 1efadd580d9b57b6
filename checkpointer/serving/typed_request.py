"""From the bytes of a `POST /predict` to `answer.Values`, without an array a column.

The usual request, rows (and a context) of features that the model knows, is decoded by types made
of the model's features: one pass over the bytes, and each row's values in one tuple. What does not
fit these types is read again as any JSON is: it may be in columns, or have features that are
ignored, or be wrong, and then the message says what is (`request`).
"""

import contextlib
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import asdict, astuple

from checkpointer.serving.answer import Values
from checkpointer.serving.request import (
    IDENTIFIERS,
    SHOWN_AT,
    BadRequest,
    Given,
    check_extent,
    checked_column,
    given,
    request_of,
)
from learners.models import TextEncoder, TextShape
from stream.columns import FEATURE_PREFIX, NO_POSITION, Features

Numbers = npt.NDArray[np.float64]

_CONTEXT = b'"context"'
#: Decoders kept, each for the names that contexts give.
_SHAPES_MAX = 32
#: Ends a value, where no value holds it; else the byte that no UTF-8 holds does.
_MARK, _NO_UTF8 = 0, 0xFF
_NAN = float("nan")
_Position = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class Decoded(NamedTuple):
    values: Values
    ignored: tuple[str, ...] = ()


class RequestDecoder:
    """Decodes the requests of one model. Threads may share it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._features: Features = encoder.features
        self._typed = lru_cache(_SHAPES_MAX)(lambda shared: _Typed(encoder, shared))
        self._shapes = lru_cache(_SHAPES_MAX)(encoder.shape)
        #: a position that is hashed is the text of a number: read as any JSON is
        self._is_typed = SHOWN_AT not in encoder.strings
        plain = self._plain = _Typed(encoder, frozenset())
        self._rows = _decoder(rows=list[plain.row])  # type: ignore[name-defined]
        self._parts = _decoder(rows=msgspec.Raw, context=_row_type(encoder, frozenset(), False))

    def decode(self, body: bytes, rows_max: int) -> Decoded:
        """Raises BadRequest."""
        check_extent(body, rows_max)
        if self._is_typed:
            # What is not of the types is read as any JSON is, which says what is wrong with it.
            with contextlib.suppress(msgspec.MsgspecError, RecursionError, UnicodeError, _Untyped):
                return Decoded(self._decoded(body, rows_max))
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
            values = _values(flat, asked.rows, self._shapes(shared), True, numbers)
        except (_Untyped, UnicodeError):
            request_of(asked, self._features)  # says what is wrong
            raise
        return Decoded(values, asked.ignored)

    def _decoded(self, body: bytes, rows_max: int) -> Values:
        if _CONTEXT not in body:
            return self._of_rows(self._plain, self._rows.decode(body).rows, {}, rows_max)
        parts = self._parts.decode(body)
        shared = _given_by(parts.context)
        typed = self._typed(frozenset(shared))
        return self._of_rows(typed, typed.rows.decode(parts.rows), shared, rows_max)

    def _of_rows(
        self, typed: "_Typed", rows: list[Any], shared: dict[str, Any], rows_max: int
    ) -> Values:
        if len(rows) > rows_max:
            raise BadRequest(f"body: {len(rows)} rows; send at most {rows_max} in one request")
        flat: list[Any] = [shared[name] for name in typed.shared_strings]
        numbers: list[Any] = []
        strings, ids, bare = typed.strings, typed.ids, not typed.numeric
        try:
            for row in rows:
                bag = astuple(row.features)
                flat += ids(row)
                if bare:
                    flat += bag
                else:
                    flat += bag[:strings]
                    numbers += bag[strings:]
        except TypeError as error:  # no features at all, said by null
            raise _Untyped from error
        given_numbers = np.empty((len(rows), len(self._encoder.numeric)), np.float64)
        own = np.array(numbers, np.float64).reshape(len(rows), len(typed.numeric))
        for g, name in enumerate(self._encoder.numeric):
            if name in typed.numeric:
                given_numbers[:, g] = own[:, typed.numeric.index(name)]
            elif name == SHOWN_AT and name not in shared:
                places = [row.position for row in rows]
                given_numbers[:, g] = [NO_POSITION if p is None else p for p in places]
            else:
                given_numbers[:, g] = shared[name]
        return _values(flat, len(rows), typed.shape, False, _narrow(given_numbers))


class _Untyped(ValueError):
    """It does not fit the types."""


class _Typed:
    """How rows are decoded beside a context that gives `shared`, names of `TextEncoder.strings`
    and `.numeric`."""

    def __init__(self, encoder: TextEncoder, shared: frozenset[str]) -> None:
        self.shared_strings = tuple(name for name in encoder.strings if name in shared)
        self.shape: TextShape = encoder.shape(self.shared_strings)
        self.row = _row_type(encoder, shared, True)
        self.rows = msgspec.json.Decoder(list[self.row])  # type: ignore[name-defined]
        own_ids = [name for name in IDENTIFIERS if name not in shared]
        self.ids = _getter(own_ids)
        self.strings = sum(n not in shared for n in encoder.strings[len(IDENTIFIERS) :])
        self.numeric = [n for n in encoder.numeric if n not in shared and n != SHOWN_AT]


def _getter(names: list[str]) -> Any:
    """row -> the tuple of these fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda row: (getattr(row, names[0]),)) if names else (lambda row: ())


def _row_type(encoder: TextEncoder, shared: frozenset[str], is_row: bool) -> Any:
    """A row without the shared fields. Missing values are "" and NaN; of a context, where what is
    given counts, they are None."""
    text, number = ("", _NAN) if is_row else (None, None)
    strings = [n for n in encoder.strings[len(IDENTIFIERS) :] if n not in shared]
    numeric = [n for n in encoder.numeric if n not in shared and n != SHOWN_AT]
    names = [n for n in (*strings, *numeric) if n != SHOWN_AT]
    fields = [(f"f{i}", (str if n in strings else float) | None) for i, n in enumerate(names)]
    bag = msgspec.defstruct(
        "Features",
        [(f, kind, text if kind == str | None else number) for f, kind in fields],
        rename={f: name for (f, _), name in zip(fields, names, strict=True)},
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.defstruct(
        "Row",
        [
            *((name, str | None, text) for name in IDENTIFIERS if name not in shared),
            *((("position", _Position | None, None),) if SHOWN_AT not in shared else ()),
            *((name, Any, None) for name in ("id", "ts_ms", "session")),
            ("features", bag | None, msgspec.field(default_factory=bag)),
        ],
        forbid_unknown_fields=True,
    )


def _decoder(**fields: Any) -> "msgspec.json.Decoder[Any]":
    made = msgspec.defstruct("Request", list(fields.items()), forbid_unknown_fields=True)
    return msgspec.json.Decoder(made)


def _given_by(context: Any) -> dict[str, Any]:
    """Name -> value of what a context gives."""
    found = {name: getattr(context, name) for name in IDENTIFIERS}
    found[SHOWN_AT] = context.position
    if context.features is not None:
        names = {f.name: f.encode_name for f in msgspec.structs.fields(context.features)}
        found |= {names[f]: value for f, value in asdict(context.features).items()}
    return {name: value for name, value in found.items() if value is not None}


def _column(name: str) -> str:
    return name if name in (*IDENTIFIERS, SHOWN_AT) else FEATURE_PREFIX + name


def _texts(name: str, values: list[Any]) -> list[str]:
    if name == SHOWN_AT:
        return [str(value) for value in checked_column(SHOWN_AT, values).to_pylist()]
    if not set(map(type, values)) <= {str, type(None)}:
        raise _Untyped
    return [value or "" for value in values]


def _numbers(name: str, values: list[Any]) -> Numbers:
    if name == SHOWN_AT:
        places: Numbers = checked_column(SHOWN_AT, values).to_numpy().astype(np.float64)
        return places
    if not set(map(type, values)) <= {int, float, type(None)}:
        raise _Untyped
    try:
        return _narrow(np.array(values, np.float64))
    except OverflowError as error:
        raise _Untyped from error


def _narrow(numbers: Numbers) -> Numbers:
    """To 32 bits, as every number is; what they do not hold does not fit."""
    with np.errstate(over="ignore"):
        narrow: Numbers = numbers.astype(np.float32).astype(np.float64)
    if np.isinf(narrow).any():
        raise _Untyped
    return narrow


def _values(
    flat: list[Any], count: int, shape: TextShape, by_column: bool, numbers: Numbers
) -> Values:
    """Raises UnicodeEncodeError for half a surrogate pair."""
    end = chr(_MARK)
    try:
        text = end.join(flat)
    except TypeError:
        flat = [value or "" for value in flat]
        text = end.join(flat)
    data, mark = (text + end).encode() if flat else b"", _MARK
    if data.count(_MARK) != len(flat):
        data, mark = b"".join(value.encode() + b"\xff" for value in flat), _NO_UTF8
    return Values(count, np.frombuffer(data, np.uint8), mark, shape, by_column, numbers)
