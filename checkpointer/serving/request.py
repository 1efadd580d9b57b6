"""A prediction request: JSON in, columns out, or what is wrong with it: row, field, value, and the
fix.

    {"rows": [{"source": "s", "vendor": "v", "item": "i", "features": {"price": 9.5}}, ...]}
    {"columns": {"source": ["s", ...], "vendor": [...], "item": [...], "price": [9.5, ...]}}
    {"context": {"source": "s", "features": {"hour": "12"}}, "rows": [{"item": "i"}, ...]}

Every field may be left out or null: it then is what a missing one is in `examples`
(`stream.columns.values`). A feature that the model does not know is ignored, and the answer says
so: a site may send a new one before every model has learned it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns import (
    NUMERIC,
    STRING_BYTES_MAX,
    TS_MS_MAX,
    TS_MS_MIN,
    Features,
    floats,
    positions,
    strings,
)
from stream.decoding import WrongValue, extent, given_features

IDENTIFIERS = ("source", "vendor", "item")
#: The place on the page, if it is known already. A model with a stated serving value for `shown_at`
#: takes that instead.
POSITION = "position"
SHOWN_AT = "shown_at"
#: When the impression is; a request without it is of now.
TS_MS = "ts_ms"
#: What a row or the columns may carry beside them without meaning anything to a model.
CARRIED = frozenset({"id", TS_MS, "session", POSITION})
#: A body of at most so many bytes is read at once, larger ones are looked through before.
UNSEEN_BYTES_MAX = 1 << 20
#: Fields of one object, and how deep objects may be nested.
FIELDS_MAX, DEPTH_MAX = 4_096, 32
_STRING_TYPES = frozenset({str, type(None)})
_NUMBER_TYPES = frozenset({int, float, type(None)})


class BadRequest(ValueError):
    """The request cannot be answered; the message names row, field, value and fix. It is UTF-8,
    whatever halves of characters the request names."""

    def __init__(self, reason: str) -> None:
        super().__init__(utf8(reason))


def utf8(text: str) -> str:
    """The same, with halves of characters (surrogates) as they are written in JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


class PredictRequest(NamedTuple):
    """`columns`: source, vendor, item as strings, shown_at int32, and `f_<name>` for every
    feature the model knows."""

    columns: pa.Table
    ignored: tuple[str, ...]


Fields = dict[str, list[Any]]


class Given(NamedTuple):
    """A request as it came, its form checked and none of its values: by column of `Request`, what
    each row has, and what all rows share (each a list of one value)."""

    own: Fields
    shared: Fields
    rows: int
    ignored: tuple[str, ...]


def parse(body: bytes, features: Features, rows_max: int, timed: bool = False) -> PredictRequest:
    """Raises BadRequest."""
    return request_of(given(body, features, rows_max), features, timed)


def of_rows(
    rows: Sequence[Mapping[str, Any]], features: Features, timed: bool = False
) -> PredictRequest:
    """The request of `{"rows": rows}`, without the JSON. Raises BadRequest."""
    return request_of(given_rows(rows, features), features, timed)


def given_rows(rows: Sequence[Mapping[str, Any]], features: Features) -> Given:
    """The form of `{"rows": rows}`, without the JSON. Raises BadRequest."""
    return _from_rows(list(rows), features)


def given_columns(columns: Mapping[str, list[Any]], features: Features, rows_max: int) -> Given:
    """The form of `{"columns": columns}`, without the JSON. Raises BadRequest."""
    return _bounded(_from_columns(columns, features), rows_max)


def request_of(asked: Given, features: Features, timed: bool = False) -> PredictRequest:
    """All values checked, in columns; with `ts_ms` where `timed`. Raises BadRequest."""
    try:
        _table(dict(asked.shared), features, timed)
    except BadRequest as error:
        raise _of_context(error) from error
    whole = {name: values * asked.rows for name, values in asked.shared.items()}
    return PredictRequest(_table(asked.own | whole, features, timed), asked.ignored)


def given(body: bytes, features: Features, rows_max: int) -> Given:
    """The form of a request. Raises BadRequest."""
    request = _read(body, rows_max, sum(f.is_list for f in features))
    if (
        not isinstance(request, dict)
        or len(request.keys() & {"rows", "columns"}) != 1
        or not request.keys() <= {"rows", "columns", "context"}
    ):
        got = sorted(request) if isinstance(request, dict) else type(request).__name__
        raise BadRequest(
            f"body: holds {got}; send an object with 'rows' or with 'columns', beside them "
            f"'context' for what all rows share, and nothing else"
        )
    if "rows" in request:
        asked = _from_rows(request["rows"], features)
    else:
        asked = _from_columns(request["columns"], features)
    _bounded(asked, rows_max)
    if request.get("context") is None:
        return asked
    return with_context(asked, request["context"], features, by_row="rows" in request)


