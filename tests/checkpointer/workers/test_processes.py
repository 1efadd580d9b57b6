"""Workers as processes: what they answer, what they take, and what becomes of it when one is
killed (X5, I6)."""

import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.measuring.machine import child_named, children_of, family_memory_bytes
from bench.replicas.serving_client import ask_for
from bench.replicas.serving_load import probe_answer
from bench.replicas.serving_model import FEATURES, STEP, Writer, bodies, probe_of
from bench.replicas.serving_sites import started
from stream.log import wall_clock_ms
from stream.monitoring import TimeLimit

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="memfd_create"),
]
ROWS = 26 * 500
EQUAL = 1e-5
TABLES = "memfd:everspun tables"


class Running(NamedTuple):
    writer: Writer
    pid: int
    port: int

    def process(self, name: str) -> int:
        """Its process id, 0 = there is none now."""
        return child_named(self.pid, name)

    def table_files(self) -> int:
        """Files of tables that any of its processes has open or mapped."""
        found = set[str]()
        for pid in (self.pid, *children_of(self.pid)):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                found |= {line.split()[4] for line in lines if TABLES in line}
                for file in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(FileNotFoundError):
                        if TABLES in os.readlink(file):
                            found.add(str(file.stat().st_ino))
        return len(found)

    def versions(self) -> set[str]:
        """What many new connections are answered by."""
        body = probe_of(self.writer.site, 1)
        said = [json.loads(ask(self.port, "POST", "/predict", body)[1]) for _ in range(30)]
        return {one["model_version"] for one in said}

    def metric(self, name: str) -> float:
        text = ask(self.port, "GET", "/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith(name + " ")]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    limit = TimeLimit(seconds)
    while not condition():
        assert not limit.over, condition
        time.sleep(0.02)


def is_right(answer: dict[str, Any]) -> bool:
    """Whether all rows of a probe are what the version that the answer names says (I6)."""
    number = int(answer["model_version"].split("-")[0])
    expected = probe_answer(number, FEATURES * STEP)
    return all(abs(p - expected) < EQUAL for p in answer["probabilities"])


class Asking:
    """Asks for probes from several threads over connections that are kept; what is wrong is
    remembered, and connections that broke are counted and made again."""

    def __init__(self, running: Running, threads: int = 4) -> None:
        self._port, self._body = running.port, probe_of(running.writer.site, 20)
        self.wrong: list[Any] = []
        self.answers, self.broken, self.versions = 0, 0, set[str]()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        wait(lambda: self.answers > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/predict", self._body)
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                self.broken += 1
                connection.close()
                continue
            self.answers += 1
            if answer.status == 200 and not said["fallback"] and is_right(said):
                self.versions.add(said["model_version"])
            else:
                self.wrong.append((answer.status, said))
        connection.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = str(tmp_path_factory.mktemp("store"))
    writer = Writer("lr", ROWS, root)
    writer.publish(writer.write(wall_clock_ms()))
    with started(root, "replica", "lr", ROWS, "--queue-ms", "5000", "--workers", "2") as (
        pid,
        port,
    ):
        yield Running(writer, pid, port)


@pytest.fixture
def publishing(running: Running) -> Iterator[Running]:
    """Deltas, and now and then a base, while the test runs."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.1):
            number = running.writer.newest.number if running.writer.newest else 0
            changed = 0 if number % 10 == 9 else 2_000
            running.writer.publish(running.writer.write(wall_clock_ms(), changed))

    thread = threading.Thread(target=publish)
    thread.start()
    yield running
    stop.set()
    thread.join()


def test_two_workers_answer_from_one_cut_while_cuts_land(publishing):
    assert publishing.process("follower")
    workers = {publishing.process(f"worker {n}") for n in range(2)}
    assert len(workers - {0}) == 2
    with Asking(publishing) as asking:
        wait(lambda: len(asking.versions) > 5)
    assert not asking.wrong
    assert not asking.broken
    newest = publishing.metric("everspun_served_version")
    wait(lambda: publishing.metric("everspun_served_version") > newest)
    assert publishing.metric("everspun_replica_workers") == 2
    assert ask(publishing.port, "GET", "/readyz")[0] == 200
    model = json.loads(ask(publishing.port, "GET", "/model")[1])
    assert model["following"]["fault"] == ""


def test_a_worker_that_is_killed_comes_back_and_others_answer(publishing):
    ended = publishing.metric('everspun_replica_workers_ended_total{process="worker"}')
    counted = 'everspun_replica_requests_total{path="/predict",status="200"}'
    with Asking(publishing) as asking:
        for number in (0, 1, 0):
            before = publishing.process(f"worker {number}")
            os.kill(before, signal.SIGKILL)
            answers = asking.answers
            wait(lambda answers=answers: asking.answers > answers + 20)
            wait(lambda n=number, p=before: publishing.process(f"worker {n}") not in (0, p))
            wait(lambda: publishing.metric("everspun_replica_workers") == 2)
        seen = len(asking.versions)
        wait(lambda: len(asking.versions) > seen + 2)
    assert not asking.wrong
    name = 'everspun_replica_workers_ended_total{process="worker"}'
    wait(lambda: publishing.metric(name) == ended + 3)
    assert publishing.metric(counted) > 0


def test_a_follower_that_is_killed_stops_nobody(publishing):
    with Asking(publishing) as asking:
        for _ in range(3):
            before = publishing.process("follower")
            os.kill(before, signal.SIGKILL)
            wait(lambda p=before: publishing.process("follower") not in (0, p))
            seen = len(asking.versions)
            wait(lambda seen=seen: len(asking.versions) > seen + 2)
    assert not asking.wrong
    assert not asking.broken


def test_whoever_is_killed_all_answer_by_the_newest_and_no_tables_are_left_behind(running):
    writer, shared = running.writer, set(os.listdir("/dev/shm"))
    newest = writer.newest
    wait(lambda: running.versions() == {newest.name})
    files = running.table_files()
    for name in ("worker 0", "follower", "worker 1", "follower"):
        before = running.process(name)
        os.kill(before, signal.SIGKILL)
        wait(lambda n=name, p=before: running.process(n) not in (0, p))
        wait(lambda: running.metric("everspun_replica_workers") == 2)
        assert running.versions() == {newest.name}
        newest = writer.write(wall_clock_ms(), 2_000)
        writer.publish(newest)
        wait(lambda n=newest: running.versions() == {n.name})
        wait(lambda: running.table_files() <= files)
    assert set(os.listdir("/dev/shm")) <= shared


def test_a_worker_that_stands_still_is_ended(publishing):
    before = publishing.process("worker 1")
    os.kill(before, signal.SIGSTOP)
    wait(lambda: publishing.process("worker 1") not in (0, before), 120.0)
    wait(lambda: publishing.metric("everspun_replica_workers") == 2)
    with Asking(publishing) as asking:
        seen = len(asking.versions)
        wait(lambda: len(asking.versions) > seen + 2)
    assert not asking.wrong


def test_all_end_with_the_one_that_began_them(tmp_path):
    writer = Writer("lr", ROWS, str(tmp_path))
    writer.publish(writer.write(wall_clock_ms()))
    for by_force in (False, True):
        with started(str(tmp_path), "replica", "lr", ROWS, "--workers", "2") as (pid, port):
            assert ask(port, "GET", "/readyz")[0] == 200
            children = children_of(pid)
            assert len(children) == 3
            if by_force:
                os.kill(pid, signal.SIGKILL)
        wait(lambda c=children: not any(Path(f"/proc/{child}").exists() for child in c))


def test_a_further_worker_takes_hardly_more_memory(tmp_path):
    """What `memory_ratio_2` says of two and one process is a figure of `bench.serving`."""
    rows = 1_000_000
    writer = Writer("lr", rows, str(tmp_path))
    writer.publish(writer.write(wall_clock_ms()))
    later = [writer.write(wall_clock_ms(), 1_000) for _ in range(3)]
    asked = bodies(writer.site, 16, 50)
    took = {}
    for workers in (1, 2, 3):
        options = ("--queue-ms", "5000", "--workers", str(workers))
        with started(str(tmp_path), "replica", "lr", rows, *options) as (pid, port):
            for _ in range(4):
                ask_for(port, asked, 0.5)
            for manifest in later:
                writer.publish(manifest)
                time.sleep(0.5)
            ask_for(port, asked, 0.5)
            took[workers] = family_memory_bytes(pid)
    assert took[3] <= 1.1 * took[2], took
    assert took[2] <= 1.25 * took[1], took


@pytest.mark.parametrize("kind", ["dlrm"])
def test_networks_answer_as_one_process_does(tmp_path, kind):
    writer = Writer(kind, 26 * 20, str(tmp_path))
    writer.publish(writer.write(wall_clock_ms()))
    (body,) = bodies(writer.site, 1, 50)
    said = []
    for workers in ("1", "2"):
        with started(str(tmp_path), "replica", kind, 26 * 20, "--workers", workers) as (_, port):
            answers = [json.loads(ask(port, "POST", "/predict", body)[1]) for _ in range(6)]
            said += [(one["model_version"], one["probabilities"]) for one in answers]
    assert all(one == said[0] for one in said)
