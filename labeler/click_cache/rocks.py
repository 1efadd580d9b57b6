"""A labeler's local copy on disk: a RocksDB of raw keys and values (C4, shell)."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, Options, Rdict

from labeler.click_cache.storage import PagesFailed

logger = logging.getLogger(__name__)

#: Pages are large and read once: RocksDB needs little memory of its own.
BUFFER_BYTES, CACHE_BYTES, FILES_OPEN_MAX = 4_194_304, 4_194_304, 64


class RocksPages:
    """See `labeler.click_cache.storage.Pages`. Opened at its first use, by the thread that uses it.
    One that cannot be opened is thrown away and begun anew: everything in it stands in the log."""

    def __init__(self, dir: Path) -> None:
        self._dir = dir
        self._db: Rdict | None = None

    def put(self, key: bytes, value: bytes) -> None:
        with self._doing("write") as db:
            db[key] = value

    def get(self, key: bytes) -> bytes | None:
        with self._doing("read") as db:
            found: bytes | None = db.get(key)
            return found

    def delete(self, key: bytes) -> None:
        with self._doing("delete") as db:
            db.delete(key)

    def keys(self, prefix: bytes) -> list[bytes]:
        found: list[bytes] = []
        with self._doing("list") as db:
            for key in db.keys(from_key=prefix):
                if not key.startswith(prefix):
                    break
                found.append(key)
        return found

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
            raise PagesFailed(f"{what} {self._dir}: {error}") from error

    def _opened(self) -> Rdict:
        self._dir.parent.mkdir(parents=True, exist_ok=True)
        try:
            return Rdict(str(self._dir), _options())
        except Exception as error:
            if "lock" in str(error).lower():
                raise  # another process has it: it is not ours to throw away
            logger.warning("%s cannot be opened, begun anew: %s", self._dir, error)
            shutil.rmtree(self._dir)
            return Rdict(str(self._dir), _options())


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(FILES_OPEN_MAX)
    options.set_max_total_wal_size(4 * BUFFER_BYTES)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    options.set_block_based_table_factory(table)
    return options
