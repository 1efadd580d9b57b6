"""Data channels: stream sockets beside gRPC that carry frames for pulls and pushes, one call at a
time each.

gRPC for Python moves about 0.6 GB/s of such messages, because every byte passes through its own
buffers; a stream socket moves several, straight from one array into the other. A shard says over
gRPC where its data channel is and hands out the token that opens it, so a data channel admits
exactly whom gRPC admits. With TLS a data channel is a TLS connection of the same certificates
(`paramserver.wire.tls`).

A data channel has a thread of its own on the server, so no data channel waits for a thread, and
control calls (K4) are never behind one. A call has a deadline on both ends; a data channel that met
an error is closed, not mended.
"""

import contextlib
import hmac
import logging
import os
import secrets
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from paramserver.wire import frames
from paramserver.wire.frames import BadFrame, Buffer, FrameTooLarge
from stream.monitoring import PortTaken

log = logging.getLogger(__name__)

#: Data channels open at once on one shard; a further one is closed at once, and its caller comes
#: again.
CHANNELS_MAX = 512
#: The kernel's buffer of a unix socket: its default holds a twentieth of a batch.
SOCKET_BUFFER_BYTES = 1 << 21
#: What TLS sends at a time.
TLS_RECORD_BYTES = 16_384
#: Pieces given to one `sendmsg`; the kernel takes at most 1,024.
PIECES_MAX = 512

#: Makes a TLS connection of one, handshake included.
Wrap = Callable[[socket.socket], ssl.SSLSocket]
#: (method's code, header, body) -> pieces of the answer
Handle = Callable[[int, bytes, Buffer], list[memoryview]]


class ChannelClosed(OSError):
    """The other end went away."""


class ChannelTimeout(OSError):
    """The other end did nothing within the deadline."""


class DataChannel:
    """One end of a connection. `timeout_ms`: silence longer than this ends it."""

    def __init__(self, connection: socket.socket, timeout_ms: int) -> None:
        self._socket = connection
        # Not settimeout(), which would make every read two system calls, and a large one many.
        limit = struct.pack("ll", timeout_ms // 1_000, timeout_ms % 1_000 * 1_000)
        connection.setblocking(True)
        for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, which, limit)
        self._waits_for_ever = False
        if connection.family == socket.AF_UNIX:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._prefix = memoryview(bytearray(frames.PREFIX.size))

    def secure(self) -> None:
        """The handshake, if there is one. Raises OSError."""

    @classmethod
    def open(
        cls, address: str, token: bytes, timeout_ms: int, wrap: Wrap | None = None
    ) -> "DataChannel":
        """Connect and show the token; `wrap` makes it a TLS connection. Raises OSError."""
        kind, _, where = address.partition(":")
        connection = socket.socket(_family(kind, where))
        try:
            connection.settimeout(timeout_ms / 1_000)
            if kind == "unix":
                connection.connect(_path(where))
            else:
                connection.connect(_host_and_port(where))
            channel = (
                TlsDataChannel(connection, timeout_ms, wrap)
                if wrap
                else cls(connection, timeout_ms)
            )
            channel.secure()
            channel.send(frames.pieces(frames.HELLO, token))
            channel.receive(0)
        except (OSError, BadFrame):
            connection.close()
            raise
        return channel

    def send(self, pieces: list[memoryview]) -> None:
        at = 0
        while at < len(pieces):
            batch = pieces[at : at + PIECES_MAX]
            at += len(batch)
            try:
                sent = self._socket.sendmsg(batch)
                while batch := _rest(batch, sent):
                    sent = self._socket.sendmsg(batch)
            except BlockingIOError as error:
                raise ChannelTimeout("nothing was taken within the deadline") from error

    def receive(self, body_bytes_max: int) -> tuple[int, bytes, Buffer]:
        """(code, header, body) of the next frame; the body is the receiver's own. Raises OSError
        and BadFrame."""
        self._fill(self._prefix, self._waits_for_ever)
        code, header_bytes, body_bytes = frames.read_prefix(self._prefix, body_bytes_max)
        header = bytearray(header_bytes)
        self._fill(memoryview(header))
        body = np.empty(body_bytes, np.uint8)
        if body_bytes:
            self._fill(body.data)
        return code, bytes(header), body

    def wait_for_ever(self) -> None:
        """Between calls, a server's end waits without a limit: not in the midst of one."""
        self._waits_for_ever = True

    def discard(self, nbytes: int) -> None:
        """Read what nobody takes, so that the other end comes to read why."""
        scrap = memoryview(bytearray(min(nbytes, 1 << 20)))
        while nbytes:
            piece = scrap[: min(nbytes, len(scrap))]
            self._fill(piece)
            nbytes -= len(piece)

    def shut(self) -> None:
        """Take no further frame; one being answered is answered."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        self._socket.close()

    def _fill(self, buffer: memoryview, waits_for_ever: bool = False) -> None:
        """`waits_for_ever`: for its first byte."""
        at = 0
        while at < len(buffer):
            try:
                got = self._socket.recv_into(buffer[at:], 0, socket.MSG_WAITALL)
            except BlockingIOError as error:
                if waits_for_ever and not at:
                    continue
                raise ChannelTimeout("no answer within the deadline") from error
            if not got:
                raise ChannelClosed("the other end closed the data channel")
            at += got


class TlsDataChannel(DataChannel):
    """The same over TLS. Its socket keeps the time itself: the kernel's limits would look to TLS
    like data that is to come."""

    def __init__(self, connection: socket.socket, timeout_ms: int, wrap: Wrap) -> None:
        self._limit_s = timeout_ms / 1_000
        super().__init__(connection, timeout_ms)
        for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", 0, 0))
        self._wrap = wrap

    def secure(self) -> None:
        self._socket.settimeout(self._limit_s)
        self._socket = self._wrap(self._socket)

    def send(self, pieces: list[memoryview]) -> None:
        self._socket.settimeout(self._limit_s)
        try:
            for piece in _joined(pieces):
                self._socket.sendall(piece)
        except TimeoutError as error:
            raise ChannelTimeout("nothing was taken within the deadline") from error
        except ssl.SSLEOFError as error:
            raise ChannelClosed("the other end closed the data channel") from error

    def shut(self) -> None:
        """Not `SSLSocket.shutdown`, which would go on in the clear."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def _fill(self, buffer: memoryview, waits_for_ever: bool = False) -> None:
        self._socket.settimeout(self._limit_s)
        at = 0
        while at < len(buffer):
            try:
                got = self._socket.recv_into(buffer[at:])
            except TimeoutError as error:
                if waits_for_ever and not at:
                    continue
                raise ChannelTimeout("no answer within the deadline") from error
            except ssl.SSLEOFError as error:
                raise ChannelClosed("the other end closed the data channel") from error
            if not got:
                raise ChannelClosed("the other end closed the data channel")
            at += got


