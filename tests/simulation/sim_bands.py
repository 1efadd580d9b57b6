"""What the breaker must have counted and remembered, and what must stand in `verdicts` before it
says more (L8, L9).

The recount folds the chains of `tallies` itself and adds up each cell, and sees every verdict,
record of `bands` and watermark land. Two judges may be about, die between any two writes, and be
replaced unawares.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sim_decoded import header_of
from sim_log import Message
from sim_scenario import BREAKER, Scenario
from sim_violation import Violation

from labeler.breaker import Breaker, decode_band, decode_tally, scope_of, tally_stream
from labeler.breaker.band_record import BandRecord
from labeler.breaker.rules import RELEASED
from stream import Record
from stream.internal_topics import (
    OPERATOR,
    RELEASE,
    WITHHOLD,
    Verdict,
    Watermark,
    decode_verdict,
)

Scope = tuple[str, str]
Counts = dict[Scope, list[int]]


@dataclass
class Tallied:
    """One partition of `tallies`, folded."""

    end: int = 0
    barrier: int = 0
    arrival_ms: int = 0
    first_ms: int = 0
    parts: list[tuple[int, dict[int, Counts]]] = field(
        default_factory=list
    )  # arrival before, cell -> counts


class BandsWatch:
    def __init__(self, scenario: Scenario) -> None:
        self.stream, self.verdicts = (
            tally_stream(scenario.stream, BREAKER),
            scenario.stream.verdicts,
        )
        self.tallies = {p: Tallied() for p in range(scenario.stream.partitions)}
        self.remembered = Breaker(self.stream, BREAKER)  # what a judge that starts now knows
        self.records = 0
        self.said: set[str] = set()
        self.withheld: dict[
            Scope, set[int]
        ] = {}  # cells that some verdict of the breaker withholds
        self.freed: set[Scope] = set()  # an operator has said of these that they are healthy
        self.watermarks: dict[str, int] = {}
        self.values: dict[
            tuple[int, int], bytes
        ] = {}  # (cell, words read) -> what was judged of it

    def landed(self, message: Message, record: Record) -> None:
        if message.topic == self.stream.tallies:
            self._tally(self.tallies[message.partition], record)
        elif message.topic == self.stream.bands:
            self._band(decode_band(record))
        elif message.topic == self.verdicts:
            said = decode_verdict(record.value or b"")
            if isinstance(said, Watermark):
                self._watermark(said)
            else:
                self._verdict(said)

    def remembers(self, who: str, judge: Breaker, records: int) -> None:
        """A judge has said watermarks, and wrote the last of so many records of `bands`: it
        knows what they say."""
        if records != self.records:
            return
        for name in ("trips", "bands"):
            has, should = (getattr(self, f"_{name}_of")(one) for one in (judge, self.remembered))
            if has != should:
                odd = sorted(k for k in has.keys() | should.keys() if has.get(k) != should.get(k))
                one = odd[0]
                raise Violation(
                    "L9",
                    f"{who} knows {name} {one} as {has.get(one)}, a new one as {should.get(one)}",
                )

    @staticmethod
    def _trips_of(breaker: Breaker) -> Mapping[Scope, object]:
        return {scope: (trip.rule, trip.since, trip.base) for scope, trip in breaker.trips.items()}

    @staticmethod
    def _bands_of(breaker: Breaker) -> Mapping[Scope, object]:
        b = breaker.bands
        columns = (b._impressions, b._clicks, b._squares, b._deviation, b._good)
        seen = {
            s: np.concatenate([c[:, at] for c in columns]).tolist() for s, at in b.index.items()
        }
        return {s: counts for s, counts in seen.items() if any(counts[: len(b._impressions)])}

    # --- what lands ---

    def _tally(self, at: Tallied, record: Record) -> None:
        header = header_of(record.headers)
        if header.start == header.end <= at.end and header.barrier > at.barrier:
            at.barrier, at.arrival_ms = (
                header.barrier,
                max(at.arrival_ms, header.ts_ms_max - self.stream.wait_ms),
            )
        if not header.start <= at.end < header.end:
            return
        if header.start < at.end:
            raise Violation(
                "C2", f"a tally of {header.chain} reaches over {at.end}: it holds counts"
            )
        cells: dict[int, Counts] = {}
        for row in decode_tally(record.value).to_pylist() if record.value else ():
            scopes = cells.setdefault(row["cell_ms"] // BREAKER.cell_ms, {})
            counts = scopes.setdefault((row["feature"], row["value"]), [0, 0])
            counts[0] += row["impressions"]
            counts[1] += row["clicks"]
        at.parts.append((at.arrival_ms, cells))
        at.end, at.arrival_ms = header.end, max(at.arrival_ms, header.arrival_max_ms)
        at.first_ms = at.first_ms or header.arrival_max_ms

    def _band(self, band: BandRecord) -> None:
        self.records += 1
        value = self.values.setdefault((band.cell, band.verdicts_offset), band.value)
        if value != band.value:
            raise Violation("L9", f"cell {band.cell} is judged twice, and not the same")
        last = self.remembered.bands.last if self.remembered.bands.first is not None else None
        if last is not None and band.cell <= last:
            return
        if last is not None and band.cell != last + 1:
            raise Violation("L9", f"cell {band.cell} is judged after cell {last}")
        self._check_counts(band)
        self._check_said(band)
        self.remembered.remember(band)

    def _check_counts(self, band: BandRecord) -> None:
        passed_ms = (band.cell + 1) * BREAKER.cell_ms + BREAKER.settle_ms
        for p, at in self.tallies.items():
            if at.arrival_ms < passed_ms:
                raise Violation(
                    "L9",
                    f"cell {band.cell} is judged, and partition {p} is tallied to {at.arrival_ms}",
                )
        true: Counts = {}
        for at in self.tallies.values():
            for before_ms, cells in at.parts:
                for scope, counts in (
                    cells.get(band.cell, {}).items() if before_ms < passed_ms else ()
                ):
                    total = true.setdefault(scope, [0, 0])
                    total[0] += counts[0]
                    total[1] += counts[1]
        counted = {row.scope: [row.impressions, row.clicks] for row in band.rows if row.impressions}
        if counted != true:
            raise Violation("L9", f"cell {band.cell} counts {counted}, the tallies say {true}")

    def _check_said(self, band: BandRecord) -> None:
        """F2: what the record says is withheld stands in `verdicts`."""
        for row in band.rows:
            if row.rule and not row.ended and row.rule != RELEASED:
                cells = range(
                    row.since if row.scope not in self.remembered.trips else band.cell,
                    band.cell + 1,
                )
                missing = set(cells) - self.withheld.get(row.scope, set())
                if missing:
                    raise Violation(
                        "F2",
                        f"bands say that {row.scope} is withheld in {missing}, and no verdict does",
                    )

    def _verdict(self, said: Verdict) -> None:
        scope = scope_of(said)
        if said.rule == OPERATOR:
            if said.decision == RELEASE:
                self.freed.add(scope)
            return
        if said.id in self.said or not said.rule.startswith("breaker/"):
            return
        self.said.add(said.id)
        first, last = said.from_ms // BREAKER.cell_ms, said.to_ms // BREAKER.cell_ms
        if said.decision == WITHHOLD:
            self.withheld.setdefault(scope, set()).update(range(first, last))
        if scope not in self.freed and self._low_ms() >= said.to_ms + BREAKER.settle_ms:
            raise Violation(
                "F3",
                f"{said.id} stands behind watermarks of {self._low_ms()} that say it was judged",
            )

    def _watermark(self, said: Watermark) -> None:
        if not said.input.startswith("breaker/"):
            return
        self.watermarks[said.input] = max(said.watermark_ms, self.watermarks.get(said.input, 0))
        low = self._low_ms()
        passed = (low - BREAKER.settle_ms) // BREAKER.cell_ms if low else 0
        first = min(at.first_ms for at in self.tallies.values()) // BREAKER.cell_ms
        bands = self.remembered.bands
        if passed > max(first, bands.last + 1 if bands.first is not None else 0):
            raise Violation(
                "F3",
                f"watermarks say that cells below {passed} are judged, and bands end at "
                f"{bands.last}",
            )

    def _low_ms(self) -> int:
        """Arrivals below this are judged, by the watermarks of all partitions."""
        low = min(self.watermarks.get(f"breaker/{p}", 0) for p in self.tallies)
        return low - self.stream.wait_ms if low else 0
