"""Tokens of JSON text (RFC 8259), as kernels read them: blanks, strings, numbers, literals.

Each takes a place in the text and answers with the one behind what it read, or FAILED: then it is
no JSON, or such as a parser of any JSON is to read (a number of many digits, half a surrogate
pair). Places are unsigned, as `stream.hashing.siphash` says why. Whether the text is UTF-8 is not
looked at here.
"""

import numpy as np

from stream.hashing import eight
from stream.kernels import Bytes, kernel

_U64 = np.uint64
FAILED = _U64((1 << 64) - 1)
ONE, _EIGHT = _U64(1), _U64(8)
QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
OPEN_LIST, CLOSE_LIST, OPEN, CLOSE = 91, 93, 123, 125
_SPACE, _TAB, _NEWLINE, _RETURN = 32, 9, 10, 13
_ZERO, _NINE, _MINUS, _PLUS, _POINT, _SMALL_E, _LARGE_E = 48, 57, 45, 43, 46, 101, 69
_N, _T, _F, _U = 110, 116, 102, 117
_TRUE, _FALSE, _NULL = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
#: In each byte of a word 1, its highest bit, a quote, a backslash, a blank.
_ONES, _HIGH = _U64(0x0101010101010101), _U64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _BLANKS = (_ONES * _U64(b) for b in (QUOTE, BACKSLASH, _SPACE))
#: A number of at most 2^53 by a power of ten of at most 22 is rounded once, and so exactly as by
#: any other way (Clinger, "How to read floating point numbers accurately", 1990).
_EXACT_MAX, _POWERS = _U64(1 << 53), np.array([float(f"1e{e}") for e in range(23)])
_DIGITS_MAX, _EXPONENT_MAX = 18, 22
#: What stands for the letter behind a backslash; 0 = it is no such letter.
_ESCAPES = np.zeros(256, np.uint8)
for _letter, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPES[_letter] = _meant


@kernel
def blanks(text: Bytes, at: np.uint64) -> np.uint64:
    """The next byte that is none of the four blanks, or the end."""
    while at < _U64(len(text)) and (
        text[at] == _SPACE or text[at] == _NEWLINE or text[at] == _TAB or text[at] == _RETURN
    ):
        at += ONE
    return at


@kernel
def token(text: Bytes, at: np.uint64, byte: int) -> np.uint64:
    """This byte, blanks before and behind it."""
    at = blanks(text, at)
    if at >= _U64(len(text)) or text[at] != byte:
        return FAILED
    return blanks(text, at + ONE)


@kernel
def string_stop(text: Bytes, at: np.uint64) -> np.uint64:
    """From behind an opening quote: where the first byte stands that is a quote or a backslash.
    FAILED at a control character, and where there is none. Eight bytes at a time (Mycroft's test
    for a zero byte)."""
    size = _U64(len(text))
    while at + _EIGHT <= size:
        word = eight(text, at)
        quote, slash = word ^ _QUOTES, word ^ _BACKSLASHES
        found = ((quote - _ONES) & ~quote) | ((slash - _ONES) & ~slash) | ((word - _BLANKS) & ~word)
        found &= _HIGH
        if found != _U64(0):
            below = (((found - ONE) & ~found) >> _U64(7)) & _ONES
            at += (below * _ONES) >> _U64(56)
            return at if text[at] >= _SPACE else FAILED
        at += _EIGHT
    while at < size:
        byte = text[at]
        if byte in (QUOTE, BACKSLASH):
            return at
        if byte < _SPACE:
            return FAILED
        at += ONE
    return FAILED


@kernel
def unescaped(text: Bytes, at: np.uint64, out: Bytes) -> tuple[np.uint64, np.uint64]:
    """From behind an opening quote: where the closing one stands, and how many bytes the string
    has, which are written to `out`. FAILED also where they have no room there."""
    size, room = _U64(0), _U64(len(out))
    while True:
        stop = string_stop(text, at)
        if stop == FAILED or size + (stop - at) + _U64(4) > room:
            return FAILED, size
        while at < stop:
            out[size] = text[at]
            at, size = at + ONE, size + ONE
        if text[at] == QUOTE:
            return at, size
        at += ONE
        if at >= _U64(len(text)):
            return FAILED, size
        if text[at] == _U:
            at, code = _code_point(text, at)
            if at == FAILED:
                return FAILED, size
            size = _write(out, size, code)
        else:
            out[size] = _ESCAPES[text[at]]
            if out[size] == 0:
                return FAILED, size
            at, size = at + ONE, size + ONE


@kernel
def _code_point(text: Bytes, at: np.uint64) -> tuple[np.uint64, int]:
    """Of `uXXXX`, or of two of them, a backslash between, that are halves of one character."""
    code = _hex(text, at + ONE)
    at += _U64(5)
    if code < 0 or 0xDC00 <= code < 0xE000:
        return FAILED, 0
    if code < 0xD800 or code >= 0xE000:
        return at, code
    if at + _U64(6) > _U64(len(text)) or text[at] != BACKSLASH or text[at + ONE] != _U:
        return FAILED, 0
    low = _hex(text, at + _U64(2))
    if low < 0xDC00 or low >= 0xE000:
        return FAILED, 0
    return at + _U64(6), 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)


