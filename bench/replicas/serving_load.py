"""Requests at a stated rate, whether they are answered or not: what `bench.serving` loads a replica
with, in a process of its own.

    PORT FILE --rate R --seconds S [--within-ms MS] [--slow N]

FILE holds the bodies, one a line. Latency counts from the moment at which a request was due. A
line `{"begun": true}` says that the load has begun; the next one what came of it. `--slow` opens so
many connections beside, each of which sends a byte of a request now and then.
"""

import argparse
import itertools
import json
import selectors
import socket
import time
from typing import Any

import numpy as np
import orjson

from bench.replicas.serving_client import connected, request_of

_END, _LENGTH = b"\r\n\r\n", b"Content-Length: "
#: Connections; who finds none free is late, as a client with a pool is.
_CONNECTIONS_MAX = 128
_PROBE_EVERY = 10
_SLOW_TURN_S = 0.02
#: Differences of float32 and of its text.
_EQUAL = 2e-6


class Load:
    """`probe`: a body of equal rows, and version -> what each is answered (I6)."""

    def __init__(self, port: int, bodies: list[bytes], probe: bytes, step: float) -> None:
        self._port, self._step = port, step
        self._bodies = [request_of(body) for body in bodies]
        self._probe = request_of(probe) if probe else b""
        self._selector = selectors.DefaultSelector()
        self._free: list[socket.socket] = []
        self._busy: dict[socket.socket, tuple[float, bool, bytearray]] = {}
        self.answers: list[tuple[float, float, int]] = []  # due, latency, status
        self.mixed = self.errors = self.unsent = 0
        self.versions: set[str] = set()

    def run(self, rate: float, seconds: float) -> None:
        began = time.perf_counter()
        due = began
        requests = itertools.cycle(self._bodies)
        for number in itertools.count():
            while (now := time.perf_counter()) < due:
                self._receive(due - now)
            if due - began >= seconds:
                break
            is_probe = bool(self._probe) and number % _PROBE_EVERY == 0
            self._send(due, self._probe if is_probe else next(requests), is_probe)
            due += 1 / rate
        until = time.perf_counter() + 5
        while self._busy and time.perf_counter() < until:
            self._receive(0.1)
        self.errors += len(self._busy)

    def _send(self, due: float, request: bytes, is_probe: bool) -> None:
        if not self._free and len(self._busy) >= _CONNECTIONS_MAX:
            self._receive(0.0)
        if not self._free and len(self._busy) >= _CONNECTIONS_MAX:
            self.unsent += 1
            return
        try:
            one = self._free.pop() if self._free else self._connect()
            one.sendall(request)
        except OSError:
            self.errors += 1
            return
        self._busy[one] = (due, is_probe, bytearray())

    def _connect(self) -> socket.socket:
        one = connected(self._port)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._selector.register(one, selectors.EVENT_READ)
        return one

    def _receive(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            one: Any = key.fileobj
            asked = self._busy.get(one)
            try:
                some = one.recv(1 << 16)
            except OSError:
                some = b""
            if not some or asked is None:
                self._selector.unregister(one)
                one.close()
                self.errors += self._busy.pop(one, None) is not None
                if one in self._free:
                    self._free.remove(one)
                continue
            asked[2].extend(some)
            self._take(one, *asked)

    def _take(self, one: socket.socket, due: float, is_probe: bool, data: bytearray) -> None:
        head = data.find(_END)
        if head < 0:
            return
        at = data.find(_LENGTH) + len(_LENGTH)
        size = int(data[at : data.find(b"\r", at)])
        if len(data) < head + len(_END) + size:
            return
        status = int(data[9:12])
        self.answers.append((due, time.perf_counter() - due, status))
        del self._busy[one]
        self._free.append(one)
        if status == 200 and is_probe:
            self._check(bytes(data[head + len(_END) :]))
        self.errors += status not in (200, 503)

    def _check(self, body: bytes) -> None:
        """All rows of a probe are equal, and what its version says."""
        answer = orjson.loads(body)
        self.versions.add(answer["model_version"])
        number = int(answer["model_version"].split("-")[0])
        expected = probe_answer(number, self._step)
        found = np.array(answer["probabilities"])
        self.mixed += bool((np.abs(found - expected) > _EQUAL).any())


def probe_answer(number: int, step: float) -> float:
    """What each row of a probe is answered by the checkpoint of this number: `step` is how much the
    logit moves with each."""
    return 1 / (1 + float(np.exp(-(np.log(0.05 / 0.95) + step * number))))


class Slow:
    """Connections that send one byte each, in turns, and are opened again when they are closed."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._open: list[socket.socket | None] = [None] * count
        self._next = 0
        self.closed = 0

    def turn(self, count: int) -> None:
        for _ in range(min(count, len(self._open))):
            at = self._next = (self._next + 1) % len(self._open)
            try:
                one = self._open[at]
                if one is None:
                    one = self._open[at] = connected(self._port)
                    one.sendall(b"POST /predict HTTP/1.1\r\nHost: slow\r\nX: ")
                one.sendall(b"y")
            except OSError:
                self.closed += 1
                if self._open[at] is not None:
                    self._open[at].close()  # type: ignore[union-attr]
                self._open[at] = None


def told(load: Load, began: float, within_ms: float, seconds: float) -> dict[str, Any]:
    answers = np.array(load.answers, np.float64).reshape(-1, 3)
    fine = answers[:, 2] == 200
    ms = 1e3 * answers[:, 1]
    good = fine & (ms <= within_ms)
    shed = ms[answers[:, 2] == 503]
    found = {
        "answered": int(fine.sum()),
        "good_per_s": float(good.sum() / seconds),
        "shed": len(shed),
        "unsent": load.unsent,
        "errors": load.errors,
        "mixed_versions": load.mixed,
        "versions": len(load.versions),
    }
    if fine.any():
        at = np.percentile(ms[fine], (50, 99, 99.9))
        found |= {"p50_ms": at[0], "p99_ms": at[1], "p999_ms": at[2]}
    if len(shed):
        found["shed_p99_ms"] = float(np.percentile(shed, 99))
    late = answers[~good, 0]
    found["last_bad_s"] = float(late.max() - began) if len(late) else 0.0
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("file")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--within-ms", type=float, default=1e9)
    parser.add_argument("--slow", type=int, default=0)
    parser.add_argument("--step", type=float, default=0.0, help="0 = the first body is no probe")
    given = parser.parse_args()
    with open(given.file, "rb") as file:
        bodies = file.read().splitlines()
    probe = bodies.pop(0) if given.step else b""
    load = Load(given.port, bodies, probe, given.step)
    if given.slow:
        import threading

        slow = Slow(given.port, given.slow)

        def turns() -> None:
            while True:
                slow.turn(max(1, int(given.slow * _SLOW_TURN_S / 2)))  # each every 2 s
                time.sleep(_SLOW_TURN_S)

        threading.Thread(target=turns, daemon=True).start()
        time.sleep(3.0)
    print(json.dumps({"begun": True}), flush=True)
    began = time.perf_counter()
    load.run(given.rate, given.seconds)
    print(json.dumps(told(load, began, given.within_ms, given.seconds)), flush=True)


if __name__ == "__main__":
    main()
