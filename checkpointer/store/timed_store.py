"""A store whose every call has a deadline (shell): one that hangs costs its caller that, and no
more.

A call runs on another thread, since neither a mounted file system nor most drivers can be told to
give up; one that has ended its call takes the next. What hangs beyond its deadline is left behind,
with its thread; once `CALLS_MAX` are, further ones fail at once, until some end.
"""

import errno
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from checkpointer.store.files import Files, StoreFault
from checkpointer.store.kept_threads import KeptThreads
from stream import Backoff
from stream.monitoring import bounded_wait

T = TypeVar("T")

#: Calls under way at once, those left behind included.
CALLS_MAX = 32
#: A call that fails is tried so often in all, within its deadline.
ATTEMPTS_MAX = 3
_PAUSE_MS, _PAUSE_MS_MAX = 50, 500
#: Failures of these kinds are there to stay for a moment: trying again at once does not help.
_LASTING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
    }
)

#: Files that are no part.
_SMALL = (".json", ".json.copy")

#: (call, outcome, seconds); outcome is "ok", "absent", "failed" or "late".
Told = Callable[[str, str, float], None]


@dataclass(frozen=True)
class StoreTimeouts:
    """`timeout_ms`: of a call about names or a small file. `transfer_timeout_ms`: of a call
    about a part, or about all names there are."""

    timeout_ms: int = 10_000
    transfer_timeout_ms: int = 600_000


LIMITS = StoreTimeouts()


class TimedFiles:
    """`Files` over another: every failure is an OSError, and comes within a deadline."""

    def __init__(
        self, inner: Files, limits: StoreTimeouts = LIMITS, told: Told | None = None
    ) -> None:
        self.inner, self.limits = inner, limits
        self._told = told or (lambda call, outcome, seconds: None)
        self._room, self._process = threading.BoundedSemaphore(CALLS_MAX), os.getpid()
        self._threads = KeptThreads("store")

    def read(self, path: str) -> bytes:
        return self._call("read", path, self.inner.read, path)

    def write(self, path: str, data: bytes) -> None:
        self._call("write", path, self.inner.write, path, data)

    def names(self, path: str) -> list[str]:
        return self._call("names", path, self.inner.names, path)

    def below(self, path: str) -> list[str]:
        return self._call("below", path, self.inner.below, path)

    def delete(self, path: str) -> None:
        self._call("delete", path, self.inner.delete, path)

    def sweep_drafts(self, path: str, age_ms: int) -> int:
        return self._call("sweep", path, self.inner.sweep_drafts, path, age_ms)

    def url(self, path: str) -> str:
        return self.inner.url(path)

    def _call(self, what: str, path: str, call: Callable[..., T], *arguments: Any) -> T:
        """What the call answers. Raises FileNotFoundError, or another OSError that names path
        and reason."""
        with bounded_wait():
            return self._told_of(what, path, call, arguments)

    def _told_of(
        self, what: str, path: str, call: Callable[..., T], arguments: tuple[Any, ...]
    ) -> T:
        began = time.monotonic()
        end = began + self._timeout_ms(what, path) / 1_000
        backoff = Backoff(_PAUSE_MS, _PAUSE_MS_MAX)
        outcome = "failed"
        try:
            for attempt in range(1, ATTEMPTS_MAX + 1):
                try:
                    answer = self._once(what, path, call, arguments, end)
                except FileNotFoundError:
                    outcome = "absent"
                    raise
                except TimeoutError:
                    outcome = "late"
                    raise
                except OSError as error:
                    pause_s = backoff.failed(random.random()) / 1_000
                    if (
                        attempt == ATTEMPTS_MAX
                        or error.errno in _LASTING
                        or time.monotonic() + pause_s >= end
                    ):
                        raise
                    time.sleep(pause_s)
                else:
                    outcome = "ok"
                    return answer
            raise AssertionError("the last attempt returns or raises")
        finally:
            self._told(what, outcome, time.monotonic() - began)

    def _once(
        self, what: str, path: str, call: Callable[..., T], arguments: tuple[Any, ...], end: float
    ) -> T:
        room = self._own_room()
        if not room.acquire(blocking=False):
            raise StoreFault(
                f"{what} {self.url(path)}: {CALLS_MAX} calls to the store hang already"
            )
        result: list[T] = []
        failure: list[BaseException] = []
        done = threading.Event()

        def work() -> None:
            try:
                result.append(call(*arguments))
            except BaseException as error:
                failure.append(error)

        def ended() -> None:
            room.release()
            done.set()

        try:
            self._threads.run(work, ended)
        except RuntimeError as error:  # no thread can be started now
            room.release()
            raise StoreFault(f"{what} {self.url(path)}: {error}") from error
        if not done.wait(max(0.0, end - time.monotonic())):
            limit_s = self._timeout_ms(what, path) / 1_000
            raise TimeoutError(f"{what} {self.url(path)}: no answer within {limit_s:g} s")
        if failure:
            fault = failure[0]
            if isinstance(fault, OSError) or not isinstance(fault, Exception):
                raise fault
            raise StoreFault(f"{what} {self.url(path)}: {type(fault).__name__}: {fault}") from fault
        return result[0]

    def _own_room(self) -> threading.BoundedSemaphore:
        """Of this process: what was under way at a fork is the parent's, and ends there."""
        if self._process != os.getpid():
            self._room, self._process = threading.BoundedSemaphore(CALLS_MAX), os.getpid()
        return self._room

    def _timeout_ms(self, what: str, path: str) -> int:
        is_part = what in ("read", "write") and "." in path.rsplit("/", 1)[-1]
        if what == "below" or (is_part and not path.endswith(_SMALL)):
            return self.limits.transfer_timeout_ms
        return self.limits.timeout_ms
