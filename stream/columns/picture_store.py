"""A store of pictures: files named by the SHA-256 of their bytes, in a folder or at an fsspec URL.

What an event names is looked up here and nowhere else: never an address. A file is read as far as a
picture may be long, held against its name, and squared once; the newest stay. Who learns waits for
a store that is away, as for everything that it must know; but not for one file that stays
unreadable where others can be read: it counts as missing. Who answers a request waits `ANSWER_S` at
most, for all its pictures: the read goes on, and the next request finds what it brought. A read
that hangs is left behind with its thread after `READ_S`. A process that is forked off begins anew.
"""

import errno
import hashlib
import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooSlow
from contextlib import suppress

import fsspec

from stream.columns.pictures import CACHED_MAX, FILE_BYTES_MAX, WORK_MAX, squared, too_much_work
from stream.pauses import Backoff

#: How long an answer waits for a file; how many are being read at once for answers; the pauses
#: between attempts of who learns, ms.
ANSWER_S, READS_MAX, PAUSE_MS, PAUSE_MAX_MS = 0.05, 32, 200, 10_000
#: After how long a read for an answer is no longer waited for; how many threads there are, with
#: those that were left behind; how many files are squared at once for answers.
READ_S, THREADS_MAX, SQUARED_AT_ONCE = 30.0, 128, 4
#: What waiting does not change of one file: a folder in its place, a link to itself.
LASTING = frozenset({errno.EISDIR, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG})
#: For how long any other fault of one file is waited out where others can be read; how many of
#: those are asked for.
ALONE_S, ASKED_MAX = 30.0, 8
#: That no file has.
_NOBODYS = "0" * 64
_log = logging.getLogger(__name__)


class _Read(Future[bytes]):
    """A read for answers, since `began_s` of the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.began_s = time.monotonic()


class PictureStore:
    """See `stream.columns.pictures.PictureFiles`. Threads may share it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._held: dict[str, bytes] = {}  # the newest last
        self.absent = 0  # that were asked for and cannot be read, or are no pictures
        self._denied_s = math.inf  # since when there are files that may not be read
        self._open()
        self.begin_anew()
        _stores.add(self)

    def _open(self) -> None:
        self._files, self._root = fsspec.core.url_to_fs(self.url)
        self._process = os.getpid()

    def begin_anew(self) -> None:
        """No read under way, as at first, and as in a process that was forked off."""
        self._lock = threading.Lock()
        self._squaring = threading.BoundedSemaphore(SQUARED_AT_ONCE)
        self._reads: dict[str, _Read] = {}
        self._threads: set[_Read] = set()  # each read's thread, until that ends

    def squares(self, digests: Sequence[str], waits: bool) -> list[bytes]:
        with self._lock:
            found = {one: self._held[one] for one in digests if one in self._held}
        lacking = [one for one in dict.fromkeys(digests) if one and one not in found]
        found |= (
            {one: self._awaited(one, lacking) for one in lacking} if waits else self._soon(lacking)
        )
        return [found.get(one, b"") for one in digests]

    def _awaited(self, digest: str, beside: Sequence[str]) -> bytes:
        backoff, began_s = Backoff(PAUSE_MS, PAUSE_MAX_MS), time.monotonic()
        while True:
            try:
                return self._read(digest)
            except OSError as error:
                if self._lasts(error, began_s) and self._gives_others(digest, beside):
                    with suppress(OSError):  # the store may have come back in between
                        return self._read(digest)
                    return self._nothing(digest, f"cannot be read, unlike others: {error}")
                pause_ms = backoff.failed(random.random())
                _log.warning("%s: %s; trying again in %d ms", self.url, error, pause_ms)
                time.sleep(pause_ms / 1_000)

    def _lasts(self, error: OSError, began_s: float) -> bool:
        """Whether a file that was first asked for at `began_s` has been unreadable for long enough.
        Many that may not be read are waited for together."""
        if isinstance(error, PermissionError):
            began_s = self._denied_s = min(self._denied_s, began_s)
        return error.errno in LASTING or time.monotonic() - began_s >= ALONE_S

    def _gives_others(self, digest: str, beside: Sequence[str]) -> bool:
        """Whether the store gives another file, or says that one is not there."""
        with self._lock:
            newest = list(self._held)[-1:]
        others = [one for one in (*newest, _NOBODYS, *beside) if one != digest]
        for other in others[:ASKED_MAX]:
            with suppress(OSError):
                self._file(other)
                return True
        return False

    def _soon(self, digests: Sequence[str]) -> dict[str, bytes]:
        """What comes of these within `ANSWER_S`, for all of them together."""
        until = time.monotonic() + ANSWER_S
        with self._lock:
            overdue_s = time.monotonic() - READ_S
            self._reads = {d: one for d, one in self._reads.items() if one.began_s > overdue_s}
            for digest in digests:
                if len(self._reads) >= READS_MAX or not self._begin(digest):
                    break
            reads = {one: self._reads[one] for one in digests if one in self._reads}
        found: dict[str, bytes] = {}
        for digest, read in reads.items():
            with suppress(TooSlow, OSError):
                found[digest] = read.result(max(0.0, until - time.monotonic()))
        return found

    def _begin(self, digest: str) -> bool:
        """Under the lock. Whether it is being read."""
        if digest in self._reads:
            return True
        if len(self._threads) >= THREADS_MAX:
            return False
        read = _Read()
        arguments = digest, read
        thread = threading.Thread(target=self._read_for_answer, args=arguments, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # none can be started now
            return False
        self._reads[digest] = read
        self._threads.add(read)
        return True

    def _read_for_answer(self, digest: str, read: _Read) -> None:
        try:
            file = self._file(digest)
            with self._squaring:
                read.set_result(self._squared(digest, file))
        except BaseException as error:
            read.set_exception(error)
        with self._lock:
            self._threads.discard(read)
            if self._reads.get(digest) is read:
                del self._reads[digest]

    def _read(self, digest: str) -> bytes:
        """Raises OSError where the store is away."""
        return self._squared(digest, self._file(digest))

    def _file(self, digest: str) -> bytes | None:
        """None where there is none. Raises OSError where the store is away, whatever its driver
        raises."""
        if self._process != os.getpid():
            self._open()  # a driver's connections are its parent's
        try:
            file: bytes = self._files.cat_file(f"{self._root}/{digest}", end=FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        return file

    def _squared(self, digest: str, file: bytes | None) -> bytes:
        if file is None:
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


_stores: "weakref.WeakSet[PictureStore]" = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    for store in list(_stores):
        store.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
