"""The circuit breaker: tallies in; what is withheld out, then the settled cells, then watermarks
(L8, F2, F3).

A silent outage of clicks must not teach the model that nobody clicks. The early join
(`labeler.breaker.early_join`) knows within minutes how many impressions of each slice find a click;
labels are decided an hour later. A cell of event time is judged once every partition has passed it;
a scope that leaves its trailing band is withheld from the first bad cell on, cell by cell, until it
is back within the band that it had before, or an operator releases it.

Order of one step, and why a crash anywhere loses nothing (F2):
 1. `step` judges the cells that settle.
 2. The caller sends `step.verdicts`, acknowledged; then `step.bands`, acknowledged; then
    `step.watermarks`.
After a crash a new breaker is restored from `bands`: the last cell there names where to read
`tallies` on from. Cells judged and not written there are judged again, from the same counts, with
the same verdicts (F3).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from labeler.breaker.band_record import BandRecord, ScopeRow
from labeler.breaker.bands import EVERYTHING, GROUPS, Bands, Cell, Scope
from labeler.breaker.cells import OpenCell, OpenCells, Point
from labeler.breaker.rules import RELEASED, Trip, find, recovered
from labeler.breaker_config import VENDOR, BreakerConfig
from stream import StreamConfig
from stream.internal_topics import (
    OPERATOR,
    RELEASE,
    WITHHOLD,
    BatchHeader,
    Verdict,
    Watermark,
    breaker_input,
)


@dataclass(frozen=True)
class BreakerStep:
    """What to send, in this order, each once the one before is acknowledged."""

    verdicts: list[Verdict] = field(default_factory=list)
    bands: list[BandRecord] = field(default_factory=list)
    watermarks: list[Watermark] = field(default_factory=list)


class Breaker:
    """One judge over all partitions, restored from what `bands` holds."""

    def __init__(
        self, stream: StreamConfig, config: BreakerConfig, memory: Iterable[BandRecord] = ()
    ):
        """`memory`: the records of `bands`, from the oldest there is. `stream` is that of the
        early join."""
        self.config, self._stream = config, stream
        self.bands = Bands(config)
        self.trips: dict[Scope, Trip] = {}
        self.unwatched = 0  # scopes beyond scopes_max, by cell: an alarm
        self.verdicts_offset = 0
        self._released: list[Scope] = []
        self._said = dict.fromkeys(range(stream.partitions), 0)  # partition -> watermark
        points: Mapping[int, Point] = {}
        for record in memory:
            if self.remember(record):
                points = record.points
        last = self.bands.last if self.bands.first is not None else None
        next_cell = None if last is None else last + 1
        wait_ms, partitions = stream.wait_ms, stream.partitions
        self.cells = OpenCells(
            config.cell_ms, config.settle_ms, wait_ms, partitions, points, next_cell
        )

    def remember(self, record: BandRecord) -> bool:
        """A record of `bands`, on restoring. False for a cell that is known: its first record
        counts."""
        if self.bands.first is not None and record.cell <= self.bands.last:
            return False
        self.verdicts_offset = record.verdicts_offset
        self._add(record)
        self._apply(record)
        return True

    @property
    def settled_ms(self) -> int:
        """Event time below which everything is judged."""
        return (self.bands.last + 1) * self.config.cell_ms if self.bands.first is not None else 0

    @property
    def watermarks(self) -> dict[int, int]:
        """By partition, ms of arrival."""
        return self._said

    def on_operator(self, offset: int, said: Verdict) -> None:
        """A record of `verdicts`. A release that reaches beyond what is settled says that the scope
        is healthy as it is now: its band begins anew."""
        if offset < self.verdicts_offset:
            return
        self.verdicts_offset = offset + 1
        scope = scope_of(said)
        if (
            said.rule == OPERATOR
            and said.decision == RELEASE
            and scope in self.trips
            and said.to_ms > self.settled_ms
        ):
            self._released.append(scope)

    def on_tally(
        self, partition: int, offset: int, header: BatchHeader, rows: pa.RecordBatch | None
    ) -> None:
        """The next record of `tallies[partition]`; `rows` are a `TALLY_SCHEMA` batch, or None."""
        self.cells.take(partition, offset, header, rows)

    def step(self) -> BreakerStep:
        """Judge what has settled since the last step."""
        out = BreakerStep()
        for number, cell in self.cells.settle():
            record, verdicts = self._judge(number, cell)
            out.bands.append(record)
            out.verdicts.extend(verdicts)
        if out.bands:  # only now is it known where the cells that are still open begin
            out.bands[-1] = self._pointed(out.bands[-1])
        out.watermarks.extend(self._watermarks())
        return out

    # --- one cell
    # ----------------------------------------------------------------------------------------------

    def _judge(self, number: int, cell: OpenCell) -> tuple[BandRecord, list[Verdict]]:
        scopes, *columns, groups = cell.counts()
        packed = [row.tobytes() for row in groups.astype("<i4")]
        seen = zip(scopes, *(column.tolist() for column in columns), packed, strict=True)
        counts = BandRecord(
            number,
            cell.raw,
            cell.bad_clicks,
            cell.bad_impressions,
            self.verdicts_offset,
            {},
            tuple(ScopeRow(*one) for one in seen),
        )
        self._add(counts)
        rows: dict[Scope, ScopeRow] = {}
        verdicts: list[Verdict] = []
        for scope in self._released:
            if self.trips.pop(scope, None) is not None:
                rows[scope] = _word(scope, RELEASED, number, 0.0, True)
        self._released.clear()
        for scope, trip in sorted(self.trips.items()):
            since = recovered(self.config, self.bands, trip)
            if since is not None:
                rows[scope] = _word(scope, trip.rule, since, trip.base, True)
                verdicts.append(self._release(trip, since, number))
        self._apply(self._with(counts, rows))
        # One row of a record says one thing of a scope: what ends with this cell can begin anew
        # with the next one only.
        found = [
            trip for trip in find(self.config, self.bands, self.trips) if trip.scope not in rows
        ]
        for trip in found:
            rows[trip.scope] = _word(trip.scope, trip.rule, trip.since, trip.base)
            self.trips[trip.scope] = trip
        for scope, trip in sorted(self.trips.items()):
            rows.setdefault(scope, _word(scope, trip.rule, trip.since, trip.base))
            first = trip.since if trip in found else number
            verdicts.append(self._withhold(trip, first, number))
        record = self._with(counts, rows)
        self._apply(record)
        return record, verdicts

    def _with(self, counts: BandRecord, said: dict[Scope, ScopeRow]) -> BandRecord:
        """The cell's record with what is said of its scopes."""
        rows = {row.scope: row for row in counts.rows}
        for scope, row in said.items():
            seen = rows.get(scope, row)
            rows[scope] = replace(
                seen, rule=row.rule, since=row.since, base=row.base, ended=row.ended
            )
        return BandRecord(
            counts.cell,
            counts.raw,
            counts.bad_clicks,
            counts.bad_impressions,
            counts.verdicts_offset,
            {},
            tuple(rows[scope] for scope in sorted(rows)),
        )

    def _pointed(self, record: BandRecord) -> BandRecord:
        return BandRecord(
            record.cell,
            record.raw,
            record.bad_clicks,
            record.bad_impressions,
            self.verdicts_offset,
            self.cells.points(),
            record.rows,
        )

    def _add(self, record: BandRecord) -> None:
        """Counts of a cell into the bands."""
        places = [(self.bands.scope(row.scope), row) for row in record.rows]
        self.unwatched += sum(at is None for at, _ in places)
        impressions, clicks = (np.zeros(len(self.bands.scopes), np.int64) for _ in range(2))
        squares, deviation = (np.zeros(len(self.bands.scopes)) for _ in range(2))
        groups = np.zeros((len(self.bands.scopes), GROUPS), np.int64)
        for at, row in places:
            if at is not None:
                impressions[at], clicks[at] = row.impressions, row.clicks
                squares[at], deviation[at] = row.squares, row.deviation
                if row.groups:
                    groups[at] = np.frombuffer(row.groups, "<i4")
        totals = (record.raw, record.bad_clicks, record.bad_impressions)
        self.bands.add(record.cell, Cell(impressions, clicks, squares, deviation, groups, *totals))

    def _apply(self, record: BandRecord) -> None:
        """What a record says of scopes: who is withheld since when, who is healthy again. The
        same when restored."""
        for row in record.rows:
            at = None if row.scope == EVERYTHING else self.bands.scope(row.scope)
            if not row.rule or (at is None and row.scope != EVERYTHING):
                continue
            if row.rule == RELEASED:
                self.trips.pop(row.scope, None)
                self.bands.mark(at, 0, False)
            elif row.ended:
                self.trips.pop(row.scope, None)
                self.bands.mark(at, row.since, True)
            else:
                if row.scope not in self.trips:
                    self.trips[row.scope] = Trip(row.scope, row.rule, row.since, row.base)
                self.bands.mark(at, row.since, False)

    # --- what is said
    # ------------------------------------------------------------------------------------------

    def _withhold(self, trip: Trip, first: int, last: int) -> Verdict:
        return self._verdict(
            trip, WITHHOLD, first, last, trip.reason or f"{trip.rule}: not recovered yet"
        )

    def _release(self, trip: Trip, first: int, last: int) -> Verdict:
        return self._verdict(
            trip, RELEASE, first, last, f"{trip.rule}: back within the band from before it"
        )

    def _verdict(self, trip: Trip, decision: str, first: int, last: int, reason: str) -> Verdict:
        """A function of rule, scope and interval alone, but for its evidence (F3)."""
        from_ms, to_ms = first * self.config.cell_ms, (last + 1) * self.config.cell_ms
        feature, value = trip.scope
        named: dict[str, str | None] = {"vendor": None, "feature": None, "value": None}
        if feature == VENDOR:
            named["vendor"] = value
        elif feature:
            named |= {"feature": feature, "value": value}
        return Verdict(
            id=f"breaker/{trip.rule}/{decision}/{feature}={value}/{from_ms}/{to_ms}",
            rule=f"breaker/{trip.rule}",
            decision=decision,
            source=None,
            from_ms=from_ms,
            to_ms=to_ms,
            reason=reason,
            evidence=dict(trip.evidence) or {"base": trip.base},
            vendor=named["vendor"],
            feature=named["feature"],
            value=named["value"],
        )

    def _watermarks(self) -> list[Watermark]:
        """Of every partition as far as all are tallied, and no further: those of one that died
        between two of them stand beside the next one's, and their lowest must not say more than
        either has judged."""
        low_ms, out = self.cells.low_ms, []
        for p, said in self._said.items():
            end, watermark_ms = self.cells.end(p), low_ms + self._stream.wait_ms
            if end is not None and low_ms and watermark_ms > said:
                self._said[p] = watermark_ms
                out.append(Watermark(breaker_input(p), watermark_ms, end))
        return out


def _word(scope: Scope, rule: str, since: int, base: float, ended: bool = False) -> ScopeRow:
    """What is said of a scope, without its counts."""
    return ScopeRow(scope, 0, 0, rule=rule, since=since, base=base, ended=ended)


def scope_of(said: Verdict) -> Scope:
    """The breaker's name of a verdict's scope."""
    if said.vendor is not None:
        return (VENDOR, said.vendor)
    return (said.feature or "", said.value or "")


def open_scopes(verdicts: Sequence[Verdict], now_ms: int) -> dict[Scope, Verdict]:
    """The last word on each scope that reaches up to `now_ms` or beyond: what `everspun breaker
    list` shows."""
    out: dict[Scope, Verdict] = {}
    for said in verdicts:
        if said.decision in (WITHHOLD, RELEASE) and said.source is None and said.to_ms > now_ms:
            out[scope_of(said)] = said
    return {scope: said for scope, said in out.items() if said.decision == WITHHOLD}
