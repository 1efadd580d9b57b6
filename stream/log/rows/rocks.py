"""Rows by key on disk: a RocksDB of raw keys and values (shell)."""

import logging
import mmap
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import numpy as np
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from stream.log.rows.storage import Room, RowsFailed

logger = logging.getLogger(__name__)

#: Memory of RocksDB itself, each: two buffers of what is written, and blocks of what is read.
BUFFER_BYTES, CACHE_BYTES, FILES_OPEN_MAX = 4_194_304, 8_388_608, 128
#: Values of so many bytes lie in files of their own, which compaction does not write again.
BLOB_BYTES_MIN = 65_536
#: What RocksDB says of a folder that somebody has open, and of a machine or a disk that cannot now.
#: (The word "lock" alone stands in what it says of a damaged block as well.)
NOT_DAMAGED = (
    *("While lock file", "No locks available", "Too many open files", "Cannot allocate memory"),
    *("No space left on device", "Disk quota exceeded", "Read-only file system"),
    *("File too large", "Permission denied", "Operation not permitted"),
)


class MappedRoom(Room):
    """In a file without a name, mapped: it is gone with who holds it. All of its blocks are taken
    at once, so a disk that is full is told here, and not when a page is written."""

    on_disk = True

    def __init__(self, dir: Path, nbytes: int) -> None:
        with tempfile.TemporaryFile(dir=dir) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)
            else:  # macOS
                file.truncate(nbytes)
            self._map = mmap.mmap(file.fileno(), nbytes)
        self._map.madvise(mmap.MADV_RANDOM)
        self.bytes = np.frombuffer(self._map, np.uint8)

    def rest(self) -> None:
        self._map.madvise(mmap.MADV_DONTNEED)  # of a file that is shared: what was written stays


class RocksStorage:
    """See `stream.log.rows.storage.RowStorage`. Opened at its first use, by the thread that uses
    it."""

    def __init__(self, dir: Path, *, lasting: bool = True) -> None:
        """`lasting`: it is found again by the next process; what cannot be opened is thrown away
        and begun anew. Otherwise each begins with nothing."""
        self._dir, self._lasting = dir, lasting
        self._db: Rdict | None = None

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        with self._doing("read") as db:
            found: list[bytes | None] = db.get(list(keys))
            return found

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        batch = WriteBatch(raw_mode=True)
        if None in values:
            for key, value in zip(keys, values, strict=True):
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
        else:
            deque(map(batch.put, keys, values), maxlen=0)  # a loop in C
        with self._doing("write") as db:
            db.write(batch)

    def items(self, prefix: bytes) -> tuple[list[bytes], list[bytes]]:
        with self._doing("list") as db:
            found = list(
                takewhile(lambda one: one[0].startswith(prefix), db.items(from_key=prefix))
            )
        return [key for key, _ in found], [value for _, value in found]

    def keys(self, prefix: bytes) -> list[bytes]:
        with self._doing("list") as db:
            return list(takewhile(lambda key: key.startswith(prefix), db.keys(from_key=prefix)))

    def count(self) -> int:
        with self._doing("count") as db:
            return int(db.property_int_value("rocksdb.estimate-num-keys") or 0)

    def room(self, nbytes: int) -> Room:
        with self._doing("make room beside"):
            return MappedRoom(self._dir.parent, nbytes)

    def clear(self) -> None:
        self.close()
        try:
            if self._dir.exists():
                shutil.rmtree(self._dir)
        except OSError as error:
            raise RowsFailed(f"cannot empty {self._dir}: {error}") from error

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    @contextmanager
    def _doing(self, what: str) -> Iterator[Rdict]:
        try:
            if self._db is None:
                self._db = self._opened()
            yield self._db
        except Exception as error:
            raise RowsFailed(
                f"cannot {what} {self._dir}: {error}; free its disk, or see why it fails"
            ) from error

    def _opened(self) -> Rdict:
        if not self._lasting:
            shutil.rmtree(self._dir, ignore_errors=True)
        self._dir.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = Rdict(str(self._dir), _options())
        except Exception as error:
            if any(words in str(error) for words in NOT_DAMAGED) or not self._dir.is_dir():
                raise  # it is whole, another's, or never was: not to be thrown away
            logger.warning("%s cannot be opened, begun anew: %s", self._dir, error)
            shutil.rmtree(self._dir)
            db = Rdict(str(self._dir), _options())
        if not self._lasting:
            without_log = WriteOptions()
            without_log.disable_wal = True  # nothing of it outlives this process
            db.set_write_options(without_log)
        return db


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(FILES_OPEN_MAX)
    options.set_max_total_wal_size(4 * BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.none())
    options.set_enable_blob_files(True)
    options.set_min_blob_size(BLOB_BYTES_MIN)
    options.set_enable_blob_gc(True)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options
