"""kafka-python's receiving, as we have it: the same bytes, in larger pieces."""

import random
import selectors
import socket
import ssl
import sys
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net import transport
from kafka.protocol import parser
from kafka.protocol.frame import KafkaBytes

from stream.log.kafka_socket_patch import (
    BEGINNING_BYTES,
    PIECE_BYTES,
    READABLE_BYTES,
    TLS_RECORD_BYTES_MAX,
    VIEW_BYTES_MIN,
    Frame,
    PlainSelector,
    receive_in_large_pieces,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
from secured_broker import certificates

ANY = bytes(range(256)) * (VIEW_BYTES_MIN // 64)


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


def test_a_frame_reads_as_kafkas_own():
    ours, theirs = Frame(len(ANY)), KafkaBytes(len(ANY))
    for frame in (ours, theirs):
        frame.write(memoryview(ANY)[:10])
        frame.write(ANY[10:])
        frame.seek(0)
    for length in (4, 0, 100, VIEW_BYTES_MIN, 2 * VIEW_BYTES_MIN, 7, len(ANY)):
        assert bytes(ours.read(length)) == theirs.read(length)
        assert ours.tell() == theirs.tell()
    ours.seek(1)
    assert bytes(ours.read()) == ANY[1:]
    assert ours.read() == b""


def test_small_fields_are_bytes_of_their_own():
    frame = Frame(8)
    frame.write(b"examples")
    frame.seek(0)
    assert frame.read(8).decode() == "examples"


def test_what_arrives_is_received_and_its_end_told(pair):
    near, far = pair
    receive_in_large_pieces()
    receiving = transport.KafkaTCPTransport(None, near)
    assert receiving._sock_recv() == (b"", None), "nothing is there"
    far.sendall(b"a response")
    assert receiving._sock_recv() == (b"a response", None)
    sent, got = 0, bytearray()
    far.setblocking(False)
    while len(got) < 2 * PIECE_BYTES:
        try:
            sent += far.send(ANY[sent % len(ANY) :])
        except BlockingIOError:
            data, error = receiving._sock_recv()
            assert error is None
            got += data
    assert bytes(got) == (ANY * (1 + len(got) // len(ANY)))[: len(got)]
    while len(receiving._sock_recv()[0]):
        pass
    far.close()
    data, error = receiving._sock_recv()
    assert len(data) == 0
    assert isinstance(error, KafkaConnectionError)


def test_a_response_in_pieces_is_put_together(pair):
    """Through kafka-python's own parser, which takes the pieces as they come."""
    receive_in_large_pieces()
    assert parser.KafkaBytes is Frame
    responses = parser.KafkaProtocol(client_id="test")
    taken = []
    responses._process_response = lambda frame: taken.append(bytes(frame.read()))
    message = len(ANY).to_bytes(4, "big") + ANY
    for at in range(0, 2 * len(message), 1000):
        responses.receive_bytes(memoryview(message * 2)[at : at + 1000])
    assert taken == [ANY, ANY]


def test_the_rest_of_a_response_is_received_where_it_stays():
    """In few pieces: until much has arrived, or all, the socket is not readable. What comes
    behind it is readable."""
    receive_in_large_pieces()
    parsing, taken = parser.KafkaProtocol(client_id="test"), []
    parsing._process_response = lambda frame: taken.append(bytes(frame.read()))
    body = ANY * (2 * READABLE_BYTES // len(ANY)) + b"end"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as far,
    ):
        near, _ = server.accept()
        with near, selectors.DefaultSelector() as selector:
            near.setblocking(False)
            selector.register(near, selectors.EVENT_READ)
            receiving = transport.KafkaTCPTransport(None, near)
            receiving._protocol = SimpleNamespace(parser=parsing)

            def receive() -> int:
                assert selector.select(10), "readable"
                data, error = receiving._sock_recv()
                assert error is None
                parsing.receive_bytes(data)
                return len(data)

            far.sendall(len(body).to_bytes(4, "big") + body[:96])
            got = receive()
            while got < 100:
                got += receive()
            far.sendall(body[96:100])
            receive()
            far.sendall(body[100:200])
            assert not selector.select(0.05), "little of much that is missing"
            assert not taken
            sending = Thread(
                target=far.sendall, args=(body[200:] + len(ANY).to_bytes(4, "big") + ANY,)
            )
            sending.start()
            pieces = 0
            while len(taken) < 2:
                pieces += receive() >= READABLE_BYTES
            sending.join()
    assert taken == [body, ANY]
    assert pieces, "some were large"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    certificates(dir := tmp_path_factory.mktemp("keys"))
    return dir


class TlsReceiver:
    """A connection over TLS: `far` is sent what `encrypted` answers, cut anywhere, and what was
    received is taken apart into `taken`. `with` it."""

    def __init__(self, keys: Path) -> None:
        receive_in_large_pieces()
        self.taken: list[bytes] = []
        parsing = parser.KafkaProtocol(client_id="test")
        parsing._process_response = lambda frame: self.taken.append(bytes(frame.read()))
        self._stack = ExitStack()
        server = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.far = self._stack.enter_context(socket.create_connection(server.getsockname()))
        near, _ = server.accept()
        near.setblocking(False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(keys / "server.pem", keys / "server.key")
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._server = context.wrap_bio(self._in, self._out, server_side=True)
        self.receiving = transport.KafkaSSLTransport(
            None, near, "localhost", ssl_cafile=str(keys / "ca.pem"), ssl_check_hostname=False
        )
        self.receiving._protocol = SimpleNamespace(
            parser=parsing, data_received=parsing.receive_bytes
        )
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        self._selector.register(self.receiving._sock, selectors.EVENT_READ)
        self._stack.callback(self.receiving._sock.close)
        while not self._shaken(self.receiving._sock):
            self._in.write(self.far.recv(1 << 16))
            self._shaken(self._server)
            self.far.sendall(self._out.read())
        self._in.write(self.far.recv(1 << 16))
        assert self._shaken(self._server)
        self.far.sendall(self._out.read())

    @staticmethod
    def _shaken(side: ssl.SSLSocket | ssl.SSLObject) -> bool:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def encrypted(self, data: bytes) -> bytes:
        self._server.write(data)
        return self._out.read()

    def __enter__(self) -> "TlsReceiver":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def readable(self, timeout_s: float) -> bool:
        return bool(self._selector.select(timeout_s))

    def receive(self) -> None:
        assert self.readable(10), f"behind {len(self.taken)} responses"
        data, error = self.receiving._sock_recv()
        assert error is None
        self.receiving._protocol.parser.receive_bytes(data)
        assert not self.receiving._sock.pending()


def framed(bodies: Sequence[bytes]) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def test_nothing_that_tls_has_decrypted_is_left_lying(keys):
    """What stands behind a response in the same TLS record shows on no socket: whoever waited for
    the socket would wait for ever."""
    small, large = b"a response", ANY * 3
    bodies = [small, small, large, small]
    with TlsReceiver(keys) as tls, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(tls.far.sendall, tls.encrypted(framed(bodies)))
        while len(tls.taken) < len(bodies):
            tls.receive()
        sent.result(10)
        assert tls.receiving._sock_recv() == (b"", None), "nothing is there"
    assert tls.taken == bodies


def test_little_of_much_that_is_missing_wakes_nobody_over_tls_either(keys):
    bodies = [ANY * (READABLE_BYTES // len(ANY)), b"the next"]
    sent = framed(bodies)
    with TlsReceiver(keys) as tls, ThreadPoolExecutor(1) as pool:
        tls.far.sendall(tls.encrypted(sent[:100]))
        while not tls.receiving._protocol.parser._rbuffer:
            tls.receive()
        tls.far.sendall(tls.encrypted(sent[100:200]))
        tls.receive()  # now it is known how much is missing
        tls.far.sendall(tls.encrypted(sent[200:300]))
        assert not tls.readable(0.05)
        rest = pool.submit(tls.far.sendall, tls.encrypted(sent[300:]))
        while len(tls.taken) < len(bodies):
            tls.receive()
        rest.result(10)
    assert tls.taken == bodies


@pytest.mark.parametrize("seed", range(8))
def test_however_tls_is_cut_no_response_waits_for_ever(keys, seed):
    """Sizes about those of a TLS record, of a piece and of what is waited for; the last byte of
    each response may come alone."""
    draw = random.Random(seed)
    edges = (1, 16_384, TLS_RECORD_BYTES_MAX, BEGINNING_BYTES, READABLE_BYTES)

    def size() -> int:
        return max(1, draw.choice(edges) + draw.randint(-300, 300))

    with TlsReceiver(keys) as tls:
        bodies = [draw.randbytes(size()) for _ in range(12)]
        for count, body in enumerate(bodies, 1):
            sent = tls.encrypted(framed([body]))
            while sent:
                cut = min(size(), max(1, len(sent) - 1))
                tls.far.sendall(sent[:cut])
                sent = sent[cut:]
                while tls.readable(0.0):
                    tls.receive()
            while len(tls.taken) < count:
                tls.receive()
    assert tls.taken == bodies


def test_a_protocol_that_closes_its_connection_ends_the_receiving():
    """It does so for a response that it cannot place; what TLS still holds is nobody's then."""
    receive_in_large_pieces()
    receiving = transport.KafkaSSLTransport.__new__(transport.KafkaSSLTransport)

    def closes(data: memoryview) -> None:
        receiving._sock = None

    receiving._sock = SimpleNamespace(recv_into=len, pending=lambda: 1)
    receiving._protocol = SimpleNamespace(parser=None, data_received=closes)
    assert receiving._sock_recv() == (b"", None)


def test_an_unknown_socket_is_a_key_error_without_its_description(pair):
    near, far = pair
    with PlainSelector() as selector:
        with pytest.raises(KeyError) as raised:
            selector.get_key(far)
        assert raised.value.args == (far,)
        selector.register(far, selectors.EVENT_READ, "it")
        assert selector.get_key(far).data == selector.get_key(far.fileno()).data == "it"
        with pytest.raises(KeyError):
            selector.get_key(near)


def test_connections_keep_little_of_what_they_received():
    """A process has dozens of them: each kept a megabyte, as soon as so much had come at once."""
    receive_in_large_pieces()
    connections, kept = 8, []
    body = len(ANY).to_bytes(4, "big") + ANY
    tracemalloc.start()
    try:
        for _ in range(connections):
            near, far = socket.socketpair()
            near.setblocking(False)
            parsing, taken = parser.KafkaProtocol(client_id="test"), []
            parsing._process_response = lambda frame, taken=taken: taken.append(len(frame))
            receiving = transport.KafkaTCPTransport(None, near)
            receiving._protocol = SimpleNamespace(parser=parsing)
            sending = Thread(target=far.sendall, args=(4 * body,))
            sending.start()
            while len(taken) < 4:
                data, error = receiving._sock_recv()
                assert error is None
                parsing.receive_bytes(data)
            sending.join()
            near.close()
            far.close()
            kept.append(receiving)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < connections * 128 * 1024
