"""The thread of a replica that reads catalogues to their newest rows (A5) (shell).

A replica answers by what it has read, and says how old that is. One with a folder goes on from what
it had written there. Where a topic was made anew, or its reader or the disk fails, all is read once
more beside what answers meanwhile.
"""

import logging
import threading
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from stream import Partition, StreamConfig
from stream.decoding.catalogues import CatalogueColumns, NewestRows
from stream.log import Log, LogError, catalogue_kept_ms, wall_clock_ms
from stream.log.rows import MemoryStorage, RocksStorage, RowsFailed, RowStorage, StoredRows

_log = logging.getLogger(__name__)

POLL_MS, RETRY_S = 200, 2.0
#: Of what lies on disk nothing is of use.
_NEVER_MS = 1 << 62


class CatalogueFollower:
    """Of all catalogues that the stream declares."""

    def __init__(
        self, stream: StreamConfig, log: Log, bytes_max: int, dir: Path | None = None
    ) -> None:
        """`bytes_max`: of rows in memory, of each catalogue; all lie in `dir`, if any."""
        self._stream, self._source, self._bytes_max, self._dir = stream, log, bytes_max, dir
        self._names = {Partition(topic, 0): name for name, topic in stream.catalogues.items()}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._place = 0  # of two folders that in which the rows lie which answer
        self._is_first = True
        self.newest: NewestRows | None = None  # read to the end once
        self._unreadable: NewestRows | None = None  # of which a row could not be read
        self.failures = 0

    def start(self) -> None:
        """Where it reads already, nothing; in the child of a fork, or after a thread that could not
        be started, it begins."""
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="catalogues", daemon=True)
            thread.start()
            self._thread = thread

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    # --- for those who answer

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with what they do not say themselves, as far as it is known."""
        newest = self.newest
        try:
            return table if newest is None else newest.filled(table)
        except RowsFailed as error:
            self._failed(error)
            self._unreadable = newest
            return table

    def age_s(self, now_ms: int) -> float | None:
        """Seconds since the newest record that was read; None = none was."""
        newest = self.newest
        return None if newest is None else newest.age_s(now_ms)

    # --- the thread

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read()
            except Exception as error:  # what is known stays, and all is read once more
                self._failed(error)
                self._stop.wait(RETRY_S)

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:
            expected = isinstance(error, LogError | OSError | RowsFailed)
            why = None if expected else error
            _log.error("catalogues (failure %d): %r", self.failures, error, exc_info=why)

    def _read(self) -> None:
        """From where the rows were written on, or from the first record, until something fails."""
        stream, is_first, self._is_first = self._stream, self._is_first, False
        limits = (stream.record_bytes_max, stream.catalogue_row_bytes_max)
        place = self._place if self.newest is None else 1 - self._place
        rows = NewestRows(
            CatalogueColumns(stream.declared, *limits),
            {name: self._room(name, place) for name in stream.catalogues},
        )
        since_ms = max(0, wall_clock_ms() - catalogue_kept_ms(stream)) if is_first else _NEVER_MS
        reader = self._source.reader()
        try:
            reader.assign(self._names)
            ends = reader.end_offsets(self._names)
            for at, first in reader.beginning_offsets(self._names).items():
                name = self._names[at]
                offset = rows.go_on(name, reader.topic_id(at.topic), since_ms)
                reader.seek(at, max(first, min(offset, ends[at])))
            while not self._stop.is_set():
                for at, records in reader.poll(stream.poll_records_max, POLL_MS).items():
                    rows.read(self._names[at], records)
                if self._unreadable is rows:
                    raise RowsFailed("a row cannot be read for an answer: all are read anew")
                at_end = all(reader.position(at) >= end for at, end in ends.items())
                if at_end and self.newest is not rows:
                    self._answer_by(rows, place)
        except RowsFailed:
            if self.newest is not rows:
                _empty(rows)
            raise
        finally:
            reader.close()
            if self.newest is not rows:
                for held in rows.held.values():
                    held.close()

    def _answer_by(self, rows: NewestRows, place: int) -> None:
        """From now on, instead of those before."""
        before, self.newest, self._place = self.newest, rows, place
        if before is None or before is not self._unreadable:
            return
        for held in before.held.values():  # may be asked still, by who began before
            with suppress(RowsFailed):
                held.commit()  # without a position: the next process does not go on from it

    def _room(self, name: str, place: int) -> StoredRows:
        storage: RowStorage = MemoryStorage()
        if self._dir is not None:  # another folder than what answers meanwhile
            storage = RocksStorage(self._dir / f"catalogue-{name}-{place}")
        return StoredRows(storage, self._bytes_max)


def _empty(rows: NewestRows) -> None:
    """The next who reads there begins with nothing. What cannot be opened may be another's."""
    for held in rows.held.values():
        with suppress(RowsFailed):
            held.storage.count()
            held.clear()