def _joined(pieces: list[memoryview]) -> Iterator[memoryview | bytes]:
    """The same bytes in pieces of at least TLS_RECORD_BYTES, but for the last: each is a record."""
    small: list[memoryview] = []
    nbytes = 0
    for piece in pieces:
        if len(piece) >= TLS_RECORD_BYTES and not small:
            yield piece
            continue
        small.append(piece)
        nbytes += len(piece)
        if nbytes >= TLS_RECORD_BYTES:
            yield b"".join(small)
            small, nbytes = [], 0
    if small:
        yield b"".join(small)


def _rest(pieces: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of pieces of which `sent` bytes went out."""
    for number, piece in enumerate(pieces):
        if sent < len(piece):
            return [piece[sent:], *pieces[number + 1 :]]
        sent -= len(piece)
    return []


class DataChannels:
    """The data channels of one caller to one shard: a call takes an idle one, or opens one. `ask`:
    where they are, by gRPC."""

    def __init__(
        self,
        ask: Callable[[], tuple[str, bytes]],
        timeout_ms: int,
        body_bytes_max: int,
        wrap: Wrap | None = None,
    ) -> None:
        self._ask, self.timeout_ms, self.body_bytes_max = ask, timeout_ms, body_bytes_max
        self._wrap = wrap
        self._idle: list[DataChannel] = []
        self._where: tuple[str, bytes] | None = None
        self._closed = False

    def served(self) -> bool:
        """Whether the shard has a data channel at all. Raises what `ask` raises."""
        if self._where is None:
            self._where = self._ask()
        return bool(self._where[0])

    def call(
        self, code: int, header: bytes, arrays: list[frames.Array]
    ) -> tuple[int, bytes, Buffer]:
        """The answer: (status, header or reason, body). Raises OSError or BadFrame: then it may
        have been performed."""
        pieces = frames.pieces(code, header, arrays)
        try:
            channel, fresh = self._idle.pop(), False
        except IndexError:
            channel, fresh = self._open(), True
        try:
            answer = self._exchange(channel, pieces)
        except ChannelClosed:
            if fresh:
                raise
            self.forget()  # the shard has restarted since: its other data channels are as dead
            channel = self._open()
            answer = self._exchange(channel, pieces)
        except (OSError, BadFrame):
            self.forget()
            raise
        if self._closed:
            channel.close()
        else:
            self._idle.append(channel)
        return answer

    def forget(self) -> None:
        """Close what is idle, and ask anew where data channels are."""
        self._where = None
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        self._closed = True
        self.forget()

    def _exchange(
        self, channel: DataChannel, pieces: list[memoryview]
    ) -> tuple[int, bytes, Buffer]:
        try:
            channel.send(pieces)
            return channel.receive(self.body_bytes_max)
        except (ConnectionError, BrokenPipeError) as error:
            channel.close()
            raise ChannelClosed(str(error)) from error
        except BaseException:
            channel.close()
            raise

    def _open(self) -> DataChannel:
        if not self.served():
            raise ChannelClosed("the shard has no data channel")
        assert self._where is not None
        try:
            return DataChannel.open(*self._where, self.timeout_ms, self._wrap)
        except (OSError, BadFrame):
            self._where = None
            raise


class DataChannelServer:
    """Listens for data channels and answers their frames, a thread each. `address` has port 0 where
    one is to be chosen."""

    def __init__(
        self,
        handle: Handle,
        address: str,
        timeout_ms: int,
        body_bytes_max: int,
        wrap: Wrap | None = None,
    ) -> None:
        self._wrap = wrap
        self._handle, self._timeout_ms, self._body_bytes_max = handle, timeout_ms, body_bytes_max
        self.token = secrets.token_bytes(16)
        self._channels: dict[DataChannel, threading.Thread] = {}
        self._lock = threading.Lock()
        self._stopping = False
        kind, _, where = address.partition(":")
        self._listener = socket.socket(_family(kind, where))
        if kind == "unix":
            # One that is there is of a process that was killed: the state folder's lock keeps us
            # alone.
            Path(_path(where)).unlink(missing_ok=True)
            self._listener.bind(_path(where))
            os.chmod(_path(where), 0o700)
            self.address = address
        else:
            try:
                self._listener.bind(_host_and_port(where))
            except OSError as error:
                self._listener.close()
                raise PortTaken(
                    f"data channels cannot be served at {where}: {error.strerror}; does another "
                    "process listen there? See paramserver.host, lane_port"
                ) from None
            self.address = f"tcp:{where.rpartition(':')[0]}:{self._listener.getsockname()[1]}"
        self._listener.listen(CHANNELS_MAX)
        self._accepting = threading.Thread(target=self._accept, name="data-channels")

    def start(self) -> None:
        self._accepting.start()

    def stop(self, grace_s: float) -> None:
        """Take no further call, let those under way end within `grace_s`."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        with self._lock:
            channels = dict(self._channels)
        for channel in channels:
            channel.shut()
        deadline = time.monotonic() + grace_s
        for thread in channels.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        if self.address.startswith("unix:"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_path(self.address.partition(":")[2]))

    def __len__(self) -> int:
        return len(self._channels)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._stopping:
                    return
                time.sleep(0.1)  # out of file descriptors, say: it may pass
                continue
            if len(self._channels) >= CHANNELS_MAX:
                log.error(
                    "%d data channels are open: a further one is refused", len(self._channels)
                )
                connection.close()
                continue
            wrap, limit = self._wrap, self._timeout_ms
            try:
                channel = (
                    TlsDataChannel(connection, limit, wrap)
                    if wrap
                    else DataChannel(connection, limit)
                )
            except OSError as error:  # this one alone
                log.error("a data channel is closed: %s", error)
                connection.close()
                continue
            thread = threading.Thread(
                target=self._serve, args=(channel,), name="data-channel", daemon=True
            )
            with self._lock:
                self._channels[channel] = thread
            try:
                thread.start()
            except (
                RuntimeError
            ) as error:  # no thread can be had: it may pass, and callers come again
                log.error("a data channel is closed: %s", error)
                with self._lock:
                    self._channels.pop(channel, None)
                channel.close()

    def _answer(self, channel: DataChannel) -> list[memoryview]:
        try:
            return self._handle(*channel.receive(self._body_bytes_max))
        except FrameTooLarge as error:
            channel.discard(error.nbytes)
            return refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _serve(self, channel: DataChannel) -> None:
        try:
            channel.secure()
            code, token, _ = channel.receive(0)
            if code != frames.HELLO or not hmac.compare_digest(token, self.token):
                log.warning("a data channel without the token is closed")
                return
            channel.send(frames.pieces(frames.OK, b""))
            channel.wait_for_ever()
            while not self._stopping:
                channel.send(self._answer(channel))
        except BadFrame as error:
            log.warning("a data channel is closed: %s", error)
        except OSError as error:  # the caller went away: it comes again, or another does
            log.debug("a data channel ended: %s", error)
        finally:
            with self._lock:
                self._channels.pop(channel, None)
            channel.close()


def refusal(code: grpc.StatusCode, reason: str) -> list[memoryview]:
    """The frame that says no, and why."""
    return frames.pieces(status_number(code), reason.encode()[: frames.HEADER_BYTES_MAX])


def status_number(code: grpc.StatusCode) -> int:
    """gRPC's number of a status, which frames carry."""
    number: Any = code.value
    return int(number[0])


STATUSES = {status_number(code): code for code in grpc.StatusCode}


def _host_and_port(where: str) -> tuple[str, int]:
    """Of `host:port`; an IPv6 address may stand in brackets."""
    host, _, port = where.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _family(kind: str, where: str) -> socket.AddressFamily:
    if kind == "unix":
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in where.rpartition(":")[0] else socket.AF_INET


def _path(where: str) -> str:
    """Of a socket, as gRPC's addresses name it: with `%25` for a percent sign."""
    return where.replace("%25", "%")
