"""The one pass over a usual `POST /predict`: rows, and a context, of strings and numbers that a
model knows by name.

    {"rows": [{"item": "i", "features": {"price": 9.5}}, ...], "context": {"source": "s"}}

Each string is hashed where it stands in the text. A kernel that meets anything else says so, and
the request is read again as any JSON is (`request`), which finds the same values or says what is
wrong: another name, a name that stands twice in one object, a value of another kind, more rows than
there is room for, a long string, what is no JSON.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from checkpointer.json_rows.tokens import (
    CLOSE,
    CLOSE_LIST,
    COLON,
    COMMA,
    FAILED,
    ONE,
    OPEN,
    OPEN_LIST,
    QUOTE,
    blanks,
    null,
    number,
    passed,
    place,
    string_stop,
    token,
    unescaped,
)
from stream.columns import STRING_BYTES_MAX
from stream.hashing import eight, hash_of, tail
from stream.kernels import F64, GOLDEN, I64, U64, Bools, Bytes, kernel

_U64 = np.uint64
_EIGHT = _U64(8)
#: What stands behind a name: a string that is hashed, a number, a place on the page, what nobody
#: asks for, the object of features.
STRING, NUMBER, PLACE, PASSED, BAG = range(5)
#: Where a name stands: in the whole, in a row or the context, among its features.
WHOLE, ROW, FEATURES = range(3)
_ROWS, _CONTEXT = 0, 1
#: FieldNames take at most a half of the places in which they are looked for.
_SLOTS_PER_NAME = 2
_N = 110  # of null


class FieldName(NamedTuple):
    """What is read behind a name, and the part or column that it goes to, -1 = none."""

    kind: int
    goes_to: int


class FieldNames(NamedTuple):
    """The names that may stand at each level of a request, as kernels look for them."""

    text: Bytes  # all names, and eight bytes more
    ends: I64  # (n + 1,): name i is text[ends[i]:ends[i + 1]]
    slots: I64  # 1 + the name whose hash leads there or just before; 0 = none
    means: I64  # (n, 3): the level, and the fields of `FieldName`


def names_of(levels: Mapping[int, Mapping[str, FieldName]]) -> FieldNames:
    """Level -> name -> what it means. The first two are those of the whole: rows and context."""
    listed = [("rows", WHOLE, FieldName(PASSED, -1)), ("context", WHOLE, FieldName(PASSED, -1))]
    listed += [
        (name, level, said) for level, names in levels.items() for name, said in names.items()
    ]
    encoded = [name.encode() for name, _, _ in listed]
    text = np.frombuffer(b"".join(encoded) + bytes(8), np.uint8)
    ends = np.append(0, np.cumsum([len(name) for name in encoded])).astype(np.int64)
    slots = np.zeros(1 << (_SLOTS_PER_NAME * len(listed) - 1).bit_length(), np.int64)
    for i, (_, level, _) in enumerate(listed):
        at = int(_slot(text, _U64(ends[i]), _U64(ends[i + 1]), level, len(slots)))
        while slots[at]:
            at = (at + 1) % len(slots)
        slots[at] = i + 1
    means = np.array([(level, *said) for _, level, said in listed], np.int64)
    return FieldNames(text, ends, slots, means)


@kernel
def _slot(text: Bytes, at: np.uint64, stop: np.uint64, level: int, slots: int) -> np.uint64:
    """Where a name is looked for first. `slots` is a power of two."""
    h = (stop - at) + _U64(level) * GOLDEN
    while stop - at >= _EIGHT:
        h = (h ^ eight(text, at)) * GOLDEN
        at += _EIGHT
    if at < stop:
        h = (h ^ tail(text, at, stop)) * GOLDEN
    h ^= h >> _U64(32)
    return h & _U64(slots - 1)  # type: ignore[no-any-return]


@kernel
def _is_same(one: Bytes, at: np.uint64, stop: np.uint64, other: Bytes, there: np.uint64) -> bool:
    while stop - at >= _EIGHT:
        if eight(one, at) != eight(other, there):
            return False
        at, there = at + _EIGHT, there + _EIGHT
    return at == stop or tail(one, at, stop) == tail(other, there, there + (stop - at))  # type: ignore[no-any-return]


@kernel
def _named(
    data: Bytes, at: np.uint64, stop: np.uint64, level: int,
    text: Bytes, ends: I64, slots: I64, means: I64,
) -> int:  # fmt: skip
    """Which name `data[at:stop]` is at this level, -1 = none."""
    slot = _slot(data, at, stop, level, len(slots))
    while slots[slot] != 0:
        name = slots[slot] - 1
        begin, end = _U64(ends[name]), _U64(ends[name + 1])
        is_named = means[name, 0] == level and end - begin == stop - at
        if is_named and _is_same(data, at, stop, text, begin):
            return name  # type: ignore[no-any-return]
        slot = (slot + ONE) & _U64(len(slots) - 1)
    return -1


@kernel
def _key(
    data: Bytes, at: np.uint64, level: int, text: Bytes, ends: I64, slots: I64, means: I64,
) -> tuple[np.uint64, int]:  # fmt: skip
    """From an opening quote: (where the value begins, which name stands before it)."""
    if at >= _U64(len(data)) or data[at] != QUOTE:
        return FAILED, -1
    at += ONE
    stop = string_stop(data, at)
    if stop == FAILED or data[stop] != QUOTE:
        return FAILED, -1
    name = _named(data, at, stop, level, text, ends, slots, means)
    if name < 0:
        return FAILED, -1
    at = token(data, stop + ONE, COLON)
    return (FAILED if at >= _U64(len(data)) else at), name


@kernel
def _value(
    data: Bytes, at: np.uint64, kind: int, goes_to: int, row: int, low: U64, high: U64,
    scratch: Bytes, parts: U64, numbers: F64,
) -> np.uint64:  # fmt: skip
    """Read the value of a row into its hash or its number."""
    if kind == STRING:
        if data[at] != QUOTE:
            return FAILED
        begin = at + ONE
        stop = string_stop(data, begin)
        if stop == FAILED:
            return FAILED
        size, end = stop - begin, stop
        if data[stop] != QUOTE:
            end, size = unescaped(data, begin, scratch)
            if end == FAILED:
                return FAILED
        if size > _U64(STRING_BYTES_MAX):
            return FAILED
        if goes_to >= 0:
            if end == stop:
                h = hash_of(data, begin, stop, low[goes_to], high[goes_to])
            else:
                h = hash_of(scratch, _U64(0), size, low[goes_to], high[goes_to])
            parts[row, goes_to] = h if h != 0 else ONE
        return end + ONE
    if kind == PASSED:
        return passed(data, at, scratch)  # type: ignore[no-any-return]
    found = 0.0
    if kind == NUMBER:
        at, found = number(data, at)
    else:
        at, where = place(data, at)
        found = float(where)
    if at != FAILED and goes_to >= 0:
        numbers[row, goes_to] = found
    return at


@kernel
def _like_first(
    data: Bytes, at: np.uint64, row: int, fields: I64, means: I64, low: U64, high: U64,
    scratch: Bytes, seen: I64, parts: U64, numbers: F64,
) -> tuple[np.uint64, int]:  # fmt: skip
    """From an opening bracket: as many fields as follow each other with the same text between their
    values as in the first row. Returns where that ends, and how many they are."""
    size, count = _U64(len(data)), fields[0, 0]
    for k in range(1, count + 1):
        begin, stop = _U64(fields[k, 0]), at + _U64(fields[k, 1])
        if stop + _EIGHT > size or not _is_same(data, at, stop, data, begin):
            return at, k - 1
        name, within = fields[k, 2], fields[k, 3]
        if within >= 0:
            seen[within] = row + 1
        seen[name] = row + 1
        if data[stop] == _N:
            at = null(data, stop)
        else:
            at = _value(
                data, stop, means[name, 1], means[name, 2], row, low, high, scratch, parts, numbers
            )
        if at == FAILED:
            return at, k
    return at, count


@kernel
def _row(
    data: Bytes, at: np.uint64, row: int, text: Bytes, ends: I64, slots: I64, means: I64,
    low: U64, high: U64, scratch: Bytes, seen: I64, fields: I64, parts: U64, numbers: F64,
) -> np.uint64:  # fmt: skip
    """From an opening bracket: an object of a row's fields, and the one of its features inside.
    `fields`: how many the first row has, and of each the place and length of the text before its
    value, its name, and that of the object that this text opens or -1."""
    size, level, behind, opened = _U64(len(data)), ROW, at, np.int64(-1)
    may_end, is_behind = True, False  # at once after a bracket; a value has been read
    if row > 1:
        at, count = _like_first(
            data, at, row, fields, means, low, high, scratch, seen, parts, numbers
        )
        is_behind = count > 0
        if is_behind:
            level, at = means[fields[count, 2], 0], blanks(data, at)
    if not is_behind:
        at = token(data, at, OPEN)
    while True:
        if at >= size:
            return FAILED
        if data[at] == CLOSE and may_end:
            at += ONE
            if level == ROW:
                return at
            at, level, is_behind = blanks(data, at), ROW, True
            continue
        if is_behind:
            at = token(data, at, COMMA)
            may_end = False
        at, name = _key(data, at, level, text, ends, slots, means)
        if at == FAILED or seen[name] == row + 1:
            return FAILED
        seen[name] = row + 1
        may_end = is_behind = True
        if means[name, 1] == BAG:
            opened = np.int64(name)
            if data[at] != _N:
                at, level, is_behind = token(data, at, OPEN), FEATURES, False
                continue
        elif row == 1:
            _note(fields, behind, at, name, opened)
            opened = np.int64(-1)
        if data[at] == _N:
            at = null(data, at)
        else:
            at = _value(
                data, at, means[name, 1], means[name, 2], row, low, high, scratch, parts, numbers
            )
        if at == FAILED:
            return FAILED
        if means[name, 1] != BAG:
            behind = at
        at = blanks(data, at)


@kernel
def _note(fields: I64, behind: np.uint64, at: np.uint64, name: int, opened: np.int64) -> None:
    fields[0, 0] += 1
    k = fields[0, 0]
    fields[k, 0], fields[k, 1], fields[k, 2], fields[k, 3] = behind, at - behind, name, opened


@kernel
def _all_rows(
    data: Bytes, at: np.uint64, text: Bytes, ends: I64, slots: I64, means: I64, low: U64,
    high: U64, scratch: Bytes, seen: I64, parts: U64, numbers: F64,
) -> tuple[np.uint64, int]:  # fmt: skip
    """A list of rows, and how many they are."""
    at, rows, fields = token(data, at, OPEN_LIST), 0, np.zeros((len(means) + 1, 4), np.int64)
    if at < _U64(len(data)) and data[at] == CLOSE_LIST:
        return at + ONE, 0
    while True:
        rows += 1
        if at >= _U64(len(data)) or rows >= len(parts):
            return FAILED, 0
        at = _row(
            data, at, rows, text, ends, slots, means, low, high, scratch, seen, fields, parts,
            numbers,
        )  # fmt: skip
        if at != FAILED:
            at = blanks(data, at)
        if at >= _U64(len(data)):
            return FAILED, 0
        if data[at] == CLOSE_LIST:
            return at + ONE, rows
        at = token(data, at, COMMA)


@kernel
def read_request(
    data: Bytes, text: Bytes, ends: I64, slots: I64, means: I64, low: U64, high: U64,
    stated: U64, missing: U64, nowhere: int, scratch: Bytes, parts: U64, own: Bools,
    numbers: F64,
) -> int:  # fmt: skip
    """How many rows it has; -1 = read it as any JSON. Of row i the hashes are parts[i + 1] and the
    numbers numbers[i + 1], of the context those at 0; of `stated` to `numbers` see `_settle`."""
    seen, none = np.zeros(len(means), np.int64), np.zeros((0, 4), np.int64)
    rows, size = -1, _U64(len(data))
    at = token(data, _U64(0), OPEN)
    while True:
        at, name = _key(data, at, WHOLE, text, ends, slots, means)
        if at == FAILED or seen[name] != 0:
            return -1
        seen[name] = 1
        if name == _ROWS:
            at, rows = _all_rows(
                data, at, text, ends, slots, means, low, high, scratch, seen, parts, numbers
            )  # fmt: skip
        elif data[at] == _N:
            at = null(data, at)
        else:
            at = _row(
                data, at, 0, text, ends, slots, means, low, high, scratch, seen, none, parts,
                numbers,
            )  # fmt: skip
        if at == FAILED:
            return -1
        at = blanks(data, at)
        if at < size and data[at] == CLOSE:
            if blanks(data, at + ONE) != size or rows < 0:
                return -1
            _settle(parts[: rows + 1], own, numbers[: rows + 1], stated, missing, nowhere)
            return rows  # type: ignore[no-any-return]
        at = token(data, at, COMMA)


@kernel
def _settle(parts: U64, own: Bools, numbers: F64, stated: U64, missing: U64, nowhere: int) -> None:
    """Fill in what rows are not given, with what all share or what is missing: of `parts` where
    they are 0, of `numbers` (NaN is missing, of column `nowhere` -1). `own`: which parts a row
    gives; the others stand in parts[0] alone."""
    for p in range(parts.shape[1]):
        if parts[0, p] == _U64(0):
            parts[0, p] = stated[p] if stated[p] != _U64(0) else missing[p]
        own[p] = False
        for i in range(1, len(parts)):
            own[p] |= parts[i, p] != _U64(0)
    for i in range(1, len(parts)):
        for p in range(parts.shape[1]):
            if parts[i, p] == _U64(0):
                parts[i, p] = parts[0, p]
    for g in range(numbers.shape[1]):
        for i in range(1, len(numbers)):
            if np.isnan(numbers[i, g]):
                numbers[i, g] = numbers[0, g]
            if np.isnan(numbers[i, g]) and g == nowhere:
                numbers[i, g] = -1.0
