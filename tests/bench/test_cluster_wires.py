"""Hosts of `bench.cluster`: what one sends reaches another after the latency, unless they are
cut."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from bench.hosts.cluster_hosts import Network

pytestmark = pytest.mark.processes
#: Not those of the bench, which may run meanwhile.
NAMES = ("x", "y", "z")
LATENCY_MS, TRIPS, PORT = 20.0, 10, 5_555
ECHO = f"""
import socket
def echo(a):
    while said := a.recv(1 << 20):
        a.sendall(said)
server = socket.create_server(("", {PORT}))
print("ready", flush=True)
while True:
    a, _ = server.accept()
    with a:
        echo(a)
"""
#: Says the median of the round trips, ms.
TRIP = f"""
import socket, statistics, sys, time
a = socket.create_connection((sys.argv[1], {PORT}), timeout=2)
a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def trip():
    began = time.monotonic()
    a.sendall(b"?")
    a.recv(1)
    return 1_000 * (time.monotonic() - began)
print(statistics.median(trip() for _ in range({TRIPS})))
"""
#: Says how many bytes came back, or that they are others.
MUCH = f"""
import random, socket, sys, threading
a = socket.create_connection((sys.argv[1], {PORT}), timeout=30)
sent = random.Random(1).randbytes(8 << 20)
threading.Thread(target=a.sendall, args=(sent,), daemon=True).start()
came = bytearray()
while len(came) < len(sent):
    came += a.recv(1 << 20)
print(len(came) if came == sent else "others")
"""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    hosts = Network(NAMES, LATENCY_MS)
    hosts.begin()
    servers: list[subprocess.Popen[str]] = []
    try:
        if not hosts.can_cut:
            pytest.skip(f"no network namespaces here: {hosts.kind}")
        for name in NAMES[1:]:
            servers.append(
                subprocess.Popen(
                    [*hosts.within(name), sys.executable, "-c", ECHO],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert servers[-1].stdout is not None
            assert servers[-1].stdout.readline().strip() == "ready"
        yield hosts
    finally:
        for server in servers:
            server.kill()
            server.wait(10)
        hosts.end()


def said(network: Network, script: str, to: str) -> str:
    """By a script on host x; the last line of its error where it failed."""
    command = [*network.within("x"), sys.executable, "-c", script, network.addresses[to]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_round_trip_takes_the_latency(network: Network):
    assert float(said(network, TRIP, "y")) >= LATENCY_MS


def test_what_is_sent_arrives_as_it_was(network: Network):
    assert said(network, MUCH, "z") == str(8 << 20)


def test_nothing_passes_a_cut_wire_and_all_others_are_whole(network: Network):
    network.cut("x", "y")
    assert "timed out" in said(network, TRIP, "y")
    assert float(said(network, TRIP, "z")) >= LATENCY_MS
    network.heal()
    assert float(said(network, TRIP, "y")) >= LATENCY_MS
