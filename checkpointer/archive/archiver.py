"""The archiver process: `examples` read on, and kept in files for as long as anybody wants (shell).

Where it stands is in the archive itself; nothing is committed to the broker. A kill between a file
and its pointer writes that file again.
"""

import logging
import random
import threading
import time

from checkpointer.archive.archive import Archive, ArchiveHead, Archiving
from checkpointer.archive.archive_file import ArchivedFile
from checkpointer.config import ArchiveConfig
from checkpointer.metrics import ArchiverMetrics
from checkpointer.process import StoreHealth, code_version
from checkpointer.store import Damaged, NewerFormat, open_store
from stream import Backoff, Partition, Record, StreamConfig, start_metrics
from stream.log import Log, LogError, OffsetOutOfRange, Reader, wall_clock_ms

_log = logging.getLogger(__name__)
_POLL_MS = 250
_LAG_EVERY_S = 5.0
#: Between two attempts at a store that fails, the first and the longest, ms.
_RETRY_MS = (500, 30_000)


class Archiver:
    """All partitions of `examples`, one thread."""

    def __init__(
        self, stream: StreamConfig, config: ArchiveConfig, log: Log, metrics: ArchiverMetrics
    ) -> None:
        self.config, self.metrics = config, metrics
        self.archive = Archive(open_store(config.root))
        self.partitions = [Partition(stream.examples, p) for p in range(stream.partitions)]
        self._log = log
        self._cores: dict[Partition, Archiving] = {}
        self._lost: dict[Partition, int] = {}
        self._reader: Reader | None = None
        self._look_at_s = self._store_at_s = 0.0
        self.health = StoreHealth(Backoff(*_RETRY_MS))
        metrics.store_failing_s.set_function(lambda: self.health.failing_s(time.monotonic()))

    def run_once(self, now_ms: int) -> int:
        """Read and write once; how many records came. A store that fails is waited for: what was
        gathered is read again."""
        if time.monotonic() < self._store_at_s:
            return 0
        try:
            came = self._turn(now_ms)
        except OSError as error:
            self._drop_reader()
            self._told(f"{type(error).__name__}: {error}")
            self._store_at_s = time.monotonic() + self.health.pause_s(random.random())
            return 0
        self._told("")
        return came

    def _told(self, fault: str) -> None:
        if said := self.health.told(fault, time.monotonic()):
            _log.warning("archive in %s: %s", self.config.root, said)

    def _turn(self, now_ms: int) -> int:
        try:
            if self._reader is None:
                self._open()
            assert self._reader is not None
            polled = self._reader.poll(self.config.poll_records_max, _POLL_MS)
        except OffsetOutOfRange as error:
            self._skip(error)
            return 0
        except LogError as error:
            _log.warning("waiting for the broker: %s", error)
            self._drop_reader()
            return 0
        for partition, records in polled.items():
            core = self._cores[partition]
            repeats = core.repeats
            for record in records:
                for file, kept in core.add(record, now_ms):
                    self._write(partition, file, kept)
            self.metrics.repeats.inc(core.repeats - repeats)
        for partition, core in self._cores.items():
            if core.due(now_ms):
                self._write(partition, *core.close())
        self._show()
        return sum(map(len, polled.values()))

    def close(self) -> None:
        """Write what was gathered, so that the next one reads nothing twice."""
        try:
            for partition, core in self._cores.items():
                if core.waiting:
                    self._write(partition, *core.close())
        except OSError as error:
            _log.warning("what was gathered is read again: %s", error)
        self._drop_reader()

    def _open(self) -> None:
        """At the archive's head; what was gathered for a file since is read again. Raises
        LogError."""
        reader = self._log.reader()
        try:
            first = reader.beginning_offsets(self.partitions)
            reader.assign(self.partitions)
            for partition in self.partitions:
                head = self._head(partition)
                self._resume(partition, head)
                reader.seek(partition, first[partition] if head is None else head.next_offset)
        except (LogError, OSError):
            reader.close()
            raise
        self._reader = reader

    def _head(self, partition: Partition) -> ArchiveHead | None:
        """How far it has come. Where the file that says so is damaged, as by a power cut, the
        archived files say it. Raises NewerFormat."""
        try:
            return self.archive.head(partition.partition)
        except NewerFormat:
            raise
        except Damaged as error:
            head = self.archive.rebuilt_head(partition.partition)
            _log.error("%s: it is made anew from the files: %s", error, head)
            if head is not None:
                self.archive.write_head(partition.partition, head)
            return head

    def _resume(self, partition: Partition, head: ArchiveHead | None) -> None:
        config = self.config
        self._lost[partition] = head.lost if head is not None else 0
        self._cores[partition] = Archiving.resumed(
            partition.partition, head, config.file_bytes_max, config.file_age_max_ms, code_version()
        )

    def _skip(self, error: OffsetOutOfRange) -> None:
        """Retention was faster: what it took is gone from both. The chains are begun anew behind
        the gap."""
        assert self._reader is not None
        partition, core = error.partition, self._cores[error.partition]
        if error.offset > error.first:
            raise LogError(
                f"archive of {error.partition.topic}[{error.partition.partition}] stands at "
                f"{error.offset}, beyond the"
                f" end {error.end}: the topic was made anew; archive it under another root"
            ) from error
        if core.waiting:
            self._write(partition, *core.close())
        lost = error.first - error.offset
        _log.error("%s: %d records are gone before they were archived", error, lost)
        self.metrics.lost.inc(lost)
        head = ArchiveHead(error.first, {}, self._lost[partition] + lost)
        self.archive.write_head(partition.partition, head)
        self._resume(partition, head)
        self._reader.seek(partition, error.first)

    def _write(self, partition: Partition, file: ArchivedFile, kept: list[Record]) -> None:
        self.archive.write(file, kept, self._lost[partition])
        self.metrics.files.inc()
        self.metrics.bytes.inc(sum(len(record.value or b"") for record in kept))
        self.metrics.records_in.inc(file.rows)
        self.metrics.records_out.inc(file.rows)
        self.metrics.data_time_ms.set(file.arrival_max_ms)

    def _show(self) -> None:
        self.metrics.waiting.set(sum(core.waiting for core in self._cores.values()))
        if self._reader is None or time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + _LAG_EVERY_S
        try:
            ends = self._reader.end_offsets(self.partitions)
        except LogError:
            return  # the next poll says what is wrong
        lag = sum(max(0, ends[p] - self._reader.position(p)) for p in self.partitions)
        self.metrics.lag.set(lag)
        self.metrics.waits_for("none" if lag else "idle")

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
        self._cores.clear()


def run(
    stream: StreamConfig,
    config: ArchiveConfig,
    log: Log,
    run_dir: str,
    index: int,
    stop: threading.Event,
) -> None:
    """Archive until `stop` is set, then write what was gathered."""
    metrics = ArchiverMetrics()
    start_metrics(run_dir, "archiver", index, metrics)
    archiver = Archiver(stream, config, log, metrics)
    loop = metrics.liveness.loop("archive")
    try:
        while not stop.is_set():
            loop.turn()
            if not archiver.run_once(wall_clock_ms()):
                stop.wait(0.05)
    finally:
        loop.rest()
        archiver.close()
