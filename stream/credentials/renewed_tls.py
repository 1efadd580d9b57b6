"""TLS of files that are read anew when they change, so that certificates are renewed without a
restart (shell)."""

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

log = logging.getLogger(__name__)


class RenewedTls(ssl.SSLContext):
    """The context that `read` makes of `files`, made anew at the first handshake after one of them
    has changed. Files that do not fit together, as while they are being renewed, are passed over,
    and the ones before count on."""

    def __new__(cls, read: Callable[[], ssl.SSLContext], files: Sequence[str]) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, read: Callable[[], ssl.SSLContext], files: Sequence[str]) -> None:
        """`files`: paths, "" = none. Raises what `read` does."""
        self._read, self._files = read, [name for name in files if name]
        self._lock = threading.Lock()
        self._seen = self.stamp = stamps(self._files)
        self._present = read()

    def present(self) -> ssl.SSLContext:
        """Of the files as they are now. `stamp` then changes when it does."""
        with self._lock:
            seen = stamps(self._files)
            if seen != self._seen:
                self._seen = seen
                self._renew(seen)
            return self._present

    def _renew(self, seen: tuple[object, ...]) -> None:
        names = ", ".join(self._files)
        try:
            self._present = self._read()
        except Exception as error:  # whatever is wrong with files, the ones before count on
            log.warning("the files of TLS are not renewed yet, %s: %s", names, error)
            return
        self.stamp = seen
        log.info("the files of TLS are renewed: %s", names)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return self.present().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self.present().wrap_bio(*args, **options)


def stamps(files: Sequence[str]) -> tuple[object, ...]:
    """What changes when one of these files does."""
    found: list[object] = []
    for name in files:
        try:
            state = Path(name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
    return tuple(found)
