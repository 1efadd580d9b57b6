"""The process that a replica with workers begins with: it begins the others, ends who is silent,
and begins again who has ended (shell, X5).

It loads what answers need before it forks, so all of them share that: interpreter, libraries,
compiled kernels. It has no connections and no tables of its own, and hardly anything to fail at.
"""

import ctypes
import gc
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from checkpointer.config import ServingConfig
from checkpointer.metrics import ReplicaMetrics
from checkpointer.serving import Replica, bound, url_of
from checkpointer.workers.board import Board, BoardRow, StopLevel
from checkpointer.workers.fed_replica import FedReplica
from checkpointer.workers.follower import follow
from checkpointer.workers.metrics_registry import metrics_of, registry_of
from checkpointer.workers.metrics_sum import EndedTotals, decode_metrics
from checkpointer.workers.worker import WorkerPlace, work
from stream import Backoff, start_metrics

_log = logging.getLogger(__name__)
#: Who has ended is begun again after pauses between these, ms; at once after a life of a minute,
#: or where it was killed.
_AGAIN_MS, _AGAIN_MS_MAX = 200, 10_000
_LIFE_S = 60.0
_TURN_S, _BEAT_S, _SAY_S = 0.05, 0.5, 1.0
#: Workers that answer are waited for before the replica says where it is, for so long, s.
_UP_S = 60.0
_CLOSE_S = 5.0
#: A process that has not begun its work after this, kernels compiled, is ended, s.
_BEGIN_S = 300.0
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_QUEUE = 512


@dataclass(frozen=True)
class Site:
    """What is served. Each is called in the process that uses what it makes."""

    config: ServingConfig
    #: a replica that follows checkpoints, and one that is fed
    following: Callable[[], Replica]
    fed: Callable[[], FedReplica]
    #: what runs beside a worker's answers
    beside: Callable[[FedReplica], AbstractContextManager[object]]
    #: loads and compiles what answers need, before processes are forked
    prepare: Callable[[], None]


@dataclass
class _Child:
    process: BoardRow
    main: Callable[[], None]
    running: Any = None  # multiprocessing.s Process
    begun_s: float = 0.0
    is_killed: bool = False  # and may not have ended yet
    due_s: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(_AGAIN_MS, _AGAIN_MS_MAX))


