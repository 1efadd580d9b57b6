"""The thread of a replica that reads catalogues to their newest rows (A5) (shell).

A replica answers by what it has read, and says how old that is. Where a topic was made anew, or its
reader fails, all is read once more beside what answers meanwhile.
"""

import logging
import threading
from pathlib import Path

import pyarrow as pa

from stream import Partition, StreamConfig
from stream.decoding.catalogues import CatalogueColumns, NewestRows
from stream.log import Log, LogError
from stream.log.rows import MemoryStorage, RocksStorage, RowsFailed, RowStorage, StoredRows

_log = logging.getLogger(__name__)

POLL_MS, RETRY_S = 200, 2.0


class CatalogueFollower:
    """Of all catalogues that the stream declares."""

    def __init__(
        self, stream: StreamConfig, log: Log, bytes_max: int, dir: Path | None = None
    ) -> None:
        """`bytes_max`: of rows in memory, of each catalogue; all lie in `dir`, if any."""
        self._stream, self._source, self._bytes_max, self._dir = stream, log, bytes_max, dir
        self._names = {Partition(topic, 0): name for name, topic in stream.catalogues.items()}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="catalogues", daemon=True)
        self._readings = 0
        self.newest: NewestRows | None = None  # read to the end once
        self.failures = 0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    # --- for those who answer

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with what they do not say themselves, as far as it is known."""
        newest = self.newest
        try:
            return table if newest is None else newest.filled(table)
        except RowsFailed as error:
            self._failed(error)
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
        """From the first record on, until something fails."""
        stream, self._readings = self._stream, self._readings + 1
        limits = (stream.record_bytes_max, stream.catalogue_row_bytes_max)
        rows = NewestRows(
            CatalogueColumns(stream.declared, *limits),
            {name: self._room(name) for name in stream.catalogues},
        )
        reader = self._source.reader()
        try:
            reader.assign(self._names)
            ends = reader.end_offsets(self._names)
            for at, offset in reader.beginning_offsets(self._names).items():
                reader.seek(at, offset)
            while not self._stop.is_set():
                for at, records in reader.poll(stream.poll_records_max, POLL_MS).items():
                    rows.read(self._names[at], records)
                if all(reader.position(at) >= end for at, end in ends.items()):
                    self.newest = rows
        finally:
            reader.close()

    def _room(self, name: str) -> StoredRows:
        storage: RowStorage = MemoryStorage()
        if self._dir is not None:  # another folder than what answers meanwhile
            place = f"catalogue-{name}-{self._readings % 2}"
            storage = RocksStorage(self._dir / place, lasting=False)
        return StoredRows(storage, self._bytes_max)
