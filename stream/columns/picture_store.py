"""A store of pictures: files named by the SHA-256 of their bytes, in a folder or at an fsspec URL.

What an event names is looked up here and nowhere else: never an address. A file is read as far as a
picture may be long, held against its name, and squared once; the newest stay. Who learns waits for
a store that is away, as for everything that it must know. Who answers a request waits `ANSWER_S` at
most, for all its pictures: the read goes on, and the next request finds what it brought.
"""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from contextlib import suppress

import fsspec

from stream.backoff import Backoff
from stream.columns.pictures import CACHED_MAX, FILE_BYTES_MAX, WORK_MAX, squared, too_much_work

#: How long an answer waits for a file; how many are being read at once for answers; the pauses
#: between attempts of who learns, ms.
ANSWER_S, READS_MAX, PAUSE_MS, PAUSE_MAX_MS = 0.05, 32, 200, 10_000
_log = logging.getLogger(__name__)


class PictureStore:
    """See `stream.columns.pictures.PictureFiles`. Threads may share it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}  # the newest last
        self._reads: dict[str, Future[bytes]] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="pictures")
        self.absent = 0  # that were asked for and are not there, or are no pictures

    def squares(self, digests: Sequence[str], waits: bool) -> list[bytes]:
        with self._lock:
            found = {one: self._held[one] for one in digests if one in self._held}
        lacking = [one for one in dict.fromkeys(digests) if one and one not in found]
        found |= {one: self._awaited(one) for one in lacking} if waits else self._soon(lacking)
        return [found.get(one, b"") for one in digests]

    def _awaited(self, digest: str) -> bytes:
        backoff = Backoff(PAUSE_MS, PAUSE_MAX_MS)
        while True:
            try:
                return self._read(digest)
            except OSError as error:
                pause_ms = backoff.failed(random.random())
                _log.warning("%s: %s; trying again in %d ms", self.url, error, pause_ms)
                time.sleep(pause_ms / 1_000)

    def _soon(self, digests: Sequence[str]) -> dict[str, bytes]:
        """What comes of these within `ANSWER_S`, for all of them together."""
        until = time.monotonic() + ANSWER_S
        with self._lock:
            for digest in digests:
                if len(self._reads) >= READS_MAX:
                    break
                if digest not in self._reads:
                    self._reads[digest] = self._threads.submit(self._read_for_answer, digest)
            reads = {one: self._reads[one] for one in digests if one in self._reads}
        found: dict[str, bytes] = {}
        for digest, read in reads.items():
            with suppress(TooSlow, OSError):
                found[digest] = read.result(max(0.0, until - time.monotonic()))
        return found

    def _read_for_answer(self, digest: str) -> bytes:
        try:
            return self._read(digest)
        finally:
            with self._lock:
                self._reads.pop(digest, None)

    def _read(self, digest: str) -> bytes:
        """Raises OSError where the store is away."""
        try:
            file = self._files.cat_file(f"{self._root}/{digest}", end=FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return self._nothing(digest, "is not there")
        if hashlib.sha256(file).hexdigest() != digest:
            return self._nothing(digest, "is too long, or holds other bytes than its name says")
        if work := too_much_work([file]):
            return self._nothing(digest, f"takes as long as {work} pixels; allowed are {WORK_MAX}")
        found = squared(file)
        if found.wrong:
            return self._nothing(digest, found.wrong)
        with self._lock:
            self._held[digest] = found.pixels
            while len(self._held) > CACHED_MAX:
                del self._held[next(iter(self._held))]
        return found.pixels

    def _nothing(self, digest: str, why: str) -> bytes:
        self.absent += 1
        if self.absent & (self.absent - 1) == 0:  # the 1st, 2nd, 4th, ...
            _log.warning("%s/%s %s; %d so far count as missing", self.url, digest, why, self.absent)
        return b""
