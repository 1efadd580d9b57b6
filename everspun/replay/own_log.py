"""A log of a user's own, as docs/events.md has it: JSON lines, sorted or nearly, read as a stream.

A line is an impression, a page view, a click, an array, or one of these as a CloudEvent. Memory is
that of `disorder_ms` of events, and of the names of the newest impressions; never that of the file.
"""

import gzip
import json
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from heapq import merge as merge_sorted
from pathlib import Path
from typing import IO, Any, NamedTuple

from stream.columns import TS_MS_MAX, TS_MS_MIN
from stream.decoding import NoEvent, objects_of, unwrapped_value

IMPRESSIONS, CLICKS = "impressions", "clicks"
#: Events that wait to be put in order, at most.
WAITING_MAX = 200_000
#: Names of impressions that are remembered, to tell a click in the same file from an impression
#: shown again.
NAMES_MAX = 500_000
LINE_BYTES_MAX = 16 * 1024 * 1024
#: The field that says what an event of a mixed file is; the pipeline passes over it.
EVENT = "event"
#: The field that says that a row of a catalogue is no more.
DELETED = "deleted"
_KIND_OF = {"impression": IMPRESSIONS, "page_view": IMPRESSIONS, "click": CLICKS}
_OF_IMPRESSIONS_ONLY = ("impressions", "position", "prediction", "model_version", "features")
_OF_IMPRESSIONS = ("source", "vendor", "item")


class OwnLogError(ValueError):
    """What is wrong with the file, in one line that names it and the line."""


class Event(NamedTuple):
    """One record to be: an event, a page view, a row of a catalogue, or a line that nobody can read
    (`ts_ms` is then that of what stands before it). `session` of a row: its key. `number` counts
    lines from 1."""

    ts_ms: int
    kind: str
    session: str | None
    value: bytes | None  # None = a row that is deleted
    file: str
    number: int
    rows: int


