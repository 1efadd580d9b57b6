"""Wires between the hosts of `bench.cluster`: what one sends reaches another after the latency, and
nothing reaches it while the wire between both is cut. A process of its own, since it must not wait
for who measures.

    python -m bench.hosts.cluster_wires LATENCY_MS NAME=ADDRESS [NAME=ADDRESS ...]

Makes a TUN device `ev-NAME` for each, says `ready`, and forwards the packets that kernels write to
them by their IPv4 destination. Reads `cut NAME NAME` and `heal`, a line each, and says `done`; ends
with its input.
"""

import fcntl
import os
import select
import socket
import struct
import sys
import time
from collections import deque

#: linux/if_tun.h: attach a device to this descriptor; packets of IP without a header before them.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
#: A packet is no longer; on their way are no more (a router drops what comes beyond).
PACKET_BYTES_MAX, PACKETS_MAX = 65_535, 20_000
#: So many of one host are taken before those that are due are handed over.
TAKEN_MAX = 64
_DESTINATION = slice(16, 20)


def device(name: str) -> str:
    """Of a host."""
    return f"ev-{name}"


class Wires:
    """`addresses`: host -> its IPv4 address; `latency_ms`: there and back."""

    def __init__(self, addresses: dict[str, str], latency_ms: float) -> None:
        """Raises OSError without the right to make devices."""
        self._delay_s = latency_ms / 2_000
        self._devices = {name: _opened(device(name)) for name in addresses}
        self._of_address = {
            socket.inet_aton(address): self._devices[name] for name, address in addresses.items()
        }
        self._cut: set[tuple[int, int]] = set()
        self._on_the_way: deque[tuple[float, int, bytes]] = deque()
        self.dropped = 0

    def run(self) -> None:
        """Until the input ends."""
        sources = [0, *self._devices.values()]
        while True:
            wait_s = 1.0
            if self._on_the_way:
                wait_s = max(0.0, self._on_the_way[0][0] - time.monotonic())
            readable, _, _ = select.select(sources, [], [], wait_s)
            for source in readable:
                if source == 0:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._told(line.split())
                else:
                    self._take(source)
            self._deliver()

    def _told(self, words: list[str]) -> None:
        if words[0] == "cut":
            one, other = (self._devices[name] for name in words[1:])
            self._cut |= {(one, other), (other, one)}
        else:
            self._cut.clear()
        print("done", flush=True)

    def _take(self, source: int) -> None:
        """Of what a kernel has written."""
        for _ in range(TAKEN_MAX):
            try:
                packet = os.read(source, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            to = self._of_address.get(packet[_DESTINATION])
            if to is None or (source, to) in self._cut or len(self._on_the_way) >= PACKETS_MAX:
                self.dropped += 1
                continue
            self._on_the_way.append((time.monotonic() + self._delay_s, to, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, to, packet = self._on_the_way.popleft()
            try:
                os.write(to, packet)
            except OSError:  # its queue is full, or it is not up
                self.dropped += 1


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
