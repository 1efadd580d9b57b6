"""Framing of JSON records: many values in one buffer, one object a line, each line known to be of
one record.

A JSON parser that reads many records at once must not let one broken record swallow or shift
another. So before it sees them, every value is scanned for its brackets: it is one object, or one
array of objects, that ends where the value ends. Any other value is left out here. Of what is left,
a parse of the whole succeeds if and only if the parse of each line alone does, because no line
leaves the parser inside a string or a bracket.
"""

from typing import NamedTuple

import numpy as np

from stream.kernels import I64, Bytes, kernel

DEPTH_MAX = 32
_MALFORMED = -1
_NEWLINE, _RETURN, _SPACE, _TAB = 10, 13, 32, 9
_QUOTE, _BACKSLASH, _COMMA = 34, 92, 44
_OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = 91, 93, 123, 125


class Lines(NamedTuple):
    """`data`: the framed values' objects, one a line; those of value i end at `ends[i]`.
    `objects[i]`: how many they are; -1 = none, it is malformed (not one object or one array of
    objects, not UTF-8, nested deeper than DEPTH_MAX, or empty)."""

    data: Bytes
    ends: I64
    objects: I64


def frame(data: Bytes, starts: I64, sizes: I64) -> Lines:
    """Frame the values `data[starts[i] : starts[i] + sizes[i]]`. Inside strings nothing is changed;
    elsewhere line breaks become spaces, an outer array's brackets become spaces, and its commas
    line breaks."""
    lines = np.empty(int(sizes.sum()) + len(sizes), np.uint8)
    ends = np.cumsum(sizes + 1) - 1
    objects = np.empty(len(sizes), np.int64)
    _frame_all(data, starts, lines, ends, objects)
    if not _is_utf8(lines):
        for i, (end, size) in enumerate(zip(ends.tolist(), sizes.tolist(), strict=True)):
            if not _is_utf8(lines[end - size : end]):
                lines[end - size : end] = _SPACE
                objects[i] = _MALFORMED
    return Lines(lines, ends, objects)


def objects_of(value: bytes) -> list[bytes]:
    """The objects of a JSON array of objects, or the one object, each as it was written; none of
    what is malformed."""
    starts, sizes = np.zeros(1, np.int64), np.array([len(value)], np.int64)
    lines = frame(np.frombuffer(value, np.uint8), starts, sizes)
    if lines.objects[0] <= 0:
        return []
    return [line.strip() for line in lines.data[: lines.ends[0]].tobytes().split(b"\n")]


def _is_utf8(raw: Bytes) -> bool:
    try:
        str(raw.data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


@kernel
def _frame_all(data: Bytes, starts: I64, lines: Bytes, ends: I64, objects: I64) -> None:
    start = 0
    for i in range(len(ends)):
        end = ends[i]
        lines[start:end] = data[starts[i] : starts[i] + end - start]
        lines[end] = _NEWLINE
        objects[i] = _frame_one(lines, start, end)
        if objects[i] < 0:
            lines[start:end] = _SPACE
        start = end + 1


@kernel
def _frame_one(data: Bytes, start: int, end: int) -> int:
    """Frame `data[start:end]` in place. Returns its number of objects, or -1."""
    while start < end and _is_blank(data[start]):
        data[start] = _SPACE
        start += 1
    while end > start and _is_blank(data[end - 1]):
        end -= 1
        data[end] = _SPACE
    if end - start < 2:
        return _MALFORMED
    if data[start] == _OPEN:
        return 1 if _object_end(data, start, end) == end else _MALFORMED
    if data[start] != _OPEN_LIST or data[end - 1] != _CLOSE_LIST:
        return _MALFORMED
    data[start] = data[end - 1] = _SPACE
    count: int = _frame_list(data, start + 1, end - 1)
    return count


@kernel
def _frame_list(data: Bytes, at: int, end: int) -> int:
    """Objects separated by commas in `data[at:end]`, which become line breaks."""
    count, wants_object = 0, False
    while True:
        while at < end and _is_blank(data[at]):
            data[at] = _SPACE
            at += 1
        if at == end:
            return _MALFORMED if wants_object else count
        if count > 0 and not wants_object:
            if data[at] != _COMMA:
                return _MALFORMED
            data[at] = _NEWLINE
            wants_object = True
            at += 1
            continue
        if data[at] != _OPEN:
            return _MALFORMED
        at = _object_end(data, at, end)
        if at < 0:
            return _MALFORMED
        count += 1
        wants_object = False


@kernel
def _object_end(data: Bytes, at: int, end: int) -> int:
    """The index after the bracket that closes the one at `at`, or -1. Line breaks outside
    strings become spaces."""
    depth, quoted = 0, False
    while at < end:
        byte = data[at]
        if quoted:
            if byte == _BACKSLASH:
                at += 1
            elif byte == _QUOTE:
                quoted = False
        elif byte == _QUOTE:
            quoted = True
        elif byte in (_OPEN, _OPEN_LIST):
            depth += 1
            if depth > DEPTH_MAX:
                return -1
        elif byte in (_CLOSE, _CLOSE_LIST):
            depth -= 1
            if depth == 0:
                return at + 1
        elif byte in (_NEWLINE, _RETURN):
            data[at] = _SPACE
        at += 1
    return -1


@kernel
def count_objects(data: Bytes) -> int:
    """How many objects begin in this text, at any depth."""
    count, quoted, at = 0, False, 0
    while at < len(data):
        byte = data[at]
        if quoted:
            if byte == _BACKSLASH:
                at += 1
            elif byte == _QUOTE:
                quoted = False
        elif byte == _QUOTE:
            quoted = True
        elif byte == _OPEN:
            count += 1
        at += 1
    return count


@kernel(inline="always")
def _is_blank(byte: int) -> bool:
    return byte in (_SPACE, _NEWLINE, _TAB, _RETURN)
