"""What a replay writes, in order: a pure function of the history and the configuration.

The history is cut into *periods* by barriers (E3). A period is written in order of arrival: page
views (the impressions of one session at one millisecond), clicks, and history's own heartbeats
(T2), and ends with a heartbeat in every partition of both topics that carries `barrier=k`. The
replay's clock is the history's.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge

import numpy as np

from everspun.config import ReplayConfig
from everspun.replay.history import History
from everspun.replay.visits import with_visits
from stream import StreamConfig
from stream.columns import NO_POSITION
from stream.hashing import Pseudonymiser

PRODUCER = "everspun-replay"


@dataclass(frozen=True)
class PlannedRecord:
    """One record to append. A heartbeat has no key and stands for one in every partition of both
    topics."""

    arrival_ms: int
    kind: str  # "impression" | "click" | "heartbeat"
    key: bytes | None = None
    value: bytes | None = None
    rows: int = 0


@dataclass(frozen=True)
class PlannedAnswers:
    """What the replica said of a period's impressions: one probability a row, of one model
    version."""

    probabilities: list[float]
    model_version: str


@dataclass(frozen=True)
class Period:
    """Barrier `number` closes it at `end_ms`; the last one of a replay without barriers has
    number 0."""

    number: int
    start_ms: int
    end_ms: int
    first: int  # impressions [first, last)
    last: int
    first_click: int
    last_click: int


class ReplayPlan:
    """The periods of a replay, and the lines of each."""

    def __init__(
        self,
        history: History,
        stream: StreamConfig,
        replay: ReplayConfig,
        pseudonyms: Pseudonymiser,
    ) -> None:
        self.history = with_visits(history, replay.seen_max) if replay.seen_max else history
        self.stream = stream
        self.barrier_ms = replay.barrier_ms
        self.impressions = min(replay.limit or len(history), len(history))
        kept = np.flatnonzero(history.click_impression < self.impressions)
        self.click_impression = history.click_impression[kept]
        self.click_ts_ms = history.click_ts_ms[kept]
        self._pseudonyms = pseudonyms
        self._names = sorted({name for row in self.history.features for name in row})
        self._known: dict[str, str] = {}
        if replay.barrier_ms and (
            replay.barrier_ms % stream.signal_ms or replay.barrier_ms % stream.flush_ms
        ):
            raise ValueError(
                f"replay.barrier_ms = {replay.barrier_ms}: a multiple of stream.signal_ms = "
                f"{stream.signal_ms} "
                f"and of stream.flush_ms = {stream.flush_ms} (E3)"
            )

    @property
    def start_ms(self) -> int:
        return int(self.history.ts_ms[0])

    @property
    def quiet_ms(self) -> int:
        """From here on the log needs no more time to decide everything: the last heartbeat but
        one (T2)."""
        stream = self.stream
        last = int(self.history.ts_ms[self.impressions - 1])
        if len(self.click_ts_ms):
            last = max(last, int(self.click_ts_ms[-1]))
        return last + stream.wait_last_ms + stream.signal_ms + stream.flush_ms + 1

    @property
    def last_ms(self) -> int:
        """The last heartbeat's stamp: by it the breaker's early join has closed the range of the
        one before (T2)."""
        stream = self.stream
        return self.quiet_ms + stream.wait_ms + stream.signal_ms + stream.flush_ms

    def periods(self) -> Iterator[Period]:
        """Periods in order; with barriers the last one ends at the first multiple at or after
        `quiet_ms`."""
        step = self.barrier_ms
        if not step:
            yield Period(
                0, self.start_ms, self.quiet_ms, 0, self.impressions, 0, len(self.click_ts_ms)
            )
            return
        start, number = self.start_ms, 0
        while start < self.quiet_ms:
            number += 1
            end = (start // step + 1) * step
            first, last = np.searchsorted(self.history.ts_ms[: self.impressions], [start, end])
            c_first, c_last = np.searchsorted(self.click_ts_ms, [start, end])
            yield Period(number, start, end, int(first), int(last), int(c_first), int(c_last))
            start = end

    def pseudonym(self, identifier: str) -> str:
        known = self._known.get(identifier)
        if known is None:
            known = self._known[identifier] = self._pseudonyms(identifier)
        return known

    def columns(self, period: Period) -> dict[str, list[object]]:
        """The columns to ask the replica with, one row an impression of the period."""
        history, rows = self.history, slice(period.first, period.last)
        columns: dict[str, list[object]] = {
            "source": [self.pseudonym(s) for s in history.sources[rows]],
            "vendor": list(history.vendors[rows]),
            "item": list(history.items[rows]),
        }
        columns["ts_ms"] = list(history.ts_ms[rows].tolist())
        for name in self._names:
            columns[name] = [row.get(name) for row in history.features[rows]]
        return columns

    def lines(self, period: Period, answers: PlannedAnswers | None) -> Iterator[PlannedRecord]:
        """All records of a period in order of arrival; at one time heartbeats stand first, then
        impressions."""
        return merge(
            self._heartbeats(period),
            self._page_views(period, answers),
            self._clicks(period),
            key=lambda line: line.arrival_ms,
        )

    def _heartbeats(self, period: Period) -> Iterator[PlannedRecord]:
        step = self.stream.heartbeat_ms
        if period.start_ms == self.start_ms:
            yield PlannedRecord(
                self.start_ms, "heartbeat"
            )  # the first stamp of a partition is believed by a heartbeat (T3)
        for ts in range((period.start_ms // step + 1) * step, period.end_ms, step):
            yield PlannedRecord(ts, "heartbeat")

    def _page_views(
        self, period: Period, answers: PlannedAnswers | None
    ) -> Iterator[PlannedRecord]:
        at = period.first
        while at < period.last:
            end = at + 1
            while end < period.last and self._same_view(at, end):
                end += 1
            yield self._page_view(at, end, period.first, answers)
            at = end

    def _same_view(self, one: int, other: int) -> bool:
        history = self.history
        return bool(
            history.ts_ms[one] == history.ts_ms[other]
            and history.sessions[one] == history.sessions[other]
            and history.planted[one] == history.planted[other]
        )

    def _page_view(
        self, at: int, end: int, first: int, answers: PlannedAnswers | None
    ) -> PlannedRecord:
        history = self.history
        session, ts = self.pseudonym(history.sessions[at]), int(history.ts_ms[at])
        shown = []
        for i in range(at, end):
            row: dict[str, object] = {
                "id": history.ids[i],
                "item": history.items[i],
                "vendor": history.vendors[i],
            }
            if history.features:
                row["features"] = history.features[i]
                if history.shown_at[i] != NO_POSITION:
                    row["position"] = history.shown_at[i]
            if answers is not None:
                row["prediction"] = round(answers.probabilities[i - first], 7)
                row["model_version"] = answers.model_version
            shown.append(row)
        source = self.pseudonym(history.sources[at])
        body = {"ts_ms": ts, "session": session, "source": source, "impressions": shown}
        return PlannedRecord(ts, "impression", session.encode(), _json(body), end - at)

    def _clicks(self, period: Period) -> Iterator[PlannedRecord]:
        history = self.history
        for c in range(period.first_click, period.last_click):
            i, ts = int(self.click_impression[c]), int(self.click_ts_ms[c])
            session = self.pseudonym(history.sessions[i])
            body = {
                "id": history.ids[i],
                "ts_ms": ts,
                "session": session,
                "source": self.pseudonym(history.sources[i]),
                "item": history.items[i],
                "vendor": history.vendors[i],
            }
            yield PlannedRecord(ts, "click", session.encode(), _json(body), 1)


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
