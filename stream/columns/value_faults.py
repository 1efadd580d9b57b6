"""What is wrong with one value, in words: its field, what it is, and what to send instead.

Every text is bounded, whatever the value holds, and is UTF-8.
"""

import reprlib
from collections.abc import Iterator
from typing import Any

#: A field of the record and what is wrong with it.
Fault = tuple[str, str]

#: The longest identifier or categorical value, in UTF-8 bytes. A longer one makes its record bad.
STRING_BYTES_MAX = 1024
#: Event times outside [1973-03-03, 5138-11-16) are in another unit than milliseconds.
TS_MS_MIN = 100_000_000_000
TS_MS_MAX = 100_000_000_000_000
FLOAT32_MAX = 3.4028234e38
#: No longer than this, in characters: a field's name, a reason, and a value that a reason shows.
FIELD_CHARS_MAX, REASON_CHARS_MAX, VALUE_CHARS_MAX = 200, 1_000, 60
#: An integer of more digits than this is not made a number of: that takes time that grows with
#: their square.
DIGITS_MAX = 400

_short = reprlib.Repr()
_short.maxstring = _short.maxother = VALUE_CHARS_MAX
_short.maxlevel, _short.maxlist, _short.maxdict = 2, 3, 3


class ManyDigits:
    """Stands for an integer of more than DIGITS_MAX digits."""

    def __init__(self, text: str):
        self._digits = len(text.lstrip("-"))

    def __repr__(self) -> str:
        return f"an integer of {self._digits} digits"


def fault(field: str, reason: str) -> Fault:
    """Both cut to their lengths, and UTF-8 whatever the record held: they become headers of its
    quarantine record."""
    return _clipped(field, FIELD_CHARS_MAX), _clipped(reason, REASON_CHARS_MAX)


def _clipped(text: str, chars_max: int) -> str:
    text = text if len(text) <= chars_max else f"{text[: chars_max - 3]}..."
    return text.encode("utf-8", "backslashreplace").decode()


def string_faults(
    name: str, value: Any, needed: bool, filled: bool = False, bytes_max: int = STRING_BYTES_MAX
) -> Iterator[Fault]:
    """What is wrong with a string field: `needed` = not null, `filled` = not empty."""
    if value is None:
        if needed:
            yield name, "is missing; send it as a string"
        return
    if not isinstance(value, str):
        yield name, f"is {shown(value)}; send it as a string"
        return
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        half, at = f"\\u{ord(value[error.start]):04x}", error.start
        yield (
            name,
            f"is {shown(value)}: {half} at character {at} is half of a character; send it whole, "
            f"or not at all",
        )
        return
    if filled and not value:
        yield name, "is empty; send a string that names it"
    elif size > bytes_max:
        yield name, f"has {size} bytes ({shown(value)}); allowed are {bytes_max}"


def time_faults(name: str, value: Any) -> Iterator[Fault]:
    """What is wrong with a time, which must be given: milliseconds since 1970."""
    if value is None:
        yield name, "is missing; send the event time in milliseconds since 1970 as an integer"
    elif isinstance(value, bool) or not isinstance(value, int):
        yield name, f"is {shown(value)}; send milliseconds since 1970 as an integer"
    elif 0 < value < TS_MS_MIN:
        yield (
            name,
            f"is {value}, which looks like seconds; send milliseconds since 1970 ({value}000?)",
        )
    elif not TS_MS_MIN <= value < TS_MS_MAX:
        yield (
            name,
            f"is {_digits(value)}; send milliseconds since 1970, between {TS_MS_MIN} and "
            f"{TS_MS_MAX}",
        )


def float_faults(name: str, value: Any, fix: str) -> Iterator[Fault]:
    """What is wrong with a number that a float32 is to hold. `fix`: what to send where it is
    none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield name, f"is {shown(value)}; {fix}"
    elif not abs(value) <= FLOAT32_MAX:
        yield name, f"is {shown(value)}; send a number that a 32-bit float holds"


def integer_faults(name: str, value: Any, why: str) -> Iterator[Fault]:
    """What is wrong with an integer of 64 bits. `why` it must be one."""
    if isinstance(value, bool) or not isinstance(value, int):
        yield name, f"is {shown(value)}; {why}: send it without quotes and fractions"
    elif not -(2**63) <= value < 2**63:
        yield name, f"is {shown(value)}; {why}: send one of 64 bits"


def is_nan(value: Any) -> bool:
    """Whether it is the float that stands for a missing one."""
    return isinstance(value, float) and value != value


def _digits(value: int) -> str:
    return (
        str(value)
        if value.bit_length() <= 128
        else f"an integer of about {value.bit_length() * 3 // 10} digits"
    )


def shown(value: Any, bare: bool = False) -> str:
    """A value for a message: what it is, cut short, with its length where it was. `bare`:
    without what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, str):
        cut = value if len(value) <= VALUE_CHARS_MAX else value[:VALUE_CHARS_MAX]
        text = repr(cut) if cut is value else f"{cut!r}... of {len(value)} characters"
        return text if bare else f"the string {text}"
    if isinstance(value, int):
        return f"the number {_digits(value)}"
    if isinstance(value, float):
        return f"the number {value!r}"
    if isinstance(value, ManyDigits):
        return repr(value)
    size = f" of {len(value)}" if isinstance(value, list | dict) and len(value) > 3 else ""
    return f"a {type(value).__name__}{size}: {_clipped(_short.repr(value), 2 * VALUE_CHARS_MAX)}"
