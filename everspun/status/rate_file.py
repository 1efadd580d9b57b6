"""The usual rate of a stream as it is kept in the run's folder, so that a launcher that starts
again knows it."""

import json
from pathlib import Path

from everspun.status.usual_rate import UsualRate

NAME = "usual_rate.json"
#: How often it is written, ms: so much of an hour is forgotten by one that is killed.
WRITE_EVERY_MS = 60_000


class RateFile:
    """Of a few kilobytes, whatever happens: a number for each hour of the week."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "state" / NAME
        self._written_ms = 0

    def read(self) -> UsualRate:
        """What was known; nothing where there is no file, or it says nothing."""
        try:
            return UsualRate.of(json.loads(self.path.read_bytes()))
        except (OSError, ValueError, OverflowError, RecursionError):
            return UsualRate()

    def write(self, usual: UsualRate, now_ms: int) -> None:
        """Now and then, whole or not at all. Raises OSError."""
        if 0 <= now_ms - self._written_ms < WRITE_EVERY_MS:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(usual.kept()))
        draft.replace(self.path)
        self._written_ms = now_ms
