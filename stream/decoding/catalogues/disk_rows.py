"""Rows of a catalogue on disk, where memory holds no more: a RocksDB of raw keys and values
(shell). They stand in the topic, so each start begins with none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteOptions

from stream.decoding.catalogues.held_rows import CatalogueFailed

BUFFER_BYTES, CACHE_BYTES, FILES_OPEN_MAX = 8_388_608, 16_777_216, 128


class DiskRows:
    """See `stream.decoding.catalogues.MoreRows`. Opened, and emptied, at its first use."""

    def __init__(self, dir: Path) -> None:
        self._dir = dir
        self._db: Rdict | None = None

    def get(self, key: bytes) -> bytes | None:
        with self._doing("read") as db:
            found: bytes | None = db.get(key)
            return found

    def put(self, key: bytes, value: bytes) -> None:
        with self._doing("write") as db:
            db[key] = value

    def delete(self, key: bytes) -> None:
        with self._doing("delete from") as db:
            db.delete(key)

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
            raise CatalogueFailed(
                f"cannot {what} {self._dir}: {error}; free its disk, or raise catalogue_bytes_max"
            ) from error

    def _opened(self) -> Rdict:
        shutil.rmtree(self._dir, ignore_errors=True)
        self._dir.parent.mkdir(parents=True, exist_ok=True)
        db = Rdict(str(self._dir), _options())
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
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options
