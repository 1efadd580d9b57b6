"""A prediction request: JSON in, columns out, or what is wrong with it: row, field, value, and the
fix.

    {"rows": [{"source": "s", "vendor": "v", "item": "i", "features": {"price": 9.5}}, ...]}
    {"columns": {"source": ["s", ...], "vendor": [...], "item": [...], "price": [9.5, ...]}}

Every field may be left out or null: it then is what a missing one is in `examples`
(`stream.columns.values`). A feature that the model does not know is ignored, and the answer says
so: a site may send a new one before every model has learned it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns.events import NUMERIC, STRING_BYTES_MAX, Features
from stream.columns.values import floats, positions, strings

IDENTIFIERS = ("source", "vendor", "item")
#: The place on the page, if it is known already. A model with a stated serving value for `shown_at`
#: takes that instead.
POSITION = "position"
SHOWN_AT = "shown_at"
#: What a row or the columns may carry beside them without meaning anything to a model.
_CARRIED = frozenset({"id", "ts_ms", "session", POSITION})
_STRING_TYPES = frozenset({str, type(None)})
_NUMBER_TYPES = frozenset({int, float, type(None)})


class BadRequest(ValueError):
    """The request cannot be answered; the message names row, field, value and fix."""


class Request(NamedTuple):
    """`columns`: source, vendor, item as strings, shown_at int32, and `f_<name>` for every
    feature the model knows."""

    columns: pa.Table
    ignored: tuple[str, ...]


def parse(body: bytes, features: Features, rows_max: int) -> Request:
    """Raises BadRequest."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequest(
            f"body: not JSON ({error}); send {{'rows': [...]}} or {{'columns': {{...}}}}"
        ) from error
    if (
        not isinstance(request, dict)
        or len(request.keys() & {"rows", "columns"}) != 1
        or len(request) != 1
    ):
        got = sorted(request) if isinstance(request, dict) else type(request).__name__
        raise BadRequest(
            f"body: holds {got}; send an object with 'rows' or with 'columns', and nothing else"
        )
    if "rows" in request:
        fields, count, ignored = _from_rows(request["rows"], features)
    else:
        fields, count, ignored = _from_columns(request["columns"], features)
    if count > rows_max:
        raise BadRequest(f"body: {count} rows; send at most {rows_max} in one request")
    return Request(_table(fields, features), ignored)


def of_rows(rows: Sequence[Mapping[str, Any]], features: Features) -> Request:
    """The request of `{"rows": rows}`, without the JSON. Raises BadRequest."""
    fields, _, ignored = _from_rows(list(rows), features)
    return Request(_table(fields, features), ignored)


Fields = dict[str, list[Any]]


def _from_rows(rows: Any, features: Features) -> tuple[Fields, int, tuple[str, ...]]:
    if not isinstance(rows, list):
        raise BadRequest(f"rows: {_short(rows)}; send a list of objects")
    bags: list[dict[str, Any]] = []
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadRequest(
                f"row {at}: {_short(row)}; send an object with source, vendor, item, features"
            )
        bag = row.get("features")
        if bag is not None and not isinstance(bag, dict):
            raise BadRequest(
                f"row {at}, features: {_short(bag)}; send an object of feature name and value"
            )
        bags.append(bag or {})
    fields: Fields = {name: [row.get(name) for row in rows] for name in IDENTIFIERS}
    fields[SHOWN_AT] = [row.get(POSITION) for row in rows]
    for feature in features:
        fields[feature.column] = [bag.get(feature.name) for bag in bags]
    _refuse_unknown(set().union(*rows) - {"features"} if rows else set(), "rows")
    names = {feature.name for feature in features}
    return fields, len(rows), tuple(sorted(set().union(*bags) - names)) if bags else ()


def _from_columns(columns: Any, features: Features) -> tuple[Fields, int, tuple[str, ...]]:
    if not isinstance(columns, dict) or not columns:
        raise BadRequest(
            f"columns: {_short(columns)}; send an object of names and equally long lists"
        )
    lengths = {}
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadRequest(f"columns, {name}: {_short(values)}; send a list with one value a row")
        lengths[name] = len(values)
    count = next(iter(lengths.values()))
    for name, length in lengths.items():
        if length != count:
            first = next(iter(lengths))
            raise BadRequest(
                f"columns, {name}: {length} values, but {first} has {count}; send equally long "
                f"lists"
            )
    missing = [None] * count
    fields = {name: columns.get(name, missing) for name in IDENTIFIERS}
    fields[SHOWN_AT] = columns.get(POSITION, missing)
    for feature in features:
        fields[feature.column] = columns.get(feature.name, columns.get(feature.column, missing))
    known = {*IDENTIFIERS, *_CARRIED, *(f.name for f in features), *(f.column for f in features)}
    return fields, count, tuple(sorted(columns.keys() - known))


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    """Identifiers misspelled would be missing in every row, silently; so the fields of a row are
    a closed list."""
    unknown = sorted(set(names) - {*IDENTIFIERS, *_CARRIED})
    if unknown:
        allowed = ", ".join((*IDENTIFIERS, "features"))
        raise BadRequest(
            f"{where}, {unknown[0]}: unknown field; a row has {allowed}; put features into "
            f"'features'"
        )


def _table(fields: Fields, features: Features) -> pa.Table:
    numeric = {feature.column for feature in features if feature.kind == NUMERIC}
    arrays = {SHOWN_AT: _positions(fields.pop(SHOWN_AT))}
    for name, values in fields.items():
        arrays[name] = _numbers(name, values) if name in numeric else _strings(name, values)
    return pa.table(arrays)


def _strings(name: str, values: list[Any]) -> pa.Array:
    if not set(map(type, values)) <= _STRING_TYPES:
        at = next(i for i, value in enumerate(values) if type(value) not in _STRING_TYPES)
        raise _bad(
            at, name, values[at], f'a string or null; send "{values[at]}" if that is its name'
        )
    try:
        array = strings(pa.array(values, pa.string()))
    except UnicodeEncodeError as error:
        at = next(i for i, value in enumerate(values) if value and not _is_utf8(value))
        raise _bad(at, name, values[at], "text without lone surrogates") from error
    longest = pc.max(pc.binary_length(array)).as_py() or 0
    if longest > STRING_BYTES_MAX:
        at = next(
            i for i, value in enumerate(values) if value and len(value.encode()) > STRING_BYTES_MAX
        )
        raise _bad(at, name, values[at], f"at most {STRING_BYTES_MAX} bytes")
    return array


def _numbers(name: str, values: list[Any]) -> pa.Array:
    if not set(map(type, values)) <= _NUMBER_TYPES:
        at = next(i for i, value in enumerate(values) if type(value) not in _NUMBER_TYPES)
        raise _bad(at, name, values[at], "a number or null; send it without quotes")
    try:
        numbers = floats(pa.array(np.array(values, np.float64)))
    except OverflowError as error:
        at = next(
            i for i, value in enumerate(values) if type(value) is int and abs(value) > 1 << 1000
        )
        raise _bad(at, name, values[at], "a number below 3.4e38") from error
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise _bad(
            int(infinite[0]), name, values[infinite[0]], "a finite number below 3.4e38, or null"
        )
    return pa.array(numbers)


def _positions(values: list[Any]) -> pa.Array:
    for at, value in enumerate(values):
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 31):
            raise _bad(at, POSITION, value, "an integer from 0, or null")
    return positions(pa.array(values, pa.int64()))


def _bad(at: int, name: str, value: Any, expected: str) -> BadRequest:
    return BadRequest(f"row {at}, {name.removeprefix('f_')} = {_short(value)}: expected {expected}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
