"""The adder's reader and writer: `examples` of all partitions in, `counts` out (C5, J2).

One process adds up, the one that owns partition 0 of the group. What it knows stands in `counts`;
it is restored from there at every start and after every failed send. One that was replaced and does
not know it yet writes the same buckets, and counts for nothing: whoever finds a record of `counts`
where its own should stand begins again.
"""

import functools
import logging
from dataclasses import dataclass

from labeler.counts.adder import Adder
from labeler.io import TailReader, Wait
from stream import Partition, Record, StreamConfig
from stream.internal_topics import (
    CountParts,
    CountRecord,
    MalformedRecord,
    PassedOver,
    decode_counts,
    encode_counts,
)
from stream.log import Log, OffsetOutOfRange, Reader, SendFailed, Unavailable, Writer

logger = logging.getLogger(__name__)

#: Records of `counts` read back at a start, in rounds of slices: quiet ones stand between.
ROUNDS_READ = 2


@dataclass
class AddingTotals:
    """Counts since the process started."""

    records: int = 0  # of `examples`
    buckets: int = 0
    restarts: int = 0
    gone: int = 0  # partitions of which labels were deleted before they were counted: an alarm


class Adding:
    """Drives the core over a log. Belongs to one thread."""

    def __init__(
        self, stream: StreamConfig, log: Log, retry_ms: int, passed_over: PassedOver | None = None
    ) -> None:
        self._stream, self._log, self._retry_ms = stream, log, retry_ms
        self._examples = [Partition(stream.examples, p) for p in range(stream.partitions)]
        self._counts = Partition(stream.counts, 0)
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._owned = False
        self.passed_over = passed_over or PassedOver(logger)
        self._retry = Wait()
        self._end = 0  # where the next record of `counts` must stand
        self.adder: Adder | None = None
        self.totals = AddingTotals()

    def own(self, owned: bool) -> None:
        """Whether this process adds up. What it knew is dropped with the right to."""
        if owned != self._owned:
            self._owned = owned
            self._forget()

    def run_once(self, now_ms: int, wait_ms: int) -> bool:
        """Read, add up, send once. True if anything moved."""
        if not self._owned or not self._retry.over(now_ms):
            return False
        try:
            if self.adder is None:
                self._start()
            return self._turn(now_ms, wait_ms)
        except (SendFailed, Unavailable) as error:
            logger.warning("counters begin again in %d ms: %s", self._retry_ms, error)
            self.totals.restarts += 1
            self._retry.begin(now_ms, self._retry_ms)
            self._forget()
            return False

    def close(self) -> None:
        """Drop reader and writer."""
        self._forget()

    def _start(self) -> None:
        tail = TailReader(self._log, self._stream.poll_records_max)
        try:
            adder = Adder(self._stream, self._memory(tail))
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

    def _memory(self, tail: TailReader) -> list[CountRecord]:
        """The buckets of the last round of slices, and what was quiet since."""
        slices = self._stream.counts_slices
        records_max = ROUNDS_READ * slices
        while True:
            found: list[CountRecord] = []
            begin, self._end = tail.span(self._counts, records_max)
            parts = CountParts(self._stream.counts_bucket_ms, slices)
            take = functools.partial(self._remember, parts, found)
            tail.read_between(self._counts, begin, self._end, take)
            known = {record.number for record in found if not record.quiet}
            last_round = range(max(1, parts.number - slices + 1), parts.number + 1)
            if begin == tail.first(self._counts) or (known and known.issuperset(last_round)):
                return found
            records_max *= 2

    def _remember(self, parts: CountParts, found: list[CountRecord], records: list[Record]) -> None:
        for record in records:
            try:
                whole = parts.add(decode_counts(record), record.offset)
            except MalformedRecord as error:
                self.passed_over.add(self._counts, record, error)
                continue
            if whole is not None:
                found.append(whole[0])

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
        self._send(self.adder.step(), now_ms)
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
        sent = [
            self._writer.append(self._counts, value, None, headers, now_ms)
            for record in records
            for value, headers in encode_counts(record, self._stream.record_bytes_max)
        ]
        if not sent:
            return
        self._writer.flush(self._stream.request_timeout_ms)
        offsets = [one.offset for one in sent]
        if offsets != list(range(self._end, self._end + len(offsets))):
            raise SendFailed(
                f"{self._counts.topic}: another adder wrote between {self._end} and {offsets[-1]}"
            )
        self._end += len(offsets)
        self.totals.buckets += sum(not record.quiet for record in records)

    def _forget(self) -> None:
        """C5: the writer is dropped unflushed; the next start reads back what the log holds."""
        for one in (self._writer, self._reader):
            if one is not None:
                one.close()
        self._writer = self._reader = self.adder = None
