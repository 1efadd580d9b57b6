"""How kafka-python takes a fetch off its socket: in few large pieces, most of them right to where
they stay.

Its own way is 4 KB a system call, an object for each, and four more copies of what it has joined
(kafka-python 3.0): a third of the CPU time of who reads records of a megabyte. Over TLS a piece is
a TLS record at most, 16 KB; all that have arrived are taken at once.
"""

import logging
import selectors
import socket
import ssl
from typing import Any

from kafka import errors

try:
    from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport
    from kafka.protocol import parser
    from kafka.protocol.frame import KafkaBytes
except ImportError:  # another kafka-python: its own way stays
    KafkaSSLTransport = KafkaTCPTransport = parser = None
    KafkaBytes = bytearray

log = logging.getLogger(__name__)

#: Taken at once of a response that has begun, right to where it is put together.
PIECE_BYTES = 1 << 20
#: Taken at once where none has: its beginning, and what comes with it. Each connection keeps so
#: much for itself, and a process has dozens of them.
BEGINNING_BYTES = 1 << 16
#: Of a response that has begun, so much is waited for, or its end.
READABLE_BYTES = 1 << 19
#: What OpenSSL may hold of a TLS record of which the rest has not arrived (RFC 5246, 6.2.3).
TLS_RECORD_BYTES_MAX = 5 + (1 << 14) + (1 << 11)
#: A field that is read from a response is bytes of its own below this; above, it is a view of the
#: response.
VIEW_BYTES_MIN = 1 << 16


class Frame(KafkaBytes):  # type: ignore[misc]
    """The bytes of one response, while it arrives and while it is taken apart."""

    _idx: int

    def read(self, nbytes: int | None = None) -> bytes | memoryview:
        """The next so many bytes, or what there is: all that is left by default."""
        start = self._idx
        self._idx = len(self) if nbytes is None else min(start + nbytes, len(self))
        view = memoryview(self)[start : self._idx]
        return view if len(view) >= VIEW_BYTES_MIN else bytes(view)

    @property
    def missing(self) -> memoryview:
        """What has not arrived yet."""
        return memoryview(self)[self._idx :]

    def write(self, data: bytes | memoryview) -> None:
        """Take what arrived; nothing is copied that was received into `missing`."""
        if isinstance(data, memoryview) and data.obj is self:
            self._idx += len(data)
        else:
            super().write(data)


class PlainSelector(selectors.DefaultSelector):
    """Says that a socket is unknown without describing it. The client asks whenever it begins to
    wait for one, and the description, two system calls and a text that nobody reads, was a seventh
    of a producer's CPU time."""

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        keys: dict[int, selectors.SelectorKey] | None = getattr(self, "_fd_to_key", None)
        if keys is None:
            return super().get_key(fileobj)
        key = keys.get(fileobj if isinstance(fileobj, int) else fileobj.fileno())
        if key is None:
            raise KeyError(fileobj)
        return key


def _receive(self: Any) -> tuple[memoryview, Exception | None]:
    """(what has arrived, an error that ends the connection). Called when the socket is readable,
    which it is again when much of what is known to come has arrived."""
    into, received, error = _received(self)
    if error is None:
        _wait_for_much(self, received, 0)
    return into[:received], error


def _receive_tls(self: Any) -> tuple[memoryview, Exception | None]:
    """The same of TLS, where what is decrypted and not taken shows on no socket: it is taken until
    there is no more of it, and the protocol is given all but the last piece here."""
    while True:
        into, received, error = _received(self)
        if error is not None:
            return into[:received], error
        if not self._sock.pending():
            _wait_for_much(self, received, TLS_RECORD_BYTES_MAX)
            return into[:received], None
        try:
            self._protocol.data_received(into[:received])
        except errors.KafkaProtocolError as reason:
            return into[:0], reason
        if self._sock is None:  # a response it could not place made the protocol close it
            return into[:0], None


def _wait_for_much(self: Any, received: int, held_bytes_max: int) -> None:
    """The socket is readable again when much of what is missing behind the piece just `received`
    has arrived. So many of its bytes at most may be off the socket already."""
    frame = _frame(self)
    missing = len(frame.missing) - received - held_bytes_max if frame is not None else 0
    readable_from = max(1, min(missing, READABLE_BYTES))
    if readable_from != self._readable_from:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, readable_from)
        self._readable_from = readable_from


def _received(self: Any) -> tuple[memoryview, int, Exception | None]:
    """(a piece of memory, how many bytes of it have arrived, an error that ends the connection).

    The rest of a response that is known to come is received where it is put together. All else is
    received into memory that the next call uses again: the protocol has copied it by then.
    """
    if not hasattr(self, "_piece"):
        self._piece, self._readable_from = memoryview(bytearray(BEGINNING_BYTES)), 1
    frame = _frame(self)
    into = frame.missing[:PIECE_BYTES] if frame is not None else self._piece
    received, error = 0, None
    while received < len(into):  # a turn of the client's loop costs more than to ask once too often
        try:
            got = self._sock.recv_into(into[received:])
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            break
        except OSError as reason:
            error = errors.KafkaConnectionError(reason)
            break
        if not got:
            error = errors.KafkaConnectionError("socket disconnected")
            break
        received += got
    return into, received, error


def _frame(transport: Any) -> Any:
    """The response that has begun and not ended, if any."""
    parsing = transport._protocol.parser if transport._protocol else None
    return parsing._rbuffer if parsing else None


def missing_places(transport: Any, parsing: Any) -> list[str]:
    """Which of the private places that are replaced are not there."""
    places = {
        "KafkaTCPTransport._sock_recv": hasattr(transport, "_sock_recv"),
        "protocol.parser.KafkaBytes": hasattr(parsing, "KafkaBytes"),
        "KafkaProtocol": hasattr(parsing, "KafkaProtocol"),
    }
    return [name for name, there in places.items() if not there]


def receive_in_large_pieces() -> bool:
    """From now on, for every client of this process; again, it changes nothing. A role calls it
    when it starts, and nobody else: a site's process is not ours to change.

    False where this kafka-python has not the places that it replaces. It then receives in its own
    way, correctly and at more CPU.
    """
    missing = missing_places(KafkaTCPTransport, parser)
    if missing:
        log.warning("kafka-python receives in its own way: it has no %s", ", ".join(missing))
        return False
    parser.KafkaBytes = Frame
    KafkaTCPTransport._sock_recv = _receive
    KafkaSSLTransport._sock_recv = _receive_tls
    return True