@kernel
def _hex(text: Bytes, at: np.uint64) -> int:
    """Of four hexadecimal digits; -1 = they are none."""
    if at + _U64(4) > _U64(len(text)):
        return -1
    code = 0
    for i in range(4):
        byte = int(text[at + _U64(i)])
        if _ZERO <= byte <= _NINE:
            digit = byte - _ZERO
        elif 97 <= byte | 32 <= 102:
            digit = (byte | 32) - 87
        else:
            return -1
        code = code << 4 | digit
    return code


@kernel
def _write(out: Bytes, at: np.uint64, code: int) -> np.uint64:
    """A character as UTF-8; returns where the next one goes."""
    if code < 0x80:
        out[at] = code
        return at + ONE
    count = 2 if code < 0x800 else 3 if code < 0x10000 else 4
    for i in range(count - 1, 0, -1):
        out[at + _U64(i)] = 0x80 | (code & 0x3F)
        code >>= 6
    out[at] = code | ((0xF00 >> count) & 0xFF)
    return at + _U64(count)


@kernel
def _digits(text: Bytes, at: np.uint64) -> np.uint64:
    while at < _U64(len(text)) and _ZERO <= text[at] <= _NINE:
        at += ONE
    return at


@kernel
def number(text: Bytes, at: np.uint64) -> tuple[np.uint64, float]:
    """A number whose nearest float64 is found by one rounding."""
    size, begin, is_whole = _U64(len(text)), at, True
    negative = at < size and text[at] == _MINUS
    if negative:
        at += ONE
    first, found, scale = at, _U64(0), 0
    point = at
    while at < size and (_ZERO <= text[at] <= _NINE or (text[at] == _POINT and is_whole)):
        if text[at] == _POINT:
            is_whole, point = False, at
        else:
            found = found * _U64(10) + _U64(text[at] - _ZERO)
            scale -= not is_whole
        at += ONE
    if is_whole:
        point = at
    starts_with_zero = point > first + ONE and text[first] == _ZERO
    if point == first or starts_with_zero or at - begin > _U64(_DIGITS_MAX):
        return FAILED, 0.0
    if not is_whole and at == point + ONE:
        return FAILED, 0.0
    if at < size and (text[at] == _SMALL_E or text[at] == _LARGE_E):
        at, exponent = _exponent(text, at + ONE)
        if at == FAILED:
            return FAILED, 0.0
        scale += exponent
    is_minus_zero = negative and found == _U64(0)
    if found > _EXACT_MAX or abs(scale) > _EXPONENT_MAX or is_minus_zero:
        return FAILED, 0.0
    value = np.float64(found)
    value = value / _POWERS[-scale] if scale < 0 else value * _POWERS[scale]
    return at, -value if negative else value


@kernel
def _exponent(text: Bytes, at: np.uint64) -> tuple[np.uint64, int]:
    """From behind the letter."""
    negative = False
    if at < _U64(len(text)) and (text[at] == _MINUS or text[at] == _PLUS):
        negative = text[at] == _MINUS
        at += ONE
    end, value = _digits(text, at), 0
    if end == at or end - at > _U64(3):
        return FAILED, 0
    while at < end:
        value = 10 * value + int(text[at]) - _ZERO
        at += ONE
    return end, -value if negative else value


@kernel
def place(text: Bytes, at: np.uint64) -> tuple[np.uint64, int]:
    """An integer from 0 below 2^31, in digits alone."""
    end, value = _digits(text, at), 0
    if end == at or end - at > _U64(10) or (text[at] == _ZERO and end > at + ONE):
        return FAILED, 0
    if end < _U64(len(text)) and text[end] in (_POINT, _SMALL_E, _LARGE_E):
        return FAILED, 0
    while at < end:
        value = 10 * value + int(text[at]) - _ZERO
        at += ONE
    return (end, value) if value < 1 << 31 else (FAILED, 0)


@kernel
def _word(text: Bytes, at: np.uint64, word: Bytes) -> np.uint64:
    if at + _U64(len(word)) > _U64(len(text)):
        return FAILED
    for i in range(len(word)):
        if text[at + _U64(i)] != word[i]:
            return FAILED
    return at + _U64(len(word))


@kernel
def null(text: Bytes, at: np.uint64) -> np.uint64:
    """From its first letter on."""
    return _word(text, at, _NULL)  # type: ignore[no-any-return]


@kernel
def passed(text: Bytes, at: np.uint64, scratch: Bytes) -> np.uint64:
    """Behind a string, a number, or a literal that nobody asks for."""
    byte = text[at]
    if byte == QUOTE:
        stop, _ = unescaped(text, at + ONE, scratch)
        return FAILED if stop == FAILED else stop + ONE
    if byte == _T:
        return _word(text, at, _TRUE)  # type: ignore[no-any-return]
    if byte == _F:
        return _word(text, at, _FALSE)  # type: ignore[no-any-return]
    if byte == _N:
        return null(text, at)
    end, _ = number(text, at)
    return end  # type: ignore[no-any-return]
