"""GET requests to a registry, over HTTP or TLS (shell): one kept connection, a deadline for the
whole of a request however slowly it is answered, redirects.

A registry closes a connection that has rested for some time, so a request that ends on a kept one
without an answer is asked once more on a new one. A login is sent to the registry that was named
and to nobody whom it leads to.
"""

import base64
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import SplitResult, urljoin, urlsplit

from stream.log import read_secret
from stream.registry.config import RegistryConfig

USERNAME, PASSWORD, TOKEN = (
    "EVERSPUN_REGISTRY_USERNAME",
    "EVERSPUN_REGISTRY_PASSWORD",
    "EVERSPUN_REGISTRY_TOKEN",
)
ANSWER_BYTES_MAX = 2 << 20
REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"
#: (scheme, host, port) of a server.
Origin = tuple[str, str, int]


class HttpClient:
    """Belongs to one thread."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._kept: tuple[Origin, http.client.HTTPConnection] | None = None

    def get(self, url: str, path: str) -> tuple[int, bytes]:
        """Status and body of `url` with `path` behind it. Raises OSError, HTTPException,
        ValueError; CannotAuthenticate where a secret cannot be read."""
        deadline_s = time.monotonic() + self._config.timeout_ms / 1000
        at, own = urlsplit(url + path), _origin(urlsplit(url))
        for _ in range(REDIRECTS_MAX + 1):
            headers = {"Accept": _ACCEPT}
            if _origin(at) == own:
                headers |= self._authorization()
            status, location, body = self._exchange(at, headers, deadline_s)
            if status not in _REDIRECTS or not location:
                return status, body
            at = _led_to(at, location)
        raise ValueError(f"it leads on more than {REDIRECTS_MAX} times, last to {at.geturl()}")

    def drop(self) -> None:
        """The connection that is kept, if any, is closed."""
        if self._kept is not None:
            with suppress(OSError):
                self._kept[1].close()
            self._kept = None

    def _exchange(
        self, at: SplitResult, headers: dict[str, str], deadline_s: float
    ) -> tuple[int, str, bytes]:
        """Status, where it leads, body."""
        origin, kept = _origin(at), self._kept
        self._kept = None  # a request that fails leaves none behind
        if kept is not None and kept[0] == origin:
            try:
                return self._ask(kept[1], at, headers, deadline_s)
            except (ConnectionError, ssl.SSLEOFError):
                kept[1].close()  # it was closed while it rested
        elif kept is not None:
            kept[1].close()
        return self._ask(self._connection(origin, deadline_s), at, headers, deadline_s)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        at: SplitResult,
        headers: dict[str, str],
        deadline_s: float,
    ) -> tuple[int, str, bytes]:
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(max(0.001, deadline_s - time.monotonic()))
        with self._in_time(connection, deadline_s):
            connection.request("GET", target, headers=headers)
            answer = connection.getresponse()
            body = b""
            while part := answer.read1(65_536):
                body += part
                if len(body) > ANSWER_BYTES_MAX:
                    raise ValueError(f"answers more than {ANSWER_BYTES_MAX} bytes")
        if answer.isclosed() and not answer.will_close:
            self._kept = _origin(at), connection
        else:
            connection.close()
        return answer.status, answer.headers.get("Location", ""), body

    @contextmanager
    def _in_time(self, connection: http.client.HTTPConnection, deadline_s: float) -> Iterator[None]:
        """Whatever is done with a connection that stands ends by then, also where an answer
        drips."""
        late, sock = threading.Event(), connection.sock  # which it lets go of before the body ends

        def end() -> None:
            late.set()
            with suppress(OSError):  # of a TLS socket too: what lies below it
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

        timer = threading.Timer(max(0.0, deadline_s - time.monotonic()), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if late.is_set():
                raise self._too_late() from error
            raise
        finally:
            timer.cancel()
        if late.is_set():
            connection.close()
            raise self._too_late()

    def _too_late(self) -> TimeoutError:
        return TimeoutError(f"no whole answer within {self._config.timeout_ms} ms")

    def _connection(self, origin: Origin, deadline_s: float) -> http.client.HTTPConnection:
        scheme, host, port = origin
        timeout_s = deadline_s - time.monotonic()
        if timeout_s <= 0:
            raise self._too_late()
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context = self._context()
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)

    def _context(self) -> ssl.SSLContext:
        """Files are read at each connection: they may be renewed."""
        config = self._config
        try:
            context = ssl.create_default_context(cafile=config.cafile or None)
        except OSError as error:
            raise OSError(f"registry.cafile = {config.cafile!r}: {error}") from error
        if config.certfile:
            try:
                context.load_cert_chain(config.certfile, config.keyfile or None)
            except OSError as error:
                raise OSError(f"registry.certfile = {config.certfile!r}: {error}") from error
        return context

    def _authorization(self) -> dict[str, str]:
        """Raises CannotAuthenticate."""
        config = self._config
        if config.token_file or TOKEN in os.environ:
            token = read_secret(TOKEN, config.token_file, "registry.token_file")
            return {"Authorization": f"Bearer {token}"}
        username = (config.username or os.environ.get(USERNAME, "")).rstrip("\r\n")
        if not username:
            return {}
        password = read_secret(PASSWORD, config.password_file, "registry.password_file")
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}


def _origin(at: SplitResult) -> Origin:
    return at.scheme, at.hostname or "", at.port or (443 if at.scheme == "https" else 80)


def _led_to(at: SplitResult, location: str) -> SplitResult:
    """Raises ValueError."""
    to = urlsplit(urljoin(at.geturl(), location))
    if to.scheme not in ("http", "https") or not to.hostname or to.username is not None:
        raise ValueError(f"it leads to {location[:200]!r}, which is no address of a registry")
    if at.scheme == "https" and to.scheme == "http":
        raise ValueError(f"it leads from https to {location[:200]!r}, where anybody may answer")
    return to
