"""Wires between the hosts of `bench.cluster`: what one sends reaches another after the latency, and
nothing reaches it while the wire between both is cut. A process of its own, since it must not wait
for who measures.

    python -m bench.hosts.cluster_wires LATENCY_MS NAME=ADDRESS [NAME=ADDRESS ...]

Makes a TUN device `ev-NAME` for each, says `ready`, and forwards the packets that kernels write to
them by their IPv4 destination. Reads `cut NAME NAME` and `heal`, a line each, and says `done`; ends
with its input.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
from typing import Any

import numba
import numpy as np

#: linux/if_tun.h: attach a device to this descriptor; packets of IP without a header before them.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
#: A packet is no longer; on their way are no more (a router drops what comes beyond).
PACKET_BYTES_MAX, PACKETS_MAX = 65_535, 1_024
#: So many of one host are taken before those that are due are handed over.
TAKEN_MAX = 64
#: Of an IPv4 packet: the first byte of its destination.
_DESTINATION = 16
#: poll.h, time.h.
_POLLIN, _CLOCK_MONOTONIC = 0x001, 1
_SOURCE = np.dtype([("fd", "i4"), ("events", "i2"), ("ready", "i2")])
#: On their way are those from `head` to before `tail`.
_HEAD, _TAIL, _DROPPED = 0, 1, 2


def _libc(name: str, *arguments: type) -> "ctypes._CFuncPtr":
    """A function that compiled code may call; addresses are given as numbers."""
    found = getattr(ctypes.CDLL(None), name)
    found.argtypes, found.restype = arguments, ctypes.c_ssize_t
    return found


_read = _libc("read", ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t)
_write = _libc("write", ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t)
_ppoll = _libc("ppoll", *(ctypes.c_size_t,) * 4)
_clock_gettime = _libc("clock_gettime", ctypes.c_int, ctypes.c_size_t)


def device(name: str) -> str:
    """Of a host."""
    return f"ev-{name}"


class Wires:
    """`addresses`: host -> its IPv4 address; `latency_ms`: there and back."""

    def __init__(self, addresses: dict[str, str], latency_ms: float) -> None:
        """Raises OSError without the right to make devices."""
        self._delay_ns, self._number = int(latency_ms * 500_000), {}
        self._addresses = np.zeros((len(addresses), 4), np.uint8)
        self._sources = np.zeros(len(addresses) + 1, _SOURCE)  # the first is the input
        self._sources["events"] = _POLLIN
        for number, (name, address) in enumerate(addresses.items()):
            self._number[name] = number
            self._addresses[number] = list(socket.inet_aton(address))
            self._sources["fd"][number + 1] = _opened(device(name))
        self._cut = np.zeros((len(addresses), len(addresses)), np.bool_)
        self._packets = np.zeros((PACKETS_MAX, PACKET_BYTES_MAX), np.uint8)
        self._ways = np.zeros((PACKETS_MAX, 3), np.int64)  # due at, ns; to which host; bytes
        self._places = np.zeros(3, np.int64)
        _forward.compile(tuple(map(numba.typeof, self._state)))

    @property
    def _state(self) -> tuple[Any, ...]:
        return (
            self._sources,
            self._addresses,
            self._cut,
            self._delay_ns,
            self._packets,
            self._ways,
            self._places,
        )

    def run(self) -> None:
        """Until the input ends."""
        while True:
            _forward(*self._state)
            line = sys.stdin.readline()
            if not line:
                return
            self._told(line.split())

    def _told(self, words: list[str]) -> None:
        if words[0] == "cut":
            one, other = (self._number[name] for name in words[1:])
            self._cut[one, other] = self._cut[other, one] = True
        else:
            self._cut[:] = False
        print("done", flush=True)


@numba.njit  # type: ignore[untyped-decorator]
def _now_ns(parts: np.ndarray) -> int:
    _clock_gettime(_CLOCK_MONOTONIC, parts.ctypes.data)
    return parts[0] * 1_000_000_000 + parts[1]


@numba.njit  # type: ignore[untyped-decorator]
def _forward(
    sources: np.ndarray,
    addresses: np.ndarray,
    cut: np.ndarray,
    delay_ns: int,
    packets: np.ndarray,
    ways: np.ndarray,
    places: np.ndarray,
) -> None:
    """Until there is input. Compiled, since it shares the cores with what is measured: in Python it
    took twice the time of the calls that it makes."""
    parts, wait = np.zeros(2, np.int64), np.zeros(2, np.int64)
    while True:
        now_ns = _now_ns(parts)
        _deliver(sources, packets, ways, places, now_ns)
        wait[0], wait[1] = 1, 0
        if places[_HEAD] != places[_TAIL]:
            wait[0], wait[1] = 0, max(0, ways[places[_HEAD] % PACKETS_MAX, 0] - now_ns)
        if _ppoll(sources.ctypes.data, len(sources), wait.ctypes.data, 0) <= 0:
            continue
        now_ns = _now_ns(parts)
        for number in range(len(addresses)):
            if sources[number + 1]["ready"]:
                _take(sources, addresses, cut, number, now_ns + delay_ns, packets, ways, places)
        if sources[0]["ready"]:
            return


@numba.njit  # type: ignore[untyped-decorator]
def _take(
    sources: np.ndarray,
    addresses: np.ndarray,
    cut: np.ndarray,
    number: int,
    due_ns: int,
    packets: np.ndarray,
    ways: np.ndarray,
    places: np.ndarray,
) -> None:
    """Of what the kernel of a host has written."""
    for _ in range(TAKEN_MAX):
        if places[_TAIL] - places[_HEAD] == PACKETS_MAX:
            return  # its device holds them until there is room, and drops what comes beyond
        at = places[_TAIL] % PACKETS_MAX
        size = _read(sources[number + 1]["fd"], packets[at].ctypes.data, PACKET_BYTES_MAX)
        if size <= 0:
            return
        to = -1
        for host in range(len(addresses)):
            if (packets[at, _DESTINATION : _DESTINATION + 4] == addresses[host]).all():
                to = host
        if to < 0 or cut[number, to]:
            places[_DROPPED] += 1
            continue
        ways[at, 0], ways[at, 1], ways[at, 2] = due_ns, to, size
        places[_TAIL] += 1


@numba.njit  # type: ignore[untyped-decorator]
def _deliver(
    sources: np.ndarray, packets: np.ndarray, ways: np.ndarray, places: np.ndarray, now_ns: int
) -> None:
    """What is due."""
    while places[_HEAD] != places[_TAIL]:
        at = places[_HEAD] % PACKETS_MAX
        due_ns, to, size = ways[at]
        if due_ns > now_ns:
            return
        if _write(sources[to + 1]["fd"], packets[at].ctypes.data, size) != size:
            places[_DROPPED] += 1  # its queue is full, or it is not up
        places[_HEAD] += 1
    places[_HEAD] = places[_TAIL] = 0  # the same memory again, while it is in the cache


def _opened(name: str) -> int:
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(opened, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return opened


def main() -> None:
    latency_ms, *named = sys.argv[1:]
    addresses = dict(one.split("=") for one in named)
    wires = Wires(addresses, float(latency_ms))
    print("ready", flush=True)
    wires.run()


if __name__ == "__main__":
    main()
