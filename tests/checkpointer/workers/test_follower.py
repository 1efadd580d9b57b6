"""A follower says that it lives by its work, in one process: who hangs falls silent."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from checkpointer import ServingConfig
from checkpointer.serving import Replica
from checkpointer.store import Catalogue, Directory
from checkpointer.workers import FedReplica, follower
from checkpointer.workers.board import Board, StopLevel
from checkpointer.workers.fed_replica import Feed
from checkpointer.workers.supervisor import Site, Supervisor
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd_create")
CONFIG = ServingConfig(poll_ms=5, workers=1, transfer_timeout_ms=1)
SILENT_S = 0.15


class Beating:
    """A follower in a thread, and whoever may hang it."""

    def __init__(self, root: str, config: ServingConfig = CONFIG) -> None:
        self.root, self.board = root, Board(1)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind("")
        self.listener.listen()
        self.replica = Replica(root, "clicks", config)
        self.free = threading.Event()
        self.free.set()
        self._thread = threading.Thread(
            target=follower.follow, args=(lambda: self.replica, self.board, self.listener)
        )
        self._thread.start()

    def hang(self, *_: object, **__: object) -> int:
        self.free.wait(60.0)
        return 0

    def is_silent(self) -> bool:
        return (self.board.silent_s(self.board.follower) or 0.0) > SILENT_S

    def wait(self, condition: Callable[[], object]) -> None:
        limit = TimeLimit(60.0)
        while not condition():
            assert not limit.over
            time.sleep(0.005)

    def close(self) -> None:
        self.free.set()
        self.board.stop_up_to(StopLevel.ALL)
        self._thread.join()
        self.listener.close()


@pytest.fixture
def beating(tmp_path, monkeypatch) -> Iterator[Beating]:
    monkeypatch.setattr(follower, "_TURN_S", 0.01)
    monkeypatch.setattr(follower, "TELL_S", 0.01)
    monkeypatch.setattr(follower, "TAKEN_S", SILENT_S)
    made = Beating(str(tmp_path))
    made.wait(lambda: made.board.silent_s(made.board.follower) is not None)
    yield made
    made.close()


def test_a_main_loop_that_hangs_falls_silent(beating, monkeypatch):
    beating.wait(lambda: not beating.is_silent())
    beating.free.clear()
    monkeypatch.setattr(follower.Handover, "tell", beating.hang)
    beating.wait(beating.is_silent)
    beating.free.set()
    beating.wait(lambda: not beating.is_silent())


def test_a_look_that_hangs_falls_silent_though_the_main_loop_turns(beating, monkeypatch):
    beating.free.clear()
    monkeypatch.setattr(beating.replica, "_follow", beating.hang)
    beating.wait(beating.is_silent)
    beating.free.set()
    beating.wait(lambda: not beating.is_silent())


def test_a_load_of_many_calls_to_the_store_is_no_silence(beating, monkeypatch):
    def slow(first: bool = False) -> None:
        while not beating.free.is_set():
            time.sleep(0.005)
            beating.replica._files._told("read", "ok", 0.0)

    beating.free.clear()
    monkeypatch.setattr(beating.replica, "_follow", slow)
    end_s = time.monotonic() + 2 * SILENT_S
    most_s = 0.0
    while time.monotonic() < end_s:
        most_s = max(most_s, beating.board.silent_s(beating.board.follower) or 0.0)
        time.sleep(0.005)
    assert beating.replica.follows_within(SILENT_S)
    assert most_s < 2 * SILENT_S


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_of_looks_that_has_ended_falls_silent(beating, monkeypatch):
    def ends(first: bool = False) -> None:
        raise SystemExit

    monkeypatch.setattr(beating.replica, "_follow", ends)
    beating.wait(beating.is_silent)


def test_workers_are_told_nothing_before_the_first_look(tmp_path, monkeypatch, train):
    train(Catalogue(Directory(str(tmp_path)), "clicks"), 4, [{"source": "u1"}])
    looked = Replica._tried
    wait = threading.Event()

    def late(self: Replica, first: bool) -> int:
        assert wait.wait(60.0)
        return looked(self, first)

    monkeypatch.setattr(Replica, "_tried", late)
    monkeypatch.setattr(follower, "_TURN_S", 0.01)
    made = Beating(str(tmp_path), ServingConfig(poll_ms=5, workers=1))
    replica = FedReplica(str(tmp_path), "clicks", CONFIG)
    feed = Feed(made.listener.getsockname(), made.board, made.board.workers[0], replica)
    for _ in range(5):
        feed.turn(0.01)
    assert replica.told_s == 0.0
    wait.set()
    made.wait(lambda: feed.turn(0.01) and replica.told_s > 0)
    assert replica.served is not None
    assert replica.served.version == "00000004-c"
    made.close()


def test_a_process_that_does_not_end_at_once_holds_up_nobody():
    """SIGKILL waits for a disk that hangs: it is not waited for, nor sent again."""
    site = Site(CONFIG, *[lambda *_: None] * 4)  # type: ignore[arg-type]
    supervisor = Supervisor(site, 0)
    kills: list[None] = []
    hung = SimpleNamespace(
        exitcode=None, pid=1, kill=lambda: kills.append(None), join=lambda *_: time.sleep(60)
    )
    began: list[object] = []
    supervisor._start = began.append  # type: ignore[method-assign, assignment]
    follows, works = supervisor._children
    follows.running = hung
    follows.begun_s = time.monotonic() - 1_000
    for _ in range(3):
        supervisor.turn()
    assert len(kills) == 1
    assert began == [works] * 3
    hung.exitcode = -9
    supervisor.turn()
    supervisor.turn()
    assert began.count(follows) == 1
