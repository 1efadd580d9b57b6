"""kafka-python's receiving, as we have it: the same bytes, in larger pieces."""

import selectors
import socket
import ssl
import sys
import tracemalloc
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
    PIECE_BYTES,
    READABLE_BYTES,
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


def test_nothing_that_tls_has_decrypted_is_left_lying(tmp_path, pair):
    """What stands behind a response in the same TLS record shows on no socket: whoever waited for
    the socket would wait for ever."""
    certificates(tmp_path)
    near, far = pair
    receive_in_large_pieces()
    parsing, taken = parser.KafkaProtocol(client_id="test"), []
    parsing._process_response = lambda frame: taken.append(bytes(frame.read()))
    small, large = b"a response", ANY * 3
    bodies = [small, small, large, small]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")

    def serve() -> None:
        with context.wrap_socket(far, server_side=True) as server:
            server.sendall(b"".join(len(body).to_bytes(4, "big") + body for body in bodies))
            server.recv(1)  # until the other end has all

    with (
        ThreadPoolExecutor(1) as pool,
        selectors.DefaultSelector() as selector,
        ExitStack() as stack,
    ):
        served = pool.submit(serve)
        receiving = transport.KafkaSSLTransport(
            None, near, "localhost", ssl_cafile=str(tmp_path / "ca.pem"), ssl_check_hostname=False
        )
        near = receiving._sock
        selector.register(near, selectors.EVENT_READ)
        stack.callback(near.close)  # before the pool waits for the other end
        receiving._protocol = SimpleNamespace(parser=parsing, data_received=parsing.receive_bytes)
        while True:
            try:
                near.do_handshake()
                break
            except ssl.SSLWantReadError:
                assert selector.select(10)
        while len(taken) < len(bodies):
            assert selector.select(10), f"readable, behind {len(taken)} responses"
            data, error = receiving._sock_recv()
            assert error is None
            parsing.receive_bytes(data)
            assert not near.pending()
        assert receiving._sock_recv() == (b"", None), "nothing is there"
        near.send(b".")
        served.result(10)
    assert taken == bodies


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
