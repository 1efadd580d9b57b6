"""The labeler of one partition: records in, training batches out (L, C and E3 rules; the package says how it works).

Pure: it is told what was read and answers what to write. Everything it writes is a function of the logs, the config
and the resume point; how records were polled changes nothing (I7).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labeler.boundaries import Stretch
from labeler.click_line import ClickLine, Passed
from labeler.config import LabelerConfig, label_config_hash
from labeler.emission import Emission, SideRecord, quarantine_records, rejected_records
from labeler.impression_line import ImpressionLine, Taken
from labeler.intake import clicks_intake, impressions_intake
from labeler.resume import ResumePoint
from labeler.set_aside import SetAside
from labeler.verdict_book import Ruling, VerdictBook
from stream.chain import label_chain
from stream.config import StreamConfig
from stream.examples import BatchHeader, encode_examples, example_batch, examples_schema, schema_id
from stream.record import Record, offset_of, position

#: Emissions of one `step` unless told otherwise.
STEP_MAX = 16


@dataclass(frozen=True)
class Stop:
    """The record at which a partition stopped (L7)."""

    topic: str
    partition: int
    position: int
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.topic}[{self.partition}] at position {self.position}: {self.reason}; to go on without this "
            f"record: everspun quarantine add {self.topic} {self.partition} {offset_of(self.position)}"
        )


class PartitionLabeler:
    """Labels `impressions[partition]` from a resume point on.

    The shell reads impressions from `point.impressions_offset`, clicks from `point.clicks_offset` and verdicts from
    `point.verdicts_offset`, hands over what it reads while `wants_impressions()` and `wants_clicks()`, and writes
    what `step()` returns, in order, each after its `before` records (C6).
    """

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        partition: int,
        point: ResumePoint,
        book: VerdictBook | None,
        set_aside: Collection[SetAside] = (),
    ):
        """`book` is shared by the partitions of a process, and None when no verdicts are awaited. `set_aside`: records
        that an operator sent to quarantine unread (L7)."""
        self.partition = partition
        self.point = point  # moves with every emission
        self.stopped: Stop | None = None
        self._ended: set[str] = set()  # topics that are not read on
        self._broken = False  # a batch itself could not be made; a record that cannot be read only ends the reading
        self.waiting = "idle"  # | "window" | "verdicts" | "stopped": why the last `step` ended
        self._stream, self._labeler = stream, labeler
        self._config_hash = label_config_hash(stream, labeler)
        self._schema_id = schema_id(examples_schema(stream.features))
        aside = [
            {a.offset for a in set_aside if (a.topic, a.partition) == (topic, partition)}
            for topic in (stream.impressions, stream.clicks)
        ]
        self._impressions_intake = impressions_intake(partition, stream, point.ids_arrival_max_ms, aside[0])
        self._clicks_intake = clicks_intake(partition, stream, point.clicks_arrival_max_ms, aside[1])
        self._line = ImpressionLine(stream, point)
        self._clicks = ClickLine(stream, point)
        self.use(book)

    # --- what is told --------------------------------------------------------------------------------------------

    def use(self, book: VerdictBook | None) -> None:
        """Go on with this book, which was read from `point.verdicts_offset` or earlier."""
        self._book = book
        if book is not None:
            self._tell_need(book)

    def on_impressions(self, records: Sequence[Record]) -> None:
        """The next records of `impressions[p]`; behind an unreadable one they are passed over (L7)."""
        if self._stream.impressions not in self._ended:
            read = self._impressions_intake.read(records)
            self._line.add(read)
            if read.unreadable:
                self.stop(self._stream.impressions, position(read.unreadable.offset), read.unreadable.reason)

    def on_clicks(self, records: Sequence[Record]) -> None:
        """The next records of `clicks[p]`; behind an unreadable one they are passed over (L7)."""
        if self._stream.clicks not in self._ended:
            read = self._clicks_intake.read(records)
            self._clicks.add(read)
            if read.unreadable:
                self.stop(self._stream.clicks, position(read.unreadable.offset), read.unreadable.reason)

    def stop(self, topic: str, at: int, reason: str) -> None:
        """Nothing more is read of this topic (L7). What was read before it is still labelled, unless the topic is
        `verdicts`, whose word then cannot be trusted (F3). The first reason stays."""
        self._ended.add(topic)
        if self.stopped is None:
            self.stopped = Stop(topic, self.partition, at, reason)

    # --- what is asked -------------------------------------------------------------------------------------------

    def wants_impressions(self) -> bool:
        """Whether to read on: the next range is open, or the read-ahead has room."""
        if self._stream.impressions in self._ended:
            return False
        limits = self._labeler
        room = self._line.rows < limits.read_ahead_rows_max and self._line.bytes < limits.read_ahead_bytes_max
        return room or self._line.boundaries.first() is None

    def wants_clicks(self) -> bool:
        """Whether the head of the line needs clicks that were not read yet (L5)."""
        if self._stream.clicks in self._ended:
            return False
        boundaries = self._line.boundaries
        stretch = boundaries.first()
        if stretch is not None:
            return not self._clicks.covers(self._deadline_ms(stretch), stretch.arrival_max_ms)
        known = boundaries.known_deadline_arrival_ms()
        return known is not None and self._clicks.arrival_max_ms <= known + self._stream.wait_ms

    @property
    def rows_read(self) -> int:
        """Impressions of any class read at or above the resume point."""
        return self._line.rows_read

    @property
    def pending_clicks(self) -> int:
        return len(self._clicks)

    @property
    def pending_clicks_bytes(self) -> int:
        return self._clicks.bytes

    @property
    def queue_rows(self) -> int:
        """Impressions read and not yet labelled."""
        return self._line.rows

    @property
    def queue_bytes(self) -> int:
        return self._line.bytes + self._line.table_bytes

    # --- what is done --------------------------------------------------------------------------------------------

    def step(self, limit: int = STEP_MAX) -> list[Emission]:
        """The next batches that the logs decide, at most `limit`; sets `waiting`."""
        out: list[Emission] = []
        while len(out) < limit:
            try:
                emission = self._next()
            except Exception as error:  # L7: this partition stops, the process goes on
                self.stop(self._stream.impressions, self.point.start, repr(error))
                emission = None
                self._broken = True
            if emission is None:
                break
            out.append(emission)
        return out

    def _next(self) -> Emission | None:
        if self._broken or self._stream.verdicts in self._ended:
            return self._wait("stopped")
        boundaries = self._line.boundaries
        stretch = boundaries.first()
        if self._barrier_is_next(stretch):
            return self._barrier()
        if stretch is None:
            return self._wait("idle")
        deadline_ms = self._deadline_ms(stretch)
        if not self._clicks.covers(deadline_ms, stretch.arrival_max_ms):
            return self._wait("window")
        if self._book is not None and self._book.low_ms <= deadline_ms:
            return self._wait("verdicts")
        return self._batch(stretch)

    def _wait(self, reason: str) -> Emission | None:
        """What was read before a stop is still labelled; then the partition is stopped."""
        self.waiting = "stopped" if self.stopped is not None and reason in ("idle", "window") else reason
        return None

    def _barrier_is_next(self, stretch: Stretch | None) -> bool:
        """E3: the barrier stands before the first range whose last deadline is at or after its time. It is known
        from `clicks[p]`, which is read past every deadline that is handled, so ranges cannot overtake it."""
        if not self._clicks.barriers:
            return False
        known = self._line.boundaries.known_deadline_arrival_ms()
        arrival = known if stretch is None else stretch.deadline_arrival_ms
        return arrival is not None and arrival + self._stream.wait_ms >= self._clicks.barriers[0].at_ms

    def _barrier(self) -> Emission | None:
        period, at_ms = self._clicks.barriers[0]
        if self._book is not None and self._book.low_ms < at_ms:
            return self._wait("verdicts")
        self._clicks.barriers.popleft()
        self.point = replace(self.point, barrier=period)
        return Emission(self._header(self.point.start, barrier=period), b"", (), at_ms)

    def _batch(self, stretch: Stretch) -> Emission:
        taken = self._line.take(stretch)
        ruling = self._rule(taken)
        labelled = ~(taken.duplicate | ruling.rejected | ruling.withheld)
        matches = self._clicks.match(taken.impressions)
        rows = taken.impressions.filter(labelled)
        label = matches.label[labelled]
        value = b""
        if len(rows):
            weight = np.ones(len(rows), np.float32)
            value = encode_examples(example_batch(rows, label, matches.delay_ms[labelled], weight))
        passed = self._clicks.passed(stretch.arrival_max_ms)
        before = self._side_records(taken, ruling, passed)
        self._move(stretch, passed)  # from here on the book may have forgotten what the ruling names
        counting = matches.clicks[~taken.duplicate]  # the clicks of a repeat belong to its first
        header = self._header(
            stretch.start,
            labelled=len(rows),
            rejected=int(ruling.rejected.sum()),
            duplicate=int(taken.duplicate.sum()),
            withheld=int(ruling.withheld.sum()),
            quarantined=len(taken.bad),
            positives=int(label.sum()),
            clicks_read=passed.read,
            clicks_joined=int(np.count_nonzero(counting)),
            clicks_duplicate=int(counting.sum()) - int(np.count_nonzero(counting)),
            clicks_quarantined=len(passed.bad),
            ts_ms_min=int(rows.ts_ms.min()) if len(rows) else 0,
            ts_ms_max=int(rows.ts_ms.max()) if len(rows) else 0,
        )
        return Emission(header, value, before, stretch.arrival_max_ms)

    def _rule(self, taken: Taken) -> Ruling:
        """What verdicts take out; a duplicate is a duplicate whatever the verdicts say."""
        impressions = taken.impressions
        if self._book is None or not len(impressions):
            none = np.zeros(len(impressions), np.bool_)
            return Ruling(none, np.full(len(impressions), -1, np.int64), none)
        deadline_ms = impressions.arrival_ms + self._stream.wait_ms
        ruling = self._book.rule(
            impressions.source_hash, impressions.vendor_hash, impressions.ts_ms, deadline_ms, impressions.table
        )
        first = ~taken.duplicate
        return Ruling(ruling.rejected & first, np.where(first, ruling.by, -1), ruling.withheld & first)

    def _side_records(self, taken: Taken, ruling: Ruling, passed: Passed) -> tuple[SideRecord, ...]:
        out = quarantine_records(self._stream.impressions, self.partition, taken.bad)
        out += quarantine_records(self._stream.clicks, self.partition, passed.bad)
        if self._book is not None and ruling.rejected.any():
            verdicts = self._book.verdicts
            out += rejected_records(self._stream.impressions, self.partition, taken.impressions, ruling.by, verdicts)
        return tuple(out)

    def _move(self, stretch: Stretch, passed: Passed) -> None:
        """The range is done: the resume point behind it (C4)."""
        ids_offset, ids_arrival_max_ms = self._line.ids_from(stretch)
        point = replace(
            self.point,
            start=stretch.end,
            arrival_max_ms=stretch.arrival_max_ms,
            clicks_offset=passed.offset,
            clicks_arrival_max_ms=passed.arrival_max_ms,
            ids_offset=ids_offset,
            ids_arrival_max_ms=ids_arrival_max_ms,
        )
        if self._book is not None:
            offset, watermarks = self._book.point(
                self._deadline_ms(stretch), stretch.arrival_max_ms - self._stream.age_max_ms
            )
            self.point = replace(point, verdicts_offset=offset, watermarks=watermarks)
            self._tell_need(self._book)
        else:
            self.point = point

    def _tell_need(self, book: VerdictBook) -> None:
        """What is still to come arrives at or after `arrival_max_ms`, with event times not older than T3 allows."""
        arrival_ms = self.point.arrival_max_ms
        book.need(self.partition, arrival_ms + self._stream.wait_ms, arrival_ms - self._stream.age_max_ms)

    def _header(self, start: int, barrier: int = 0, **counts: int) -> BatchHeader:
        """The header of `[start, point.start)`, with the resume point behind it."""
        point = self.point
        return BatchHeader(
            chain=label_chain(self.partition),
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
            **counts,
        )

    def _deadline_ms(self, stretch: Stretch) -> int:
        """L1, of the last impression of the range."""
        return stretch.deadline_arrival_ms + self._stream.wait_ms