def _bounded(asked: Given, rows_max: int) -> Given:
    if asked.rows > rows_max:
        raise BadRequest(f"body: {asked.rows} rows; send at most {rows_max} in one request")
    return asked


def with_context(asked: Given, context: Any, features: Features, by_row: bool) -> Given:
    """`context` is written as a row is, or beside columns as a column of one value. A row's own
    value comes before it."""
    try:
        if not isinstance(context, dict):
            raise BadRequest(f"row 0: {_short(context)}; send an object, written as a row is")
        if by_row:
            of_all = _from_rows([context], features)
        else:
            columns = {name: [value] for name, value in context.items()}
            of_all = _from_columns(columns, features) if columns else _from_rows([{}], features)
    except BadRequest as error:
        raise _of_context(error) from error
    own, shared = dict(asked.own), {}
    for name, (value,) in of_all.own.items():
        if value is None:
            continue
        if all(mine is None for mine in own[name]):
            del own[name]
            shared[name] = [value]
        else:
            own[name] = [value if mine is None else mine for mine in own[name]]
    ignored = tuple(sorted({*asked.ignored, *of_all.ignored}))
    return Given(own, shared, asked.rows, ignored)


def _of_context(error: BadRequest) -> BadRequest:
    return BadRequest(re.sub(r"^(row 0|rows|columns)", "context", str(error)))


def check_extent(body: bytes, rows_max: int, lists: int = 0) -> None:
    """Raises BadRequest for a large body that would make more objects than a request may have,
    before any is made. `lists`: how many a row may have."""
    if len(body) > UNSEEN_BYTES_MAX:
        opened, deepest, members, _ = extent(np.frombuffer(body, np.uint8))
        if opened > (2 + lists) * rows_max + FIELDS_MAX or members > FIELDS_MAX:
            raise BadRequest(
                f"body: {opened} objects and lists, up to {members} fields in one object; send at "
                f"most {rows_max} rows of at most {FIELDS_MAX} fields in one request"
            )
        if deepest > DEPTH_MAX:
            raise BadRequest(f"body: nested {deepest} deep; send at most {DEPTH_MAX}")


def _read(body: bytes, rows_max: int, lists: int) -> Any:
    """What JSON says."""
    check_extent(body, rows_max, lists)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fault: Exception = error
    if (
        len(body) <= UNSEEN_BYTES_MAX
    ):  # NaN, numbers of any size, half surrogates: what Python reads
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            fault = error
    raise BadRequest(
        f"body: not JSON ({fault}); send {{'rows': [...]}} or {{'columns': {{...}}}}"
    ) from fault


def count_rows(body: bytes, rows_max: int) -> int:
    """How many rows a request has; of them nothing is looked at. Raises BadRequest."""
    check_extent(body, rows_max)
    try:
        asked = _COUNTED.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(
            f"body: {error}; send {{'rows': [...]}} or {{'columns': {{...}}}}"
        ) from error
    rows = len(asked.rows or next(iter((asked.columns or {}).values()), ()))
    if rows > rows_max:
        raise BadRequest(f"body: {rows} rows; send at most {rows_max} in one request")
    return rows


def items_of(body: bytes, rows_max: int) -> list[str | None]:
    """The item of each row, None where it has none; of nothing else the values are looked at.
    Raises BadRequest."""
    check_extent(body, rows_max)
    try:
        asked = _ITEMS.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return [None] * count_rows(body, rows_max)
    shared = asked.context.item if asked.context else None
    if asked.rows is not None:
        items = [shared if row.item is None else row.item for row in asked.rows]
    else:
        given = (asked.columns or {}).get("item")
        if given is None:
            return [shared] * count_rows(body, rows_max)
        try:
            items = [
                shared if one is None else one
                for one in msgspec.json.decode(given, type=list[str | None])
            ]
        except msgspec.MsgspecError:
            return [None] * count_rows(body, rows_max)
    if len(items) > rows_max:
        raise BadRequest(f"body: {len(items)} rows; send at most {rows_max} in one request")
    return items


