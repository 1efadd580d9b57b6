"""A moment as people write it."""

import numpy as np


def parse_ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO date or time in UTC ("2026-11-01", "2026-11-01T13:30", "...T13:30:05Z"), or of
    a plain number of milliseconds. Raises ValueError."""
    if text.isdigit():
        return int(text)
    try:
        return int(np.datetime64(text.strip().removesuffix("Z"), "ms").astype(np.int64))
    except ValueError:
        raise ValueError(
            f"moment {text!r}: allowed is a time in UTC such as 2026-11-01T13:30:00, or milliseconds since 1970"
        ) from None


def show_ms(ms: int) -> str:
    """The moment in UTC, to the second."""
    return str(np.datetime64(ms, "ms").astype("datetime64[s]"))
