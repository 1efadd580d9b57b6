"""A moment is read one way or refused."""

import pytest

from stream.timestamps import parse_ms, show_ms

NOON = 1_793_534_400_000  # 2026-11-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-01", NOON - 43_200_000),
        ("2026-11-01T12:00", NOON),
        ("2026-11-01 12:00:00", NOON),
        ("2026-11-01T12:00:00.250Z", NOON + 250),
        (str(NOON), NOON),
    ],
)
def test_a_time_in_utc_or_milliseconds(text: str, ms: int):
    assert parse_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "1793534400",
        "now",
        "today",
        "NaT",
        "2026-13-01",
        "2026-11-01T12:00+02:00",
        "12:00",
        "-5",
        "yesterday",
        "1793534400000000",  # microseconds
        "1793534400000000000",  # nanoseconds
        30 * "9",
        5_000 * "9",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str):
    with pytest.raises(ValueError, match="allowed is a time in UTC such as"):
        parse_ms(text)


def test_what_is_shown_can_be_written():
    assert show_ms(NOON) == "2026-11-01T12:00:00"
    assert parse_ms(show_ms(NOON)) == NOON