def items_given(asked: Given, features: Features | None = None) -> list[str | None]:
    """The same of a request in any form; with `features`, the other values are looked at, too.
    Raises BadRequest."""
    if features is not None:
        request_of(asked, features)
    own = asked.own.get("item")
    items = list(asked.shared.get("item", [None])) * asked.rows if own is None else own
    return [item if isinstance(item, str) else None for item in items]


class _ItemRow(msgspec.Struct):
    item: str | None = None


class _Items(msgspec.Struct):
    rows: list[_ItemRow] | None = None
    columns: dict[str, msgspec.Raw] | None = None
    context: _ItemRow | None = None


_ITEMS = msgspec.json.Decoder(_Items)


class _Counted(msgspec.Struct):
    rows: list[msgspec.Raw] | None = None
    columns: dict[str, list[msgspec.Raw]] | None = None


_COUNTED = msgspec.json.Decoder(_Counted)


def _from_rows(rows: Any, features: Features) -> Given:
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
    fields[TS_MS] = [row.get(TS_MS) for row in rows]
    for feature in features:
        fields[feature.column] = [bag.get(feature.name) for bag in bags]
        if feature.alias:
            pairs = zip(fields[feature.column], bags, strict=True)
            fields[feature.column] = [
                bag.get(feature.alias) if own is None else own for own, bag in pairs
            ]
    _refuse_unknown(set().union(*rows) - {"features"} if rows else set(), "rows")
    names = {feature.name for feature in features} | {feature.alias for feature in features}
    ignored = tuple(sorted(map(utf8, set().union(*bags) - names))) if bags else ()
    return Given(fields, {}, len(rows), ignored)


def _from_columns(columns: Any, features: Features) -> Given:
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
    known = {*IDENTIFIERS, *CARRIED}
    fields[SHOWN_AT] = columns.get(POSITION, missing)
    fields[TS_MS] = columns.get(TS_MS, missing)
    for feature in features:
        named = (feature.name, feature.column, feature.alias, feature.alias_column)
        there = [name for name in named if name and name in columns]
        fields[feature.column] = columns[there[0]] if there else missing
        known.update(named)
    return Given(fields, {}, count, tuple(sorted(map(utf8, columns.keys() - known))))


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    """Identifiers misspelled would be missing in every row, silently; so the fields of a row are
    a closed list."""
    unknown = sorted(set(names) - {*IDENTIFIERS, *CARRIED})
    if unknown:
        allowed = ", ".join((*IDENTIFIERS, "features"))
        raise BadRequest(
            f"{where}, {unknown[0]}: unknown field; a row has {allowed}; put features into "
            f"'features'"
        )


def _table(fields: Fields, features: Features, timed: bool) -> pa.Table:
    """Of the fields that there are, `fields` is emptied of position and time."""
    times = fields.pop(TS_MS, None)
    arrays = {}
    if SHOWN_AT in fields:
        arrays[SHOWN_AT] = _positions(fields.pop(SHOWN_AT))
    if timed and times is not None:
        arrays[TS_MS] = _times(times)
    by_column = {feature.column: feature for feature in features}
    for name, values in fields.items():
        if name not in by_column or by_column[name].is_plain_string:
            arrays[name] = _strings(name, values)
        elif by_column[name].kind == NUMERIC:
            arrays[name] = _numbers(name, values)
    others = [by_column[name] for name in fields if name not in arrays]
    count = len(next(iter(fields.values()), ()))
    try:
        arrays |= given_features(others, fields, count)
    except WrongValue as error:
        raise BadRequest(str(error)) from error
    return pa.table({name: arrays[name] for name in (SHOWN_AT, TS_MS, *fields) if name in arrays})


def checked_column(name: str, values: list[Any]) -> pa.Array:
    """A column of strings, or the positions. Raises BadRequest."""
    return _positions(values) if name == SHOWN_AT else _strings(name, values)


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


def _times(values: list[Any]) -> pa.Array:
    """The time of each impression; of one that is not given, 0: `with_times` fills it in."""
    for at, value in enumerate(values):
        if value is not None and (type(value) is not int or not TS_MS_MIN <= value < TS_MS_MAX):
            raise _bad(at, TS_MS, value, "milliseconds since 1970 as an integer, or null")
    return pa.array([value or 0 for value in values], pa.int64())


def with_times(columns: pa.Table, now_ms: int) -> pa.Table:
    """The rows with `now_ms` where no time of the impression was given."""
    at = columns.schema.get_field_index(TS_MS)
    if at < 0:
        return columns
    times = columns.column(at).to_numpy()
    return columns.set_column(at, TS_MS, pa.array(np.where(times == 0, now_ms, times)))


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
