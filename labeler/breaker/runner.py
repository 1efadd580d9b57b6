"""The breaker's reader and writer: `tallies` and operators' words in; verdicts, bands and
watermarks out (C5, F2).

What it knows stands in `bands` (`labeler.io.sole_writer`). One that was replaced and does not know
it yet may still write there: whoever finds its record says no watermark before it begins again
(L9).
"""

import functools
import logging
from dataclasses import dataclass, field

from labeler.breaker.band_record import BandRecord, decode_band
from labeler.breaker.breaker import Breaker, BreakerStep
from labeler.breaker.early_join import decode_tally
from labeler.breaker_config import BreakerConfig
from labeler.io import SoleWriter, TailReader, WriterTotals
from stream import Partition, Record, StreamConfig
from stream.internal_topics import (
    BatchHeader,
    MalformedRecord,
    PassedOver,
    Verdict,
    decode_verdict,
    encode_verdict,
)
from stream.log import Append, Log, OffsetOutOfRange

logger = logging.getLogger(__name__)

#: Records of `bands` read back at a start, in cells of history: a stretch more than the ring holds.
MEMORY = 1.2


@dataclass
class JudgingTotals(WriterTotals):
    """Counted since the process started."""

    tallies: int = 0
    cells: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)  # by rule
    watermarks: int = 0
    unreadable: int = 0
    gone: int = 0  # partitions of tallies of which a part was gone before it was judged: an alarm


class Judging(SoleWriter):
    """Drives the core over a log. Belongs to one thread."""

    totals: JudgingTotals

    def __init__(
        self,
        stream: StreamConfig,
        config: BreakerConfig,
        log: Log,
        retry_ms: int,
        passed_over: PassedOver | None = None,
    ):
        """`stream` is that of the early join (`labeler.breaker.early_join.tally_stream`)."""
        bands = Partition(stream.bands, 0)
        super().__init__(log, bands, retry_ms, passed_over or PassedOver(logger), "the breaker")
        self._stream, self._config = stream, config
        self._tallies = [Partition(stream.tallies, p) for p in range(stream.partitions)]
        self._verdicts, self._bands = Partition(stream.verdicts, 0), bands
        self.breaker: Breaker | None = None
        self.totals = JudgingTotals()

    @property
    def _is_started(self) -> bool:
        return self.breaker is not None

    def _start(self) -> None:
        tail = TailReader(self._log, self._stream.poll_records_max)
        try:
            breaker = Breaker(self._stream, self._config, self._memory(tail))
            firsts = {at: tail.first(at) for at in (*self._tallies, self._verdicts)}
        finally:
            tail.close()
        self._reader = self._reader or self._log.reader()
        self._writer = self._writer or self._log.writer()
        self._reader.assign((*self._tallies, self._verdicts))
        for at in self._tallies:
            if breaker.cells.next_offset(at.partition) < firsts[at]:
                self._skip(breaker, at, firsts[at])
            self._reader.seek(at, breaker.cells.next_offset(at.partition))
        self._reader.seek(self._verdicts, max(breaker.verdicts_offset, firsts[self._verdicts]))
        self.breaker = breaker
        logger.info(
            "breaker judges from event time %d on, %d scopes withheld",
            breaker.settled_ms,
            len(breaker.trips),
        )

    def _memory(self, tail: TailReader) -> list[BandRecord]:
        """The records of `bands` that hold all of history."""
        cells = self._config.history_cells
        memory: list[BandRecord] = []

        def is_whole() -> bool:
            # the first record of a cell counts: what stands behind a later cell is a repeat
            last = -1
            known = {last := record.cell for record in memory if record.cell > last}
            return known.issuperset(range(last - cells + 1, last))

        take = functools.partial(self._remember, memory)
        self._read_back(tail, int(MEMORY * cells), take, memory.clear, is_whole)
        return memory

    def _remember(self, memory: list[BandRecord], records: list[Record]) -> None:
        for record in records:
            try:
                memory.append(decode_band(record))
            except MalformedRecord as error:
                self.passed_over.add(self._bands, record, error)

    def _skip(self, breaker: Breaker, at: Partition, first: int) -> None:
        if breaker.cells.next_offset(at.partition):
            logger.error("%s[%d]: what stood below offset %d was never judged", *at, first)
            self.totals.gone += 1
        breaker.cells.skip(at.partition, first)

    def _turn(self, now_ms: int, wait_ms: int) -> bool:
        assert self.breaker is not None
        assert self._reader is not None
        try:
            polled = self._reader.poll(self._stream.poll_records_max, wait_ms)
        except OffsetOutOfRange as error:
            self._on_gone(error)
            return True
        for at, records in polled.items():
            for record in records:
                self._read(at, record)
        step = self.breaker.step()
        self._send(step, now_ms)
        return bool(polled)

    def _on_gone(self, error: OffsetOutOfRange) -> None:
        assert self.breaker is not None
        assert self._reader is not None
        if error.partition != self._verdicts:
            self._skip(self.breaker, error.partition, error.first)
        self._reader.seek(error.partition, error.first)

    def _read(self, at: Partition, record: Record) -> None:
        assert self.breaker is not None
        try:
            if at == self._verdicts:
                said = decode_verdict(record.value)
                if isinstance(said, Verdict):
                    self.breaker.on_operator(record.offset, said)
                return
            header = BatchHeader.from_headers(record.headers)
            rows = decode_tally(record.value) if record.value else None
            self.breaker.on_tally(at.partition, record.offset, header, rows)
            self.totals.tallies += 1
        except (
            MalformedRecord
        ) as error:  # every reader passes it over, and it extends no chain (C2)
            self.totals.unreadable += 1
            self.passed_over.add(at, record, error)

    def _send(self, step: BreakerStep, now_ms: int) -> None:
        """Verdicts, then bands, then watermarks, each acknowledged before the next (F2)."""
        for verdict in step.verdicts:
            self._append(self._verdicts, verdict.id, encode_verdict(verdict), (), now_ms)
            self.totals.verdicts[verdict.rule] = self.totals.verdicts.get(verdict.rule, 0) + 1
            if verdict.decision == "withhold":
                logger.error(
                    "withheld: %s=%s, %s",
                    verdict.feature or "vendor",
                    verdict.value or verdict.vendor,
                    verdict.reason,
                )
        self._flush(bool(step.verdicts))
        sent = [
            self._append(self._bands, str(band.cell), band.value, band.headers, now_ms)
            for band in step.bands
        ]
        self._flush(bool(step.bands))
        self._check_alone([append.offset for append in sent])
        self.totals.cells += len(step.bands)
        for mark in step.watermarks:
            self._append(self._verdicts, mark.input, encode_verdict(mark), (), now_ms)
        self._flush(bool(step.watermarks))
        self.totals.watermarks += len(step.watermarks)

    def _append(
        self,
        to: Partition,
        key: str,
        value: bytes,
        headers: tuple[tuple[str, bytes], ...],
        now_ms: int,
    ) -> Append:
        assert self._writer is not None
        return self._writer.append(to, value, key.encode(), headers, now_ms)

    def _flush(self, anything: bool) -> None:
        if anything:
            assert self._writer is not None
            self._writer.flush(self._stream.request_timeout_ms)

    def _forget(self) -> None:
        super()._forget()
        self.breaker = None
