"""What runs at the head of the inputs, bound by no label: counting for fraud, and heartbeats
(L5, F1, T2)."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from labeler.config import LabelerConfig
from labeler.counting.heartbeats import Heartbeats, heartbeat_headers
from labeler.counting.reader import CountingReader, SignalEnds
from labeler.counting.signals import contradiction, decode_signal
from labeler.fraud_config import FraudConfig
from labeler.io import Message, Outbox, Outgoing, TailReader, Wait
from labeler.labels import ClaimedEnds, OverrideSearch
from stream import SIGNALS_PARTITIONS, Partition, Record, StreamConfig
from stream.decoding import fitting
from stream.hashing import partition_of_key
from stream.internal_topics import (
    ClockOverride,
    MalformedRecord,
    PassedOver,
    input_name,
    overrides_of,
)
from stream.log import (
    Append,
    Log,
    LogError,
    OffsetOutOfRange,
    Reader,
    RecordColumns,
    SendFailed,
    Unavailable,
    Writer,
)

logger = logging.getLogger(__name__)

#: Signals of one input that wait for the one on its way; reading pauses above it. One is on its way
#: at a time, so a few keep it busy, and more are memory that a catch-up fills.
WAITING_MAX = 16
SIGNALS = range(SIGNALS_PARTITIONS)
#: How often a log that lost its tail is looked at again.
LOOK_AGAIN_MS = 2_000


@dataclass
class Count:
    """One input being counted."""

    reader: CountingReader
    outbox: Outbox[None]  # encoded: their columns are let go at once
    clocks: frozenset[ClockOverride]  # what operators had said of times when it was started (T3)
    restarts: bool = False  # once what is on its way has come


@dataclass
class FoldedSignals:
    """How far `signals` is folded, and what came of it."""

    topic_id: str
    offsets: dict[Partition, int]  # what is to be read next
    ends: SignalEnds = field(default_factory=SignalEnds)

    def is_of(self, topic_id: str, spans: Mapping[Partition, tuple[int, int]]) -> bool:
        """Whether it is of this topic, and goes on within what stands there: from the first of
        these offsets to the second."""
        inside = all(first <= self.offsets[at] <= end for at, (first, end) in spans.items())
        return topic_id == self.topic_id and inside


@dataclass
class HeadTotals:
    """Counted since the process started."""

    signals: int = 0
    heartbeats: int = 0
    refolds: int = 0
    dangling: int = 0
    passed_over: int = 0  # records that were gone before they were counted (C7)
    stopped: dict[str, str] = field(default_factory=dict)  # input -> why nobody counts it any more


class Head:
    """Owns the counting reader and the writers of `signals` and of heartbeats. Belongs to one
    thread."""

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        fraud: FraudConfig,
        log: Log,
        passed_over: PassedOver | None = None,
        elapsed_s: Callable[[], float] = lambda: 0.0,
    ):
        """`elapsed_s`: tells what looks at the log cost."""
        self.passed_over = passed_over or PassedOver(logger)
        self._stream, self._labeler, self._fraud, self._log = stream, labeler, fraud, log
        self._folded: FoldedSignals | None = None
        self._search = OverrideSearch(
            log, stream, labeler.fold_orders_max, self.passed_over, elapsed_s
        )
        self._counts_wanted = labeler.await_verdicts or labeler.count_always
        self._heartbeats = None if stream.replayed else Heartbeats(stream)
        self._owned: frozenset[int] = frozenset()
        self._reader: Reader | None = None
        self._signals: Writer | None = None
        self._beats: Writer | None = None
        self._beating: dict[Partition, Append] = {}
        self._retry, self._look_again, self._overrides_wait = Wait(), Wait(), Wait()
        self._beyond: dict[
            Partition, int
        ] = {}  # inputs whose logs end below this offset, up to which they are counted
        self.counts: dict[Partition, Count] = {}
        self.totals = HeadTotals()

    def own(self, partitions: Iterable[int]) -> None:
        """The partitions that the group gives this process."""
        owned = frozenset(partitions)
        if owned == self._owned:
            return
        self._owned = owned
        for at in [at for at in self._beyond if at.partition not in owned]:
            del self._beyond[at]
            self.totals.stopped.pop(input_name(*at), None)
        lost = [at for at in self.counts if at.partition not in self._owned]
        for at in lost:
            del self.counts[at]
        if lost and self._reader is not None:
            self._reader.assign(self.counts)

    def run_once(self, now_ms: int, wait_ms: int) -> bool:
        """Beat, count and send once. True if anything moved."""
        self._beat(now_ms)
        if not self._counts_wanted or not self._retry.over(now_ms):
            return False
        try:
            self._look_at_tails(now_ms)
            self._apply_clock_overrides(now_ms)
            self._start_counts()
            moved = self._read(wait_ms)
            assert self._signals is not None
            for count in self.counts.values():
                start = not count.restarts
                sent = len(count.outbox.advance(self._signals, now_ms, start))
                self.totals.signals += sent
                moved |= sent > 0
            return moved
        except (SendFailed, Unavailable, MemoryError) as error:
            logger.warning("fold signals again in %d ms: %r", self._labeler.retry_ms, error)
            self._forget(now_ms)
            return False

    @property
    def in_flight(self) -> bool:
        return any(count.outbox.in_flight for count in self.counts.values())

    def wait(self, timeout_ms: int) -> None:
        """Until a signal on its way is acknowledged, or for this long."""
        if self._signals is not None:
            self._signals.wait(timeout_ms)

    def close(self) -> None:
        """Drop readers and writers. What was on its way is folded by the next one."""
        for one in (self._reader, self._signals, self._beats):
            if one is not None:
                one.close()

    # --- heartbeats
    # ----------------------------------------------------------------------------------------------

    def _beat(self, now_ms: int) -> None:
        """A failed heartbeat is not repeated: the next one says more. At most one a partition is
        on its way."""
        if self._heartbeats is None:
            return
        try:
            if self._beats is None:
                self._beats = self._log.writer()
            self._beats.poll()
            headers = heartbeat_headers(now_ms)
            for at in self._heartbeats.due(self._owned, now_ms):
                if at not in self._beating or self._beating[at].done:
                    key = self._heartbeats.key(at)
                    self._beating[at] = self._beats.append(at, None, key, headers, now_ms)
                    self.totals.heartbeats += 1
        except LogError as error:
            logger.warning("heartbeat: %s", error)
            if self._beats is not None:
                self._beats.close()
            self._beats = None
            self._beating.clear()

    # --- counting
    # ----------------------------------------------------------------------------------------------

    def _start_counts(self) -> None:
        if self._reader is None:
            self._reader = self._log.reader()
        if self._signals is None:
            self._signals = self._log.writer()
        topics = (self._stream.impressions, self._stream.clicks)
        new = [
            at
            for p in sorted(self._owned)
            for at in (Partition(t, p) for t in topics)
            if at not in self.counts
        ]
        new = [at for at in new if input_name(*at) not in self.totals.stopped]
        if not new:
            return
        tail = TailReader(self._log, self._stream.poll_records_max)
        try:
            ends = self._fold(tail)
            clocks = self._search.all(tail, {at.partition for at in new}).clocks
            for at in new:
                point = ends.resume_point(input_name(*at), tail.first(at))
                said = overrides_of(clocks, *at)
                reader = CountingReader(
                    self._stream, self._fraud, at.topic, at.partition, point, said
                )
                self.counts[at] = Count(
                    reader, Outbox(WAITING_MAX, self._labeler.send_timeout_ms), frozenset(said)
                )
        finally:
            tail.close()
        self._reader.assign(self.counts)
        for at in new:
            self._reader.seek(at, self.counts[at].reader.offset)

    def _apply_clock_overrides(self, now_ms: int) -> None:
        """T3: an input is counted anew once an operator has set its times back."""
        wanted = self._overrides_wait.over(now_ms) and self._search.rested
        if self._reader is not None and wanted:
            self._overrides_wait.begin(now_ms, LOOK_AGAIN_MS)
            found = self._search.more(self._reader, {at.partition for at in self.counts}, ())
            for at, count in self.counts.items() if found is not None else ():
                if found and set(overrides_of(found.clocks, *at)) - count.clocks:
                    logger.info("counting of %s[%d] begins again with times set back", *at)
                    count.restarts = True
        ready = [at for at, one in self.counts.items() if one.restarts and not one.outbox.in_flight]
        for at in ready:
            del self.counts[at]
        if ready and self._reader is not None:
            self._reader.assign(self.counts)

    def _look_at_tails(self, now_ms: int) -> None:
        """C7: an input whose log lost its tail is counted again once the log has grown past what
        was counted. No word is needed for that: nothing is passed over, and below it no signal of
        new records would extend the chain."""
        if not self._beyond or self._reader is None or not self._look_again.over(now_ms):
            return
        self._look_again.begin(now_ms, LOOK_AGAIN_MS)
        ends = self._reader.end_offsets(self._beyond)
        for at in [at for at, offset in self._beyond.items() if ends[at] >= offset]:
            logger.warning("counting of %s[%d] goes on at offset %d", *at, self._beyond.pop(at))
            self.totals.stopped.pop(input_name(*at), None)

    def _fold(self, tail: TailReader) -> SignalEnds:
        """The ends of all chains in `signals` (C2). What was folded before stays folded: the log
        only grows, and reading back all of it takes a core many seconds."""
        topic, most = self._stream.signals, self._labeler.fold_signals_max
        spans = {at: tail.span(at, most) for at in map(partial(Partition, topic), SIGNALS)}
        id_, known = tail.topic_id(Partition(topic, 0)), self._folded
        self._folded = None  # a fold that fails is begun anew
        if known is None or not known.is_of(id_, spans):
            known = FoldedSignals(id_, {at: start for at, (start, _) in spans.items()})
        dangled, claimed = known.ends.dangling, ClaimedEnds(self._stream)
        for at, (_, end) in spans.items():
            take = partial(self._fold_records, tail, known.ends, claimed, at)
            tail.read_between(at, known.offsets[at], end, take)
            known.offsets[at] = end
        self.totals.dangling += known.ends.dangling - dangled
        self._folded = known
        return known.ends

    def _fold_records(
        self,
        tail: TailReader,
        ends: SignalEnds,
        claimed: ClaimedEnds,
        at: Partition,
        records: list[Record],
    ) -> None:
        """What says nothing, or more than its input's log holds, is passed over, as the filter
        does (F3)."""
        signals = []
        for record in records:
            try:
                signals.append((record, decode_signal(record)))
            except MalformedRecord as error:
                self.passed_over.add(at, record, error)
        if any(claimed.exceeded_by({signal.input: signal.end}) for _, signal in signals):
            claimed.look(tail)
        ahead_ms = self._stream.watermark_ahead_ms
        for record, signal in signals:
            wrong = contradiction(signal, record.timestamp_ms, claimed.ends, ahead_ms)
            if wrong is not None:
                self.passed_over.add(at, record, wrong)
            else:
                ends.on_signal(signal)

    def _read(self, wait_ms: int) -> bool:
        assert self._reader is not None
        full = [at for at, count in self.counts.items() if count.outbox.full]
        self._reader.pause(full)
        self._reader.resume([at for at in self.counts if at not in full])
        try:
            polled = self._reader.poll(self._stream.poll_records_max, wait_ms)
        except OffsetOutOfRange as error:
            self._on_gone(error)
            return True
        for at, records in polled.items():
            self._count(at, records)
        return bool(polled)

    def _count(self, at: Partition, records: Sequence[Record]) -> None:
        count, left = self.counts[at], RecordColumns.of(records)
        while len(left):
            together = fitting(left, self._stream)
            records, left = left[:together], left[together:]
            try:
                signals = count.reader.on_records(records)
            except MemoryError:  # no record's fault
                raise
            except Exception as error:
                # L7: a process does not die of a record; labels wait, and the alarm says why
                self._stop(at, f"at offset {records[0].offset} or behind: {error!r}")
                return
            for signal in signals:
                to = partition_of_key(signal.key, SIGNALS_PARTITIONS)
                message = Message(
                    Partition(self._stream.signals, to), signal.value, signal.key, signal.headers
                )
                count.outbox.put(Outgoing(message, (), None))

    def _on_gone(self, error: OffsetOutOfRange) -> None:
        """What is gone counts as unknown (L5, C7): the labeler says what it means for labels, and
        waits for a word. A log that lost its tail is not counted until it has grown past it: what
        comes would be taken for what was counted."""
        assert self._reader is not None
        at = error.partition
        if error.offset > error.end:
            self._beyond[at] = self.counts[at].reader.offset
            self._stop(
                at,
                f"{error}; it goes on by itself once the log has grown to offset "
                f"{self._beyond[at]}",
            )
            return
        logger.error(
            "%s[%d]: offsets %d to %d are gone before they were counted",
            *at,
            error.offset,
            error.first - 1,
        )
        self.totals.passed_over += error.first - error.offset
        self.counts[at].reader.pass_over(error.first - error.offset)
        self._reader.seek(at, error.first)

    def _stop(self, at: Partition, reason: str) -> None:
        assert self._reader is not None
        logger.error("counting of %s[%d] stopped: %s", *at, reason)
        self.totals.stopped[input_name(*at)] = reason
        del self.counts[at]
        self._reader.assign(self.counts)

    def _forget(self, now_ms: int) -> None:
        """C5, for the chains of `signals`."""
        if self._signals is not None:
            self._signals.close()
        self._signals = None
        self.counts.clear()
        if self._reader is not None:
            self._reader.assign(())
        self._retry.begin(now_ms, self._labeler.retry_ms)
        self.totals.refolds += 1