class Supervisor:
    """Of the processes of one replica, from `begin` to `end`; `turn` looks after them."""

    def __init__(self, site: Site, port: int, grpc_port: int = 0) -> None:
        """OSError where the address is taken."""
        if not sys.platform.startswith("linux"):
            raise OSError("serving.workers above 1 needs Linux (memfd_create); set it to 1")
        config = site.config
        bound(config.host, port).close()  # refused where anybody is there, which a shared one isn't
        self._reserved = bound(config.host, port, shares_port=True)  # no connections: not listening
        self.place = WorkerPlace(int(self._reserved.getsockname()[1]), grpc_port)
        self.metrics, self.board = ReplicaMetrics(), Board(config.workers)
        self.metrics.served_is(lambda: None, lambda: 0.0)
        self.registry = registry_of(self.board)
        self._site, self._totals, self._said_s = site, EndedTotals(), 0.0
        self._silent_s = max(config.request_timeout_s, 4 * _BEAT_S)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("")  # a name of the kernel's, held for as long as this is open
        self._listener.listen(_QUEUE)
        self._children = [
            _Child(self.board.follower, self._follow),
            *(_Child(worker, self._worker(worker)) for worker in self.board.workers),
        ]

    def begin(self) -> None:
        self._site.prepare()
        gc.collect()
        gc.freeze()  # a collection writes to all that it looks at, and would part shared pages
        for child in self._children:
            self._start(child)

    def turn(self) -> None:
        """Look at everybody once."""
        now_s = time.monotonic()
        for child in self._children:
            if child.running is None:
                if now_s >= child.due_s:
                    self._start(child)
            elif child.running.exitcode is not None:
                self._ended(child, now_s)
            elif not child.is_killed and (silent_s := self._is_silent(child, now_s)) > 0:
                _log.error("%s says nothing for %.0f s: it is ended", child.process.name, silent_s)
                child.is_killed = True  # when it ends is the kernel's: others are looked after
                child.running.kill()
        if now_s - self._said_s > _SAY_S:
            self._said_s = now_s
            self._say()

    @property
    def answering(self) -> int:
        """Workers that have a server."""
        return sum(self.board.silent_s(worker) is not None for worker in self.board.workers)

    def end(self) -> None:
        """Workers finish what is being answered, then the follower ends. Who does not is ended."""
        workers = [child for child in self._children if child.process in self.board.workers]
        self.board.stop_up_to(StopLevel.WORKERS)
        self._wait(workers, self._site.config.request_timeout_s + _CLOSE_S)
        self.board.stop_up_to(StopLevel.ALL)
        self._wait(self._children, _CLOSE_S)
        self._reserved.close()
        self._listener.close()

    # --- inside ---------------------------------------------------------------------------------

    def _is_silent(self, child: _Child, now_s: float) -> float:
        """For how long, if for too long."""
        silent_s, most_s = self.board.silent_s(child.process), self._silent_s
        if silent_s is None:
            silent_s, most_s = now_s - child.begun_s, _BEGIN_S
        return silent_s if silent_s > most_s else 0.0

    def _wait(self, children: list[_Child], seconds: float) -> None:
        end_s = time.monotonic() + seconds
        for child in children:
            if child.running is not None:
                child.running.join(max(0.0, end_s - time.monotonic()))
                if child.running.exitcode is None:
                    _log.error("%s does not end: it is killed", child.process.name)
                    child.running.kill()
                    child.running.join(_CLOSE_S)

    def _start(self, child: _Child) -> None:
        context = multiprocessing.get_context("fork")
        self.board.ended(child.process)
        made = context.Process(
            target=_run_child,
            args=(child.main, os.getpid()),
            name=child.process.name,
            daemon=True,
        )
        child.begun_s = time.monotonic()
        try:
            made.start()
        except OSError as error:
            _log.error("%s cannot be begun, tried again: %s", child.process.name, error)
            child.due_s = child.begun_s + child.backoff.failed(random.random()) / 1_000
            return
        child.running, child.is_killed = made, False

    def _ended(self, child: _Child, now_s: float) -> None:
        code, pid = child.running.exitcode, child.running.pid
        child.running = None
        self.board.ended(child.process)
        said = decode_metrics(self.board.read_metrics(child.process))
        if said is not None and said.pid == pid:
            self._totals.take(said)
        name = child.process.name
        self.metrics.workers_ended.labels(process=name.split()[0]).inc()
        if now_s - child.begun_s > _LIFE_S:
            child.backoff.worked()
        pause_ms = 0 if code == -signal.SIGKILL else child.backoff.failed(random.random())
        child.due_s = now_s + pause_ms / 1_000
        _log.error("%s (process %d) ended with %d, begun again in %d ms", name, pid, code, pause_ms)
        self._say()

    def _say(self) -> None:
        """What the supervisor knows, with what those had counted who have ended."""
        self.metrics.workers.set(self.answering)
        said = self._totals.with_them(metrics_of(self.metrics.registry, os.getpid()))
        self.board.write_metrics(self.board.supervisor, said.encode())

    # --- in the child ---------------------------------------------------------------------------

    def _follow(self) -> None:
        self._reserved.close()
        follow(self._site.following, self.board, self._listener)

    def _worker(self, worker: BoardRow) -> Callable[[], None]:
        def main() -> None:
            address = self._listener.getsockname()
            self._listener.close()
            self._reserved.close()
            site = self._site
            replica = site.fed()
            work(
                replica, site.beside, self.board, worker, address, self.place,
                lambda lives: _beat(self.board, worker, lives),
            )  # fmt: skip

        return main


def _run_child(main: Callable[[], None], parent: int) -> None:
    """Ends with its parent, and when that says so; signals to the group are the parent's."""
    with suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(_PR_SET_NAME, multiprocessing.current_process().name.encode())  # as top shows it
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    code = 1
    try:
        main()
        code = 0
    except BaseException:
        _log.exception("%s ends", multiprocessing.current_process().name)
    finally:
        logging.shutdown()
        os._exit(code)  # libraries' threads are not waited for


def _beat(board: Board, process: BoardRow, lives: Callable[[], bool]) -> None:
    """Say that this process lives, from now on, for as long as that holds."""
    board.beat(process)

    def beats() -> None:
        while True:
            if lives():
                board.beat(process)
            time.sleep(_BEAT_S)

    threading.Thread(target=beats, name="beat", daemon=True).start()


def run(
    site: Site,
    stop: threading.Event,
    *,
    run_dir: str = "",
    index: int = 0,
    up: Callable[[int], None] | None = None,
) -> None:
    """Serve until `stop` is set; then finish what is being answered. OSError where the address is
    taken. On the main thread: the other processes end with the thread that begins them. `up`: told
    the port once workers answer."""
    config = site.config
    port = config.port + index if config.port else 0
    supervisor = Supervisor(site, port, config.grpc_port + index if config.grpc_port else 0)
    told, is_told = ReplicaMetrics(), False  # all of them, as others see them
    told.registry = supervisor.registry
    began_s = time.monotonic()
    try:
        supervisor.begin()
        while not stop.wait(_TURN_S):
            supervisor.turn()
            answering = supervisor.answering
            told.not_ready = "" if answering else "no worker answers yet"
            late = time.monotonic() - began_s > _UP_S
            if not is_told and (late or answering == config.workers):
                is_told, port = True, supervisor.place.port
                if run_dir:
                    start_metrics(run_dir, "replica", index, told, http_port=port)
                if up is not None:
                    up(port)
                _log.info("replica of %d workers at %s", config.workers, url_of(config, port))
    finally:
        supervisor.end()
