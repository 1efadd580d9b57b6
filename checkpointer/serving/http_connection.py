"""HTTP/1.1 of one connection: llhttp, the parser of Node, over an event loop (shell).

llhttp (by httptools) frames strictly: two lengths, a length beside Transfer-Encoding, blanks and
line ends that are not as RFC 9112 wants them are errors. What it leaves open is decided here: how
large and how slow a request may be. Requests of one connection are answered one after the other.
"""

import asyncio
import re
import time
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, Protocol, cast

import httptools

#: Bytes of a request before its body.
HEAD_BYTES_MAX = 65_536
_TOO_LONG = f"head of more than {HEAD_BYTES_MAX} bytes; send fewer headers"
_BODILESS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE"})
_JSON = "application/json"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n", re.IGNORECASE)
_DIGITS_MAX = 9
_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


class HttpRequest(NamedTuple):
    """One whole request, as a client sent it."""

    method: bytes
    path: str  # as sent, without what stands behind "?"
    query: str
    headers: dict[bytes, bytes]  # names in lower case
    body: bytes
    arrived_s: float  # monotonic, when it was whole


class Response(NamedTuple):
    """What is answered: `kind` is its content type, `headers` what it has besides."""

    status: int
    body: bytes
    kind: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()


class Limits(NamedTuple):
    """What one connection may cost; one that is slower or sends more is refused."""

    body_bytes_max: int
    request_timeout_s: float  # from a request's first byte to its last
    keep_alive_s: float  # between an answer and the next request


class RefusedHead(NamedTuple):
    """The head of a prediction that was told 503, as its connection sent it: what stands around the
    digits of its length. Another one that differs in these alone is framed as llhttp has framed
    this one, and need not be parsed to be told the same."""

    before: bytes
    after: bytes
    counted_as: str

    def length(self, data: bytes) -> tuple[int, int] | None:
        """(bytes of the head, bytes of the body) of what begins with such a head; None = it does
        not, or not with a whole one."""
        at = len(self.before)
        end = data.find(b"\r", at, at + _DIGITS_MAX + 1)
        if end < 0 or not data.startswith(self.before) or not data.startswith(self.after, end):
            return None
        digits = data[at:end]
        return (end + len(self.after), int(digits)) if digits.isdigit() else None


def refused_head(data: bytes, counted_as: str) -> RefusedHead | None:
    """Of what a connection sent from the head's first byte on; None = its head is not all there."""
    end = data.find(_END)
    found = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
    if found is None:
        return None
    return RefusedHead(data[: found.start(1)], data[found.end(1) : end + len(_END)], counted_as)


class HttpServer(Protocol):
    """What a connection asks of whoever runs it."""

    limits: Limits

    @property
    def is_full(self) -> bool:
        """Whether predictions are told 503 now."""

    def shed(self, head: HttpRequest, keep_alive: bool) -> bytes | None:
        """The 503 to a request of which only the head has come; None = it is to be read whole.
        Asked while `is_full`."""

    def refuses_as(self, head: HttpRequest) -> str:
        """As what such heads are counted, where all that differ in the length alone are told 503
        while `is_full`; "" = some may not be."""

    def shed_again(self, counted_as: str) -> bytes:
        """The 503 to another one, on a connection that goes on."""

    def opened(self, connection: "HttpConnection") -> bool:
        """Whether there is room for it."""

    def closed(self, connection: "HttpConnection") -> None: ...

    def whole(self, connection: "HttpConnection", request: HttpRequest) -> None:
        """A request is whole: `connection.answer` is to be called, now or later, in the loop."""

    def refused(self, status: int, why: str) -> Response:
        """The answer to a request that is not one."""


class Clock:
    """The value of the header `Date`, made once a second."""

    def __init__(self) -> None:
        self._made_s, self._line = 0, b""

    def line(self) -> bytes:
        now_s = int(time.time())
        if now_s != self._made_s:
            self._made_s = now_s
            self._line = f"Date: {formatdate(now_s, usegmt=True)}\r\n".encode()
        return self._line


_clock = Clock()


