"""The thread that puts the newest totals of counters, and the newest sequences, into the store, for
replicas (J5, J6) (shell). Where none is declared there is no thread. Nothing waits for it, and it
changes nothing else."""

import logging
import threading
from collections.abc import Callable

from checkpointer.store import COUNTS_FILE, CountsFile, Files, encode_counts_file
from stream import Loop, Partition, StreamConfig
from stream.columns.counters import CounterTotals, Sequences
from stream.internal_topics import (
    CountParts,
    MalformedRecord,
    PassedOver,
    apply,
    apply_sequences,
    decode_counts,
)
from stream.log import Log, LogError, OffsetOutOfRange, Reader

_log = logging.getLogger(__name__)

#: Records read back at a start, in rounds of slices; between failures it waits so long.
ROUNDS_READ, RETRY_S = 4, 2.0
_POLL_MS = 500


class CountsWriter:
    """Follows `counts`, and replaces one file of the store with each bucket."""

    def __init__(
        self,
        stream: StreamConfig,
        log: Log,
        files: Files,
        model: str,
        stop: threading.Event,
        on_malformed: Callable[[str], None],
    ) -> None:
        self._stream, self._source, self._files, self._stop = stream, log, files, stop
        self._path = f"{model}/{COUNTS_FILE}"
        self._at = Partition(stream.counts, 0)
        self._passed_over = PassedOver(_log, on_malformed)
        self._reader: Reader | None = None
        self._written = -1
        self._rounds = ROUNDS_READ
        self._first = 0  # number of the first bucket read
        self._begin()

    def start(self, loop: Loop) -> None:
        """`loop` is told of each turn."""
        threading.Thread(target=self._run, args=(loop,), name="counters", daemon=True).start()

    def _run(self, loop: Loop) -> None:
        while not self._stop.is_set():
            loop.turn()
            try:
                self.turn(_POLL_MS)
            except Exception as error:  # nothing waits for it: it begins anew
                expected = isinstance(error, LogError | OSError)
                why = None if expected else error
                said = "counters are not brought to replicas, tried again: %r"
                _log.warning(said, error, exc_info=why)
                self._begin()
                self._stop.wait(RETRY_S)
        loop.rest()

    def turn(self, wait_ms: int) -> None:
        """Read, and write what is new. Raises what log and store raise."""
        if self._reader is None:
            self._open()
        assert self._reader is not None
        try:
            polled = self._reader.poll(self._stream.poll_records_max, wait_ms)
        except OffsetOutOfRange as error:
            self._reader.seek(self._at, error.first)
            return
        for record in polled.get(self._at, ()):
            try:
                found = self._parts.add(decode_counts(record), record.offset)
            except MalformedRecord as error:
                self._passed_over.add(self._at, record, error)
                continue
            if found is not None:
                self._first = self._first or found[0].number
                apply(self._totals, found[0])
                apply_sequences(self._sequences, found[0])
        if polled:
            return
        if not self._complete:  # quiet buckets and parts stood between: further back
            self._rounds *= 2
            self._begin()
        elif self._parts.bucket > self._written:
            self._write()

    @property
    def _complete(self) -> bool:
        """Whether a whole round of slices was read, or all there is."""
        return self._from_first or self._parts.number - self._first >= self._stream.counts_slices

    def _open(self) -> None:
        self._reader = self._source.reader()
        first = self._reader.beginning_offsets([self._at])[self._at]
        end = self._reader.end_offsets([self._at])[self._at]
        at = max(first, end - self._rounds * self._stream.counts_slices)
        self._from_first = at == first
        self._reader.assign([self._at])
        self._reader.seek(self._at, at)

    def _begin(self) -> None:
        self._leave()
        self._totals: dict[str, CounterTotals] = {}
        self._sequences: dict[str, Sequences] = {}
        self._parts = CountParts(self._stream.counts_bucket_ms, self._stream.counts_slices)
        self._from_first, self._first = False, 0

    def _leave(self) -> None:
        """Without a reader, whatever becomes of the one that there is."""
        reader, self._reader = self._reader, None
        try:
            if reader is not None:
                reader.close()
        except Exception as error:
            _log.warning("the reader of counters cannot be closed: %r", error)

    def _write(self) -> None:
        stream, bucket = self._stream, self._parts.bucket
        sizes = (bucket, stream.counts_bucket_ms, stream.negative_rate)
        given = stream.sequence_columns.served(self._sequences, bucket)
        file = CountsFile(*sizes, stream.kept_keys, dict(self._totals), given)
        self._files.write(self._path, encode_counts_file(file))
        self._written = self._parts.bucket
