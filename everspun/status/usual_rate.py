"""Whether a stream has stopped, by its own usual rate at that hour of the week (pure).

Rows counted second by second are summed by hour of the week; what each hour usually brings is the
mean of the weeks seen, the recent ones more. A silence is a stop where that rate would have brought
many rows by now.
"""

import math
from dataclasses import dataclass, field

HOUR_MS = 3_600_000
HOURS = 168
#: What a silence must have cost, in rows that were to be expected, and how long it must be: rows
#: come in page views.
ROWS_MISSED_MIN = 30.0
SILENCE_MIN_MS = 30_000
#: An hour counts once so much of it was seen.
SEEN_MIN_MS = 60_000
NEWEST_SHARE = 0.5


@dataclass
class UsualRate:
    """Rows a ms by hour of the week, and when the last row came. Times are wall-clock ms; a step of
    the clock counts for nothing."""

    rates: list[float | None] = field(default_factory=lambda: [None] * HOURS)
    last_row_ms: int = 0
    _hour: int = -1
    _rows: float = 0.0
    _seen_ms: int = 0
    _looked_ms: int = 0

    @classmethod
    def of(cls, kept: object) -> "UsualRate":
        """From what `kept` said, by whoever wrote it. Raises ValueError for what is nothing of
        the kind."""
        try:
            rates = [None if rate is None else float(rate) for rate in kept["rates"]]  # type: ignore[index]
            hour, rows, seen_ms = kept["open"]  # type: ignore[index]
            found = cls(rates, 0, int(hour), float(rows), int(seen_ms))
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError(f"no usual rate: {error!r}") from error
        numbers = [rate for rate in rates if rate is not None] + [found._rows]
        if len(rates) != HOURS or not -1 <= found._hour < HOURS or found._seen_ms < 0:
            raise ValueError(f"no usual rate: {len(rates)} hours, hour {hour}")
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("no usual rate: a number of rows that cannot be")
        return found

    def kept(self) -> dict[str, object]:
        """All that another one needs to go on, for JSON. How long the stream is silent is found
        anew, and what came between the two counts for nothing."""
        return {"rates": self.rates, "open": [self._hour, self._rows, self._seen_ms]}

    def look(self, now_ms: int, new_rows: float) -> None:
        """So many rows came since the last look."""
        hour = now_ms // HOUR_MS % HOURS
        if hour != self._hour:
            self._close()
            self._hour = hour
        passed = now_ms - self._looked_ms
        if self._looked_ms and 0 <= passed <= HOUR_MS:
            self._seen_ms += passed
            self._rows += new_rows
        self._looked_ms = now_ms
        if new_rows > 0 or not self.last_row_ms or now_ms < self.last_row_ms:
            self.last_row_ms = now_ms

    def _close(self) -> None:
        if self._hour >= 0 and self._seen_ms >= SEEN_MIN_MS:
            rate, before = self._rows / self._seen_ms, self.rates[self._hour]
            self.rates[self._hour] = (
                rate if before is None else before + NEWEST_SHARE * (rate - before)
            )
        self._rows, self._seen_ms = 0.0, 0

    def usual(self) -> float | None:
        """Rows a ms that this hour usually brings: in earlier weeks, else a day ago, else in the
        hour before, else in this hour until its last row. None while nothing is known."""
        if self._hour < 0:
            return None
        for hour in (self._hour, (self._hour - 24) % HOURS, (self._hour - 1) % HOURS):
            if (rate := self.rates[hour]) is not None:
                return rate
        until_ms = self._seen_ms - (self._looked_ms - self.last_row_ms)
        return self._rows / until_ms if until_ms >= SEEN_MIN_MS else None

    def silent_ms(self) -> int:
        return max(0, self._looked_ms - self.last_row_ms) if self.last_row_ms else 0

    def stopped(self) -> bool:
        usual, silent_ms = self.usual(), self.silent_ms()
        return (
            usual is not None
            and silent_ms >= SILENCE_MIN_MS
            and usual * silent_ms >= ROWS_MISSED_MIN
        )

    def said(self) -> dict[str, object]:
        """For `launcher.json`: what `everspun status` and Prometheus are told."""
        usual = self.usual()
        return {
            "stopped": self.stopped(),
            "silent_s": self.silent_ms() / 1_000,
            "last_row_ms": self.last_row_ms,
            "usual_rows_per_minute": None if usual is None else usual * 60_000,
        }