class HttpConnection(asyncio.Protocol):
    """`since_s`: since when it is waited for, monotonic s, NaN while an answer is being made;
    `is_idle`: whether between two requests."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[HttpRequest, bool]] = deque()
        self._keep_alive = True
        self._method = b""
        self.is_answering, self.is_idle, self.is_new = False, True, True
        self._is_full = self._is_shed = self._is_within = False
        self._refused: RefusedHead | None = None
        self._came = b""  # what llhttp is fed, where it begins with a head
        self._passed_over = 0  # bytes of a body that are to come, and that nobody reads
        self.since_s = time.monotonic()
        self._begin()

    # --- asyncio --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio's
        if not self._server.opened(self):
            self._refuse(503, "too many connections are open; come again", (("Retry-After", "1"),))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        if self._passed_over:
            data = self._pass_over(data)
            if not data:
                return
        if self._refused is not None and self._shed_again(self._refused, data):
            return
        self._came = b"" if self._is_within else data
        if self.is_idle:
            self.is_idle, self.is_new = False, False
            if not self.is_answering:
                self.since_s = time.monotonic()
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # nothing to upgrade to: the next one is HTTP/1.1 too
            self._parser = httptools.HttpRequestParser(self)
        except _Refused as refused:
            self._refuse(refused.status, refused.why)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, _Refused):
                raise
            self._refuse(cause.status, cause.why)
        except httptools.HttpParserError as error:
            self._refuse(
                400, f"not HTTP: {error}; frame requests as RFC 9112 does, with one length"
            )
        if not self._headed and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(431, _TOO_LONG)
        if self._waiting and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more. What it has asked is answered all the same."""
        self._keep_alive &= not self.is_answering
        return self.is_answering

    def pause_writing(self) -> None:
        """The client does not read its answers: no more requests are taken from it."""
        self._is_full = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._go_on()

    # --- told 503 without being parsed ----------------------------------------------------------

    def _shed_again(self, refused: RefusedHead, data: bytes) -> bool:
        """Whether this is such another head, with no more than its body behind it, and was told
        503."""
        if self._is_within or self.is_answering or self._waiting or not self._server.is_full:
            return False
        found = refused.length(data)
        if found is None or not self._keep_alive or self._transport is None:
            return False
        head, body = found
        to_come = head + body - len(data)
        if to_come < 0 or body > self._server.limits.body_bytes_max:
            return False
        self._passed_over, self.is_idle, self.is_new = to_come, not to_come, False
        self.since_s = time.monotonic()
        self._transport.write(self._server.shed_again(refused.counted_as))
        return True

    def _pass_over(self, data: bytes) -> bytes:
        """What stands behind the body that nobody reads."""
        some = min(self._passed_over, len(data))
        self._passed_over -= some
        if not self._passed_over:
            self.is_idle, self.since_s = True, time.monotonic()
        return data[some:]

    # --- httptools ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._is_within = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._headers_bytes += len(name) + len(value)
        if self._headers_bytes > HEAD_BYTES_MAX:
            raise _Refused(431, _TOO_LONG)

    def on_headers_complete(self) -> None:
        self._headed = True
        self._method = self._parser.get_method()
        headers, most = self._headers, self._server.limits.body_bytes_max
        length = headers.get(b"content-length", b"0")
        chunked = b"transfer-encoding" in headers
        if self._method in _BODILESS and (chunked or length.strip() != b"0"):
            raise _Refused(400, f"{self._method.decode()} with a body; send none")
        if int(length) > most:
            raise _Refused(413, f"body: {int(length)} bytes; send at most {most} in one request")
        if self._method not in _BODILESS and not chunked and b"content-length" not in headers:
            raise _Refused(411, "Content-Length: missing; send it with the body's length in bytes")
        if self._server.is_full and not self.is_answering and not self._waiting and self._shed():
            return
        if b"expect" in headers and self._transport is not None and not self.is_answering:
            self._transport.write(_CONTINUE)

    def _shed(self) -> bool:
        """Whether it was told 503 before its body came, which is then read past. Who waits to be
        told to send the body is closed: it sends none."""
        expects = b"expect" in self._headers
        keep_alive = self._keep_alive and not expects and bool(self._parser.should_keep_alive())
        path, _, query = self._url.decode("latin-1").partition("?")
        head = HttpRequest(self._method, path, query, self._headers, b"", 0.0)
        answer = self._server.shed(head, keep_alive)
        if answer is None or self._transport is None:
            return False
        self._is_shed, self._keep_alive = True, keep_alive
        self._transport.write(answer)
        is_plain = keep_alive and bool(self._came) and b"upgrade" not in self._headers
        counted_as = self._server.refuses_as(head) if is_plain else ""
        self._refused = refused_head(self._came, counted_as) if counted_as else None
        if expects:
            self._transport.close()
        return True

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if not self._is_shed:
            self._body.append(body)
        if self._body_bytes > self._server.limits.body_bytes_max:
            most = self._server.limits.body_bytes_max
            raise _Refused(413, f"body: more than {most} bytes; send at most {most} in one request")

    def on_message_complete(self) -> None:
        self._is_within, self._came = False, b""
        if self._is_shed:
            self._is_shed = False
            self._begin()
            self.is_idle, self.since_s = True, time.monotonic()
            if not self._keep_alive and self._transport is not None:
                self._transport.close()
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        path, _, query = self._url.decode("latin-1").partition("?")
        now_s = time.monotonic()
        request = HttpRequest(self._method, path, query, self._headers, body, now_s)
        keep_alive = self._parser.should_keep_alive()
        self._begin()
        self.is_idle = True
        if self.is_answering:
            self._waiting.append((request, keep_alive))
        else:
            self._ask(request, keep_alive)

    # --- answers --------------------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def answer(self, response: Response, head_only: bool = False) -> None:
        """Send the answer to the request that was whole last, and go on to the next."""
        self.is_answering = False
        if self._transport is None:
            return
        self._transport.write(encoded(response, self._keep_alive, head_only))
        if not self._keep_alive:
            self._transport.close()
            return
        self.since_s = time.monotonic()
        self._go_on()

    def end(self) -> None:
        """Close it now, whatever it is at."""
        if self._transport is not None:
            self._transport.abort()

    def end_soon(self) -> None:
        """Close it once its answer is sent; at once if there is none to send."""
        self._keep_alive = False
        self._waiting.clear()
        if not self.is_answering and self._transport is not None:
            self._transport.close()

    def is_late(self, now_s: float) -> bool:
        """Whether it has been silent, or sending one request, for too long."""
        if self.is_answering:
            return False
        limits = self._server.limits
        idle = self.is_idle and not self.is_new
        return now_s - self.since_s > (limits.keep_alive_s if idle else limits.request_timeout_s)

    def _ask(self, request: HttpRequest, keep_alive: bool) -> None:
        self.is_answering, self._keep_alive = True, keep_alive and self._keep_alive
        self._server.whole(self, request)

    def _go_on(self) -> None:
        """To the next request, if there is room for its answer."""
        if self._transport is None or self._is_full or self.is_answering:
            return
        if self._waiting:
            self._ask(*self._waiting.popleft())
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _begin(self) -> None:
        self._url, self._headers = b"", dict[bytes, bytes]()
        self._body, self._body_bytes = list[bytes](), 0
        self._head_bytes, self._headers_bytes, self._headed = 0, 0, False

    def _refuse(self, status: int, why: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer what is not a request, and close: where the next one begins nobody knows."""
        if self.is_closing:
            return
        assert self._transport is not None
        if self._is_shed:  # it has its answer
            self._transport.close()
            return
        response = self._server.refused(status, why)._replace(headers=headers)
        self._transport.write(encoded(response, False, self._method == b"HEAD"))
        self._transport.close()


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


def encoded(response: Response, keep_alive: bool, head_only: bool = False) -> bytes:
    """As bytes of HTTP/1.1."""
    status, body, kind, headers = response
    more = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return b"".join(
        (
            _LINES[status],
            _clock.line(),
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}".encode("latin-1"),
            b"\r\n" if keep_alive else b"Connection: close\r\n\r\n",
            b"" if head_only else body,
        )
    )
