"""The labeler of one partition: records in, training batches out (L, C and E3 rules; the package
says how it works).

Pure: it is told what was read and answers what to write. Everything it writes is a function of the
logs, the config and the resume point; how records were polled changes nothing (I7).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from labeler.catalogues import JoinedCatalogues, PartitionCatalogues
from labeler.click_cache import ClickCopy, PagesFailed
from labeler.config import LabelerConfig, label_config_hash
from labeler.counts import JoinedCounts, PartitionCounts
from labeler.join import ResumePoint, clicks_intake, impressions_intake, label_strategies
from labeler.labels.batching import BatchRange
from labeler.labels.clicks import ClickBuffer, Passed
from labeler.labels.emission import (
    Emission,
    SideRecord,
    quarantine_records,
    rejected_records,
    rows_quarantined,
)
from labeler.labels.emitter import ExamplesEmitter, Reading
from labeler.labels.impressions import ImpressionBuffer, RangeContents
from labeler.labels.lost_range import LostRange, PartitionStop
from labeler.labels.operator_overrides import NO_OVERRIDES, OperatorOverrides
from labeler.labels.range_labels import RangeLabeler
from labeler.labels.verdict_index import Ruling, VerdictIndex
from stream import Record, StreamConfig, offset_of, position
from stream.decoding import ArrivalClock, MissingShares
from stream.hashing import key_id
from stream.internal_topics import BatchHeader, examples_schema, input_name, overrides_of, schema_id
from stream.log.rows import RowsFailed

#: Emissions of one `step` unless told otherwise.
STEP_MAX = 16


class PartitionLabeler:
    """Labels `impressions[partition]` from a resume point on.

    The shell reads impressions from `point.impressions_offset`, clicks from `clicks.offset` and
    verdicts from `point.verdicts_offset`, hands over what it reads while `wants_impressions()` and
    `wants_clicks()`, and writes what `step()` returns, in order, each after its `before` records
    (C6).
    """

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        partition: int,
        point: ResumePoint,
        verdict_index: VerdictIndex | None,
        reading: Reading | None = None,
        overrides: OperatorOverrides = NO_OVERRIDES,
    ):
        """`verdict_index` is shared by the partitions of a process, and None when no verdicts are
        awaited. `reading`: the first strategy's training batches, with clicks in memory, unless
        given. Of `overrides`, records sent to quarantine unread (L7) and times (T3) count."""
        self.partition = partition
        reading = reading or Reading(label_strategies(stream)[0], ExamplesEmitter(stream))
        self._emitter, self._strategy = reading.emitter, reading.strategy
        said = [
            overrides_of(overrides.clocks, topic, partition)
            for topic in (stream.impressions, stream.clicks)
        ]
        self.point = point = point.set_back(*said)  # moves with every emission
        self._stops: dict[str, PartitionStop] = {}  # by topic: these are not read on
        self._gone: list[LostRange] = []  # of impressions, passed over (C7)
        self._never_read = 0
        # a batch itself could not be made; a record that cannot be read only ends the reading
        self._broken = False
        self.counts: PartitionCounts | None = None  # where counters are declared (J4)
        self.catalogues: PartitionCatalogues | None = None  # where any is declared (A3)
        # | "window" | "verdicts" | "counts" | "catalogue" | "stopped": why the last `step` ended
        self.waiting = "idle"
        self._stream, self._labeler = stream, labeler
        self._config_hash = label_config_hash(stream, labeler)
        self._hash_key = key_id(stream.hash_secret)
        self._schema_id = schema_id(examples_schema(stream.examples_features))
        aside = [
            {a.offset for a in overrides.aside if (a.topic, a.partition) == (topic, partition)}
            for topic in (stream.impressions, stream.clicks)
        ]
        self._impressions_intake = impressions_intake(
            partition, stream, point.ids_arrival_max_ms, aside[0], said[0]
        )
        self._aside = aside[0]
        self._impressions_buffer = ImpressionBuffer(stream, point)
        name = f"{self._strategy.kind}/{stream.clicks}/{partition}"
        decides = [self._config_hash, point.topic_ids.get(stream.clicks, ""), *map(str, said[1])]
        pages, known = reading.pages, ";".join(decides)
        copy = ClickCopy(pages, name, known, aside[1]) if pages is not None else None
        limits = (labeler.pending_clicks_bytes_max, labeler.click_page_rows)
        self.clicks = ClickBuffer(stream, point, copy, *limits)
        arrival_max_ms = self.clicks.arrival_max_ms
        self._clicks_intake = clicks_intake(partition, stream, arrival_max_ms, aside[1], said[1])
        self._labels = RangeLabeler(stream, self._strategy, self.clicks)
        self.use(verdict_index)

    @property
    def clocks(self) -> dict[str, ArrivalClock]:
        """What time it is in each input, as far as it is read."""
        return {
            input_name(self._stream.impressions, self.partition): self._impressions_intake.clock,
            input_name(self._stream.clicks, self.partition): self._clicks_intake.clock,
        }

    @property
    def time_stands(self) -> bool:
        """Whether an input's time leads all clocks, so that nothing is labelled until they have
        come there (T3)."""
        return any(clock.ahead_ms > self._stream.skew_ms for clock in self.clocks.values())

    @property
    def undeclared(self) -> Counter[str]:
        """Features that impressions hold and nobody declared, by name: how many of the records
        looked at hold each."""
        return self._impressions_intake.undeclared

    @property
    def missing(self) -> MissingShares:
        """How much of the impressions read lately lacks each component."""
        return self._impressions_intake.missing

    # --- what is told
    # --------------------------------------------------------------------------------------------

    def use(self, verdict_index: VerdictIndex | None) -> None:
        """Go on with this index, which was read from `point.verdicts_offset` or earlier."""
        self._verdict_index = self._labels.verdict_index = verdict_index
        if verdict_index is not None:
            self._state_need(verdict_index)

    def use_counts(self, counts: JoinedCounts | None) -> None:
        """Join what these say, read from `point.counts_offset` or earlier (J4)."""
        at, begins = self.point, self.point.arrival_max_ms == 0 and self._labels.is_first
        if counts is not None:
            self.counts = PartitionCounts(
                counts, self.partition, at.arrival_max_ms, at.counts_offset, begins
            )

    def use_catalogues(self, catalogues: JoinedCatalogues | None) -> None:
        """Join what these say (A3)."""
        if catalogues is not None:
            arrival_ms, flush_ms = self.point.arrival_max_ms, self._stream.flush_ms
            self.catalogues = PartitionCatalogues(catalogues, self.partition, arrival_ms, flush_ms)
            self._labels.catalogues = self.catalogues

    def on_impressions(self, records: Sequence[Record]) -> None:
        """The next records of `impressions[p]`; behind an unreadable one they are passed over
        (L7)."""
        if self._stream.impressions not in self._stops:
            read = self._impressions_intake.read(records)
            self._impressions_buffer.add(read)
            if read.unreadable:
                self.stop(
                    self._stream.impressions,
                    position(read.unreadable.offset),
                    read.unreadable.reason,
                )

    def on_clicks(self, records: Sequence[Record]) -> None:
        """The next records of `clicks[p]`; behind an unreadable one they are passed over (L7)."""
        if self._stream.clicks not in self._stops:
            read = self._clicks_intake.read(records)
            self.clicks.add(read)
            if read.unreadable:
                self.stop(
                    self._stream.clicks, position(read.unreadable.offset), read.unreadable.reason
                )

    def stop(
        self, topic: str, at: int, reason: str, gone: LostRange | None = None, force: bool = False
    ) -> None:
        """Nothing more is read of this topic (L7, C7). What was read before it is still labelled,
        unless the topic is `verdicts`, whose word then cannot be trusted (F3). The first reason
        stays."""
        partition = gone.partition if gone is not None else self.partition
        self._stops.setdefault(topic, PartitionStop(topic, partition, at, reason, gone, force))

    def never_read(self, offsets: int) -> None:
        """C7: so many offsets of a topic made anew stand below where its impressions are read
        from."""
        self._never_read += offsets

    def skip(self, lost: LostRange) -> None:
        """C7: these offsets of a topic are gone, on an operator's override; it is read on behind
        them."""
        if lost.topic == self._stream.clicks:
            self.clicks.skip(lost.first, lost.end)
        elif lost.topic == self._stream.impressions:
            self._gone.append(lost)
        if lost.topic in self._stops and self._stops[lost.topic].gone is not None:
            del self._stops[lost.topic]

    def on_acknowledged(self, header: BatchHeader) -> None:
        """The record is in the log: nobody starts below its resume point again."""
        self.clicks.forget(header.clicks_offset)
        if self.counts is not None:
            self.counts.on_acknowledged(header.arrival_max_ms)
        if self.catalogues is not None:
            self.catalogues.on_acknowledged(header.arrival_max_ms)

    # --- what is asked
    # -------------------------------------------------------------------------------------------

    @property
    def stopped(self) -> PartitionStop | None:
        """The first stop that nobody has lifted."""
        return next(iter(self._stops.values()), None)

    @property
    def stops(self) -> list[PartitionStop]:
        """All of them, a topic each."""
        return list(self._stops.values())

    def wants_impressions(self) -> bool:
        """Whether to read on: the next range is open, or the read-ahead has room."""
        if self._stream.impressions in self._stops:
            return False
        limits = self._labeler
        room = (
            self._impressions_buffer.rows < limits.read_ahead_rows_max
            and self._impressions_buffer.bytes < limits.read_ahead_bytes_max
        )
        return room or self._impressions_buffer.boundaries.first() is None

    def wants_clicks(self) -> bool:
        """Whether the head of the line needs clicks that were not read yet (L5)."""
        if self._stream.clicks in self._stops:
            return False
        boundaries = self._impressions_buffer.boundaries
        batch_range = boundaries.first()
        if batch_range is not None:
            return not self.clicks.covers(
                self._deadline_ms(batch_range), batch_range.arrival_max_ms
            )
        known = boundaries.known_deadline_arrival_ms()
        return known is not None and self.clicks.arrival_max_ms <= known + self._strategy.wait_ms

    def wants_counts(self) -> bool:
        """Whether the next range needs totals that were not read yet (J4)."""
        arrival_ms, counts = self.next_arrival_ms, self.counts
        return counts is not None and arrival_ms > 0 and counts.wants(arrival_ms)

    @property
    def next_arrival_ms(self) -> int:
        """Of the end of the next range; 0 while the log has not closed it."""
        batch_range = self._impressions_buffer.boundaries.first()
        return 0 if batch_range is None else batch_range.arrival_max_ms

    @property
    def rows_read(self) -> int:
        """Impressions of any class read at or above the resume point."""
        return self._impressions_buffer.rows_read

    @property
    def queue_rows(self) -> int:
        """Impressions read and not yet labelled."""
        return self._impressions_buffer.rows

    @property
    def queue_bytes(self) -> int:
        return self._impressions_buffer.bytes + self._impressions_buffer.table_bytes

    # --- what is done
    # --------------------------------------------------------------------------------------------

    def step(self, limit: int = STEP_MAX) -> list[Emission]:
        """The next batches that the logs decide, at most `limit`; sets `waiting`."""
        out: list[Emission] = []
        while len(out) < limit:
            try:
                emission = self._next()
            except (
                PagesFailed,
                RowsFailed,
                MemoryError,
            ):  # no record's fault: the caller's to answer
                raise
            except Exception as error:  # L7: this partition stops, the process goes on
                self.stop(self._stream.impressions, self._first_kept(), repr(error))
                emission = None
                self._broken = True
            if emission is None:
                break
            out.append(emission)
        return out

    def _first_kept(self) -> int:
        """The position of the first record from `point` on that no operator has set aside: where a
        batch cannot be made and nobody knows by which of its records, they go one by one (L7)."""
        offset = offset_of(self.point.start)
        while offset in self._aside:
            offset += 1
        return max(self.point.start, position(offset))

    def _next(self) -> Emission | None:
        if self._broken or self._stream.verdicts in self._stops:
            return self._wait("stopped")
        boundaries = self._impressions_buffer.boundaries
        batch_range = boundaries.first()
        if self._barrier_is_next(batch_range):
            return self._barrier()
        if batch_range is None:
            return self._wait("idle")
        deadline_ms = self._deadline_ms(batch_range)
        if not self.clicks.covers(deadline_ms, batch_range.arrival_max_ms):
            return self._wait("window")
        if self._verdict_index is not None and self._verdict_index.low_ms <= deadline_ms:
            return self._wait("verdicts")
        if self.counts is not None and (silence := self._silence_before(batch_range, self.counts)):
            return silence
        if self.counts is not None and self.counts.waits(batch_range.arrival_max_ms):
            return self._wait("counts")
        if self.catalogues is not None and self.catalogues.waits(batch_range.arrival_max_ms):
            return self._wait("catalogue")
        return self._batch(batch_range)

    def _wait(self, reason: str) -> Emission | None:
        """What was read before a stop is still labelled; then the partition is stopped."""
        self.waiting = (
            "stopped" if self.stopped is not None and reason in ("idle", "window") else reason
        )
        return None

    def _barrier_is_next(self, batch_range: BatchRange | None) -> bool:
        """E3: the barrier stands before the first range whose last deadline is at or after its
        time. It is known from `clicks[p]`, which is read past every deadline that is handled, so
        ranges cannot overtake it."""
        if not self.clicks.barriers:
            return False
        known = self._impressions_buffer.boundaries.known_deadline_arrival_ms()
        arrival = known if batch_range is None else batch_range.deadline_arrival_ms
        return (
            arrival is not None
            and arrival + self._strategy.wait_ms >= self.clicks.barriers[0].at_ms
        )

    def _barrier(self) -> Emission | None:
        period, at_ms = self.clicks.barriers[0]
        if self._verdict_index is not None and self._verdict_index.low_ms < at_ms:
            return self._wait("verdicts")
        self.clicks.barriers.popleft()
        self.point = replace(self.point, barrier=period)
        header = self._emitter.barrier(self._header(self.point.start, barrier=period), at_ms)
        return Emission(header, b"", (), at_ms)

    def _silence_before(self, batch_range: BatchRange, counts: PartitionCounts) -> Emission | None:
        """J4b: says until when nothing arrived, where the next range would wait for itself."""
        first_ms = self._impressions_buffer.boundaries.first_arrival_ms
        if not self._labels.is_first or not counts.silence(first_ms, batch_range.arrival_max_ms):
            return None
        header = replace(self._header(self.point.start), arrival_max_ms=first_ms)
        return Emission(header, b"", (), first_ms)

    def _batch(self, batch_range: BatchRange) -> Emission:
        taken = self._impressions_buffer.take(batch_range)
        ruling = self._labels.rule(taken, self._strategy)
        matches = self.clicks.match(taken.impressions, self._strategy)
        is_first = self._labels.is_first
        said = self._labels.labels(taken, ruling, matches)
        rows = taken.impressions.filter(said.rows)
        label = matches.label[said.rows]
        value = b""
        if len(rows):
            rows = rows if self.counts is None else self.counts.joined(rows)
            rows = rows if self.catalogues is None else self.catalogues.joined(rows)
            late = None if said.late_rows is None else said.late_rows[said.rows]
            value = self._emitter.value(rows, label, matches.delay_ms[said.rows], late)
        passed = self.clicks.passed(batch_range.arrival_max_ms)
        before = self._side_records(taken, ruling, passed) if is_first else ()
        if is_first and self.catalogues is not None and self._emitter.writes_side_records:
            bad_rows = self.catalogues.bad_until(batch_range.arrival_max_ms)
            before += rows_quarantined(bad_rows, self._stream.record_bytes_max)
        passed_ms = batch_range.arrival_max_ms - (
            self.point.arrival_max_ms or batch_range.arrival_max_ms
        )
        # from here on the index of verdicts may have forgotten what the ruling names
        self._move(batch_range, passed)
        if not is_first:
            share = self.point.share.add(
                said.late, said.on_time, passed_ms, self._stream.late_share_half_life_ms
            )
            self.point = replace(self.point, share=share)
        counting = matches.clicks[~taken.duplicate]  # the clicks of a repeat belong to its first
        header = self._header(
            batch_range.start,
            labelled=len(rows),
            sampled=said.sampled,
            rejected=int(ruling.rejected.sum()) if is_first else 0,
            duplicate=int(taken.duplicate.sum()) if is_first else 0,
            withheld=int(ruling.withheld.sum()) if is_first else 0,
            quarantined=len(taken.bad) if is_first else 0,
            lost=said.lost,
            lost_offsets=self._gone_before(batch_range) if is_first else 0,
            positives=int(label.sum()),
            clicks_read=passed.read,
            clicks_joined=int(np.count_nonzero(counting)),
            clicks_duplicate=int(counting.sum()) - int(np.count_nonzero(counting)),
            clicks_quarantined=len(passed.bad),
            clicks_lost_offsets=passed.lost_offsets,
            clicks_too_early=int(matches.too_early[~taken.duplicate].sum()),
            ts_ms_min=int(rows.ts_ms.min()) if len(rows) else 0,
            ts_ms_max=int(rows.ts_ms.max()) if len(rows) else 0,
        )
        return Emission(header, value, before, batch_range.arrival_max_ms)

    def _gone_before(self, batch_range: BatchRange) -> int:
        """Offsets of impressions in this range that were gone unread (C7)."""
        first, end = offset_of(batch_range.start), offset_of(batch_range.end - 1) + 1
        gone, self._never_read = self._never_read, 0
        gone += sum(max(0, min(one.end, end) - max(one.first, first)) for one in self._gone)
        self._gone = [one for one in self._gone if one.end > end]
        return gone

    def _side_records(
        self, taken: RangeContents, ruling: Ruling, passed: Passed
    ) -> tuple[SideRecord, ...]:
        if not self._emitter.writes_side_records:
            return ()
        bytes_max = self._stream.record_bytes_max
        out = quarantine_records(self._stream.impressions, self.partition, taken.bad, bytes_max)
        out += quarantine_records(self._stream.clicks, self.partition, passed.bad, bytes_max)
        if self._verdict_index is not None and ruling.rejected.any():
            rejected = (taken.impressions, ruling.by, self._verdict_index.verdict)
            out += rejected_records(self._stream.impressions, self.partition, *rejected, bytes_max)
        return tuple(out)

    def _move(self, batch_range: BatchRange, passed: Passed) -> None:
        """The range is done: the resume point behind it (C4)."""
        ids_offset, ids_arrival_max_ms = self._impressions_buffer.ids_from(batch_range)
        point = replace(
            self.point,
            start=batch_range.end,
            arrival_max_ms=batch_range.arrival_max_ms,
            clicks_offset=passed.offset,
            clicks_arrival_max_ms=passed.arrival_max_ms,
            ids_offset=ids_offset,
            ids_arrival_max_ms=ids_arrival_max_ms,
        )
        if self._verdict_index is not None:
            offset, watermarks = self._verdict_index.point(
                self._deadline_ms(batch_range), batch_range.arrival_max_ms - self._stream.age_max_ms
            )
            self.point = replace(point, verdicts_offset=offset, watermarks=watermarks)
            self._state_need(self._verdict_index)
        else:
            self.point = point
        if self.counts is not None:
            at = self.counts.move(batch_range.arrival_max_ms)
            self.point = replace(self.point, counts_offset=at)
        if self.catalogues is not None:
            self.catalogues.move(batch_range.arrival_max_ms)

    def _state_need(self, verdict_index: VerdictIndex) -> None:
        """What is still to come arrives at or after `arrival_max_ms`, with event times not older
        than T3 allows."""
        arrival_ms = self.point.arrival_max_ms
        verdict_index.need(
            self.partition,
            arrival_ms + self._strategy.wait_ms,
            arrival_ms - self._stream.age_max_ms,
        )

    def _header(self, start: int, barrier: int = 0, **counts: int) -> BatchHeader:
        """The header of `[start, point.start)`, with the resume point behind it."""
        point = self.point
        return BatchHeader(
            chain=f"{self._strategy.kind}/{self.partition}",
            start=start,
            end=point.start,
            schema_id=self._schema_id,
            config_hash=self._config_hash,
            barrier=barrier,
            arrival_max_ms=point.arrival_max_ms,
            clicks_offset=point.clicks_offset,
            clicks_arrival_max_ms=point.clicks_arrival_max_ms,
            ids_offset=point.ids_offset,
            ids_arrival_max_ms=point.ids_arrival_max_ms,
            verdicts_offset=point.verdicts_offset,
            watermarks=point.watermarks,
            topic_ids=point.topic_ids,
            counts_offset=point.counts_offset,
            late_micro=point.share.late_micro,
            on_time_micro=point.share.on_time_micro,
            hash_key=self._hash_key,
            **counts,  # type: ignore[arg-type]
        )

    def _deadline_ms(self, batch_range: BatchRange) -> int:
        """L1, of the last impression of the range."""
        return batch_range.deadline_arrival_ms + self._strategy.wait_ms
