"""What counters and sequences may be declared with."""

import math
from typing import Protocol

RATE, SHOWS, CLICKS = GIVES = ("rate", "shows", "clicks")
#: `of` of a time that is the impression's own.
TS_MS = "ts_ms"
#: The most clicks of a sequence that are given.
CLICKS_MAX = 256


class _Kept(Protocol):
    """Of `stream.columns.declaration.Feature`."""

    @property
    def of(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def gives(self) -> str: ...
    @property
    def half_life_ms(self) -> int: ...
    @property
    def prior_shows(self) -> float: ...
    @property
    def prior_clicks(self) -> float: ...
    @property
    def max_values(self) -> int: ...
    @property
    def idle_ms(self) -> int: ...
    @property
    def ages(self) -> bool: ...
    @property
    def shares(self) -> str: ...
    @property
    def normalise(self) -> tuple[str, ...] | None: ...


def check_counter(declared: _Kept) -> None:
    """Raises ValueError naming the option and what is allowed."""
    if not declared.of or declared.of == TS_MS:
        raise ValueError(
            f"of = {declared.of!r}: a counter is of a categorical feature, or of item, vendor or "
            f"source"
        )
    if declared.half_life_ms < 0:
        raise ValueError(f"half_life_ms = {declared.half_life_ms}: allowed is 0 or more")
    if declared.gives not in GIVES:
        allowed = ", ".join(map(repr, GIVES))
        raise ValueError(f"gives = {declared.gives!r}: allowed are {allowed}")
    if not 0.0 < declared.prior_shows < math.inf or not 0.0 <= declared.prior_clicks < math.inf:
        raise ValueError(
            f"prior_shows = {declared.prior_shows}, prior_clicks = {declared.prior_clicks}: "
            f"allowed are finite numbers, above 0 and from 0 on"
        )


def check_sequence(declared: _Kept) -> None:
    """Raises ValueError naming the option and what is allowed."""
    for name in ("by", "of"):
        if (value := getattr(declared, name)) in ("", TS_MS):
            raise ValueError(
                f"{name} = {value!r}: a sequence is of values `of` that somebody clicked, kept "
                f"`by` who it was: each a categorical feature, or item, vendor or source"
            )
    if declared.max_values > CLICKS_MAX:
        raise ValueError(f"max_values = {declared.max_values}: allowed is 1 to {CLICKS_MAX}")
    if declared.idle_ms < 1:
        raise ValueError(f"idle_ms = {declared.idle_ms}: allowed is 1 or more")
    if declared.ages and (declared.shares or declared.normalise):
        raise ValueError("ages: they are no values, and have no `shares` and no `normalise`")
