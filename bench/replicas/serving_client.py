"""A client that costs little: whole requests ready made, answers looked at no further than need
be."""

import itertools
import socket
import time

_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


def request_of(body: bytes, path: str = "/predict", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """(status, body). ConnectionError where it ends before."""
    data = b""
    while _END not in data:
        data += _some(connection)
    head, _, body = data.partition(_END)
    low = head.lower()
    at = low.index(_LENGTH) + len(_LENGTH)
    size = int(low[at : low.find(b"\r", at) if low.find(b"\r", at) > 0 else len(low)])
    while len(body) < size:
        body += _some(connection)
    return int(head[9:12]), body


def ask_for(port: int, bodies: list[bytes], seconds: float) -> int:
    """Ask one after the other for so long. Returns how many answers came; any but 200 raises."""
    requests = [request_of(body) for body in bodies]
    end, count = time.monotonic() + seconds, 0
    with connected(port) as connection:
        for request in itertools.cycle(requests):
            connection.sendall(request)
            status, body = answer_of(connection)
            if status != 200:
                raise RuntimeError(f"{status}: {body[:500]!r}")
            count += 1
            if time.monotonic() > end:
                return count
    return count


def _some(connection: socket.socket) -> bytes:
    found = connection.recv(1 << 18)
    if not found:
        raise ConnectionError("the server has closed the connection")
    return found
