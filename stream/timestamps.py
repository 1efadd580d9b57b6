"""A moment as people write it."""

import re
from contextlib import suppress

import numpy as np

_WRITTEN = re.compile(r"\d{4}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,3})?)?)?)?Z?")
#: A plain number below is no time in milliseconds that anybody means: a year, or seconds.
_LEAST_MS = 100_000_000_000
#: The last moment that a calendar has, ms: what is above is in microseconds or nanoseconds.
MOMENT_MAX_MS = 253_402_300_799_999


def parse_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO date or time in UTC ("2026-11-01", "2026-11-01T13:30",
    "...T13:30:05Z"), or of a plain number of milliseconds. Raises ValueError."""
    with suppress(ValueError):  # more digits than `int` reads
        if text.isdecimal() and _LEAST_MS <= int(text) <= MOMENT_MAX_MS:
            return int(text)
    with suppress(ValueError):  # written like a date, and none: the error below says so
        if _WRITTEN.fullmatch(text):
            return int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64))
    raise ValueError(
        f"moment {text!r}: allowed is a time in UTC such as 2026-11-01T13:30:00, or milliseconds "
        f"since 1970"
    )


def show_ms(ms: int) -> str:
    """The moment in UTC, to the second."""
    return str(np.datetime64(ms, "ms").astype("datetime64[s]"))