@dataclass
class OwnFile:
    """One file. `kind` is what all of it holds; None = each event says, by its fields, or by
    `event`. With `is_catalogue` it holds rows of the catalogue `kind`, each with a `key` and a
    `ts_ms`, or `deleted`."""

    path: Path
    kind: str | None = None
    is_catalogue: bool = False
    bytes_read: int = 0  # of the file as it stands on the disk, for progress
    unknown_clicks: int = (
        0  # taken for clicks by their fields, on no impression that stood before them
    )
    _names: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)
    _last_ms: int = 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def events(self) -> Iterator[Event]:
        """In the order of the file. Raises OwnLogError."""
        number, read = 0, 0
        try:
            with self.path.open("rb") as raw:
                packed = self.path.suffix == ".gz"
                lines: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
                while line := lines.readline(LINE_BYTES_MAX + 1):
                    number += 1
                    if len(line) > LINE_BYTES_MAX:
                        raise OwnLogError(
                            f"{self.path} line {number}: longer than {LINE_BYTES_MAX} bytes"
                        )
                    self.bytes_read = raw.tell()
                    if text := line.strip():
                        read += 1
                        yield from self.line(text, number, read == 1)
        except (OSError, EOFError, zlib.error) as error:
            behind = f" behind line {number}" if number else ""
            raise OwnLogError(f"{self.path}{behind}: {error}") from error

    def line(self, text: bytes, number: int, is_first: bool = False) -> Iterator[Event]:
        """Of one line, not empty. Raises OwnLogError."""
        try:
            inner = unwrapped_value(text)
            said = json.loads(inner)
        except NoEvent:
            yield self._unreadable(text, number)  # quarantined by name, as it stands
            return
        except (ValueError, RecursionError) as error:
            if is_first:
                raise OwnLogError(
                    f"{self.path} line {number}: not JSON ({error}); expected an event a line"
                ) from error
            yield self._unreadable(text, number)
            return
        if not isinstance(said, list):
            yield self._event(said, text, number)
            return
        parts = objects_of(inner)  # as they were written, so that what is wrong with one is judged
        if len(parts) != len(said):
            yield self._unreadable(text, number)
            return
        for one, part in zip(said, parts, strict=True):
            yield self._event(one, part, number)

    def _unreadable(self, text: bytes | None, number: int) -> Event:
        return Event(self._last_ms, self.kind or IMPRESSIONS, None, text, self.path.name, number, 0)

    def _event(self, said: Any, text: bytes | None, number: int) -> Event:
        if not isinstance(said, dict):
            return self._unreadable(text, number)
        kind, session, ts_ms = self._kind(said, number), said.get("session"), said.get("ts_ms")
        if (
            isinstance(ts_ms, bool)
            or not isinstance(ts_ms, int)
            or not TS_MS_MIN <= ts_ms < TS_MS_MAX
        ):
            ts_ms = self._last_ms
        if not ts_ms and self.is_catalogue:
            raise OwnLogError(
                f"{self.path} line {number}: says no ts_ms, from when on the row holds; send "
                f"milliseconds since 1970"
            )
        self._last_ms = ts_ms
        if self.is_catalogue:
            session, text = said.get("key"), None if said.get(DELETED) is True else text
        shown = said.get("impressions")
        rows = len(shown) if isinstance(shown, list) else 1
        known = session if isinstance(session, str) and _is_text(session) else None
        return Event(ts_ms, kind, known, text, self.path.name, number, rows)

    def _kind(self, said: dict[str, Any], number: int) -> str:
        if self.kind is not None:
            return self.kind
        where = f"{self.path} line {number}"
        if EVENT in said:
            kind = _KIND_OF.get(said[EVENT]) if isinstance(said[EVENT], str) else None
            if kind is None:
                raise OwnLogError(
                    f"{where}: {EVENT} is {said[EVENT]!r:.60}; allowed are {', '.join(_KIND_OF)}"
                )
            return kind
        if "click" in said:
            raise OwnLogError(
                f"{where}: a click names its impression by `id` and `session` (docs/events.md), "
                f"not by `click`"
            )
        if any(name in said for name in _OF_IMPRESSIONS_ONLY):
            self._remember(said, number)
            return IMPRESSIONS
        given = sum(name in said for name in _OF_IMPRESSIONS)
        if "id" in said and given < len(_OF_IMPRESSIONS):
            return self._click(said, given, where)
        if (seen := self._remember(said, number)) is not None:
            raise OwnLogError(
                f"{where}: is it a click on what line {seen} shows, or shown again? Two kinds in "
                f"one file that look "
                f"alike: put clicks into a file of their own (--clicks), or give each event "
                f'"{EVENT}": "impression" '
                'or "click"'
            )
        return IMPRESSIONS

    def _click(self, said: dict[str, Any], given: int, where: str) -> str:
        """A click, by what an impression must have and it has not."""
        if (str(said.get("session")), str(said["id"])) not in self._names:
            if given and not self._names:
                missing = next(name for name in _OF_IMPRESSIONS if name not in said)
                raise OwnLogError(
                    f"{where}: a click, or an impression without {missing}? Give each event "
                    f'"{EVENT}": "impression" or '
                    '"click", or put clicks into a file of their own (--clicks)'
                )
            self.unknown_clicks += 1
        return CLICKS

    def _remember(self, said: dict[str, Any], number: int) -> int | None:
        """The line where an impression of this name stood before."""
        found = None
        shown = said.get("impressions")
        for one in shown if isinstance(shown, list) else [said]:
            name = (str(said.get("session")), str(one.get("id") if isinstance(one, dict) else ""))
            found = found or self._names.get(name)
            self._names[name] = number
        while len(self._names) > NAMES_MAX:
            self._names.popitem(last=False)
        return found


def _is_text(text: str) -> bool:
    return re.search("[\ud800-\udfff]", text) is None


def in_order(events: Iterator[Event], disorder_ms: int) -> Iterator[Event]:
    """The events by time, those of one time as they came. Raises OwnLogError for one that is older
    than what came before it by more than `disorder_ms`."""
    waiting: list[tuple[int, int, Event]] = []
    newest: Event | None = None
    for count, event in enumerate(events):
        if newest is not None and event.ts_ms < newest.ts_ms - disorder_ms:
            raise OwnLogError(
                f"{event.file} line {event.number}: {(newest.ts_ms - event.ts_ms) / 1_000:.0f} s "
                f"older than line "
                f"{newest.number}, allowed are {disorder_ms / 1_000:g} (--disorder-s): sort by "
                f"ts_ms, or see which of "
                "the two times is wrong"
            )
        newest = event if newest is None or event.ts_ms > newest.ts_ms else newest
        heappush(waiting, (event.ts_ms, count, event))
        while waiting and (
            waiting[0][0] <= newest.ts_ms - disorder_ms or len(waiting) > WAITING_MAX
        ):
            yield heappop(waiting)[2]
    while waiting:
        yield heappop(waiting)[2]


def merged(files: list[OwnFile], disorder_ms: int) -> Iterator[Event]:
    """The events of all files by time; at one time impressions stand before clicks if their file
    is named first."""
    streams = [in_order(one.events(), disorder_ms) for one in files]
    return merge_sorted(*streams, key=lambda event: event.ts_ms)
