"""The adder's reader and writer: `examples` of all partitions in, `counts` out (C5, J2).

What it knows stands in `counts` (`labeler.io.sole_writer`). One that was replaced and does not know
it yet writes the same buckets, and counts for nothing.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from labeler.counts.adder import Adder
from labeler.counts.stored_counts import BYTES_MAX, kept_state
from labeler.io import SoleWriter, TailReader, WriterTotals
from stream import Partition, Record, StreamConfig
from stream.internal_topics import (
    CountParts,
    CountRecord,
    MalformedRecord,
    PassedOver,
    decode_counts,
    encode_counts,
)
from stream.log import Log, OffsetOutOfRange
from stream.log.rows import MemoryStorage, RowsFailed, RowStorage

logger = logging.getLogger(__name__)

#: Records of `counts` read back at a start, in rounds of slices: quiet ones stand between.
ROUNDS_READ = 2
#: And where the state was written, to look for what is behind it.
AHEAD_READ = 16


@dataclass
class AddingTotals(WriterTotals):
    """Counts since the process started."""

    records: int = 0  # of `examples`
    buckets: int = 0
    disk_failures: int = 0  # of its totals and sequences: an alarm
    gone: int = 0  # partitions of which labels were deleted before they were counted: an alarm


class Adding(SoleWriter):
    """Drives the core over a log. Belongs to one thread."""

    totals: AddingTotals

    def __init__(
        self,
        stream: StreamConfig,
        log: Log,
        retry_ms: int,
        passed_over: PassedOver | None = None,
        storage: RowStorage | None = None,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        """`storage`: where totals and sequences lie (J4a); in memory unless given. `bytes_max`: of
        them in memory."""
        counts = Partition(stream.counts, 0)
        super().__init__(log, counts, retry_ms, passed_over or PassedOver(logger), "the adder")
        self._stream, self._counts = stream, counts
        self._examples = [Partition(stream.examples, p) for p in range(stream.partitions)]
        self._storage, self._bytes_max = storage or MemoryStorage(), bytes_max
        self.adder: Adder | None = None
        self.totals = AddingTotals()

    @property
    def _is_started(self) -> bool:
        return self.adder is not None

    def _start(self) -> None:
        tail = TailReader(self._log, self._stream.poll_records_max)
        try:
            adder = self._restored(tail)
            firsts = {at: tail.first(at) for at in self._examples}
        finally:
            tail.close()
        self._reader = self._reader or self._log.reader()
        self._writer = self._writer or self._log.writer()
        self._reader.assign(self._examples)
        for at in self._examples:
            if adder.next_offset(at.partition) < firsts[at]:
                self._skip(adder, at, firsts[at])
            self._reader.seek(at, adder.next_offset(at.partition))
        self.adder = adder
        logger.info("counters go on behind bucket %d", adder.bucket)

    def _restored(self, tail: TailReader) -> Adder:
        """As of the last bucket that `counts` holds. Raises RowsFailed."""
        at_topic = tail.topic_id(self._counts)
        state = kept_state(self._stream, self._storage, self._bytes_max, at_topic)
        adder = Adder(self._stream, (), state)
        if adder.written and not self._read_counts(tail, adder, AHEAD_READ):
            adder.written = 0  # not of this log, or too long ago
        if not adder.written:
            adder.state.clear()
            self._read_counts(tail, adder, ROUNDS_READ * self._stream.counts_slices)
        adder.commit()
        return adder

    def _read_counts(self, tail: TailReader, adder: Adder, records_max: int) -> bool:
        """Whether `counts` holds what it needs: the bucket that was written and all behind it, or
        the last round of slices; and what was quiet since."""
        slices, known = self._stream.counts_slices, set[int]()
        parts = CountParts(self._stream.counts_bucket_ms, slices)

        def begin() -> None:
            nonlocal parts
            known.clear()
            adder.begin()
            parts = CountParts(self._stream.counts_bucket_ms, slices)

        def holds(first: int) -> bool:
            return first <= parts.number and known.issuperset(range(first, parts.number + 1))

        def last_round() -> int:
            return max(1, parts.number - slices + 1)

        def is_whole() -> bool:
            return holds(adder.written or last_round()) or holds(last_round())

        def take(records: list[Record]) -> None:
            for record in self._whole_buckets(parts, records):
                adder.restore(record)
                if not record.quiet:
                    known.add(record.number)

        self._read_back(tail, records_max, take, begin, is_whole)
        return holds(adder.written or last_round())

    def _whole_buckets(self, parts: CountParts, records: list[Record]) -> Iterator[CountRecord]:
        for record in records:
            try:
                whole = parts.add(decode_counts(record), record.offset)
            except MalformedRecord as error:
                self.passed_over.add(self._counts, record, error)
                continue
            if whole is not None:
                yield whole[0]

    def _skip(self, adder: Adder, at: Partition, first: int) -> None:
        if adder.next_offset(at.partition):
            logger.error("%s[%d]: what stood below offset %d was never counted", *at, first)
            self.totals.gone += 1
        adder.skip(at.partition, first)

    def _turn(self, now_ms: int, wait_ms: int) -> bool:
        assert self.adder is not None
        assert self._reader is not None
        ahead = {at for at in self._examples if self.adder.is_ahead(at.partition)}
        self._reader.pause(ahead)
        self._reader.resume(set(self._examples) - ahead)
        try:
            polled = self._reader.poll(self._stream.poll_records_max, wait_ms)
        except OffsetOutOfRange as error:
            self._skip(self.adder, error.partition, error.first)
            self._reader.seek(error.partition, error.first)
            return True
        for at, records in polled.items():
            for record in records:
                self._take(at, record)
        while closed := self.adder.step():
            self._send(closed, now_ms)
        return bool(polled)

    def _take(self, at: Partition, record: Record) -> None:
        assert self.adder is not None
        try:
            self.adder.take(at.partition, record)
            self.totals.records += 1
        except MalformedRecord as error:  # every reader passes it over (C8)
            self.passed_over.add(at, record, error)

    def _send(self, records: list[CountRecord], now_ms: int) -> None:
        """In order, and acknowledged before anything else is read (C5)."""
        assert self._writer is not None
        assert self.adder is not None
        sent = [
            self._writer.append(self._counts, value, None, headers, now_ms)
            for record in records
            for value, headers in encode_counts(record, self._stream.record_bytes_max)
        ]
        if not sent:
            return
        self._writer.flush(self._stream.request_timeout_ms)
        self._check_alone([one.offset for one in sent])
        self.totals.buckets += sum(not record.quiet for record in records)
        self.adder.commit()

    def run_once(self, now_ms: int, wait_ms: int) -> bool:
        """See `SoleWriter.run_once`. What the disk says is of no use is deleted, and read again
        from the log."""
        try:
            return super().run_once(now_ms, wait_ms)
        except RowsFailed as error:
            logger.error("counters begin again: %s", error)
            self.totals.disk_failures += 1
            self._begin_again(now_ms)
            return False

    def _begin_again(self, now_ms: int) -> None:
        self.totals.restarts += 1
        self._retry.begin(now_ms, self._retry_ms)
        self._forget()
        try:
            self._storage.clear()
        except RowsFailed as error:
            logger.error("counters: %s", error)

    def close(self) -> None:
        super().close()
        self._storage.close()

    def _forget(self) -> None:
        super()._forget()
        self.adder = None
