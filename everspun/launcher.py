"""The local launcher: every role as a process of its own, started, watched, restarted and drained.

A process that dies is started again at once: every role resumes from the logs and the checkpoints by itself, so there
is nothing to clean up first. One that keeps dying stops the run, with the end of its log in the error.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from everspun.config import RunConfig

MINUTE_S = 60.0
LOG_TAIL_LINES = 15
#: Environment: the pid of the launcher that started a process.
LAUNCHER = "EVERSPUN_LAUNCHER"
_PR_SET_PDEATHSIG = 1

#: Roles in the order in which they are started; they are stopped in the opposite order of the data: readers last.
ROLES = ("shard", "checkpointer", "fraud", "breaker", "labeler", "learner", "governor", "archiver", "replica")


#: Roles whose processes may be started and stopped while the rest goes on.
SCALABLE = ("learner",)
SCALE_FILE = "scale.json"


class RunStopped(RuntimeError):
    """A process died too often; the message ends with its last words."""


@dataclass
class Process:
    """One role's process and its history of starts."""

    role: str
    index: int
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    starts: deque[float] = field(default_factory=deque)
    restarts: int = 0
    leaving: bool = False  # told to drain, and to stay away

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}"


class Launcher:
    """Runs the roles of one configuration under `run.dir`."""

    def __init__(
        self, config_path: Path, run: RunConfig, overrides: tuple[str, ...] = (), governed: bool = False
    ) -> None:
        self.config_path = config_path
        self.run, self.governed = run, governed
        self.overrides = overrides
        self.dir = Path(run.dir)
        self.processes: dict[str, Process] = {}
        self.failure: RunStopped | None = None
        self._retired: set[str] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="launcher", daemon=True)

    def counts(self) -> dict[str, int]:
        """How many processes of each role are to run: as configured, or as ordered since (`order_scale`)."""
        run = self.run
        configured = {
            "shard": run.shards,
            "checkpointer": 1,
            "fraud": run.fraud,
            "breaker": run.breaker,
            "labeler": run.labelers,
            "learner": run.learners,
            "governor": int(self.governed),
            "archiver": run.archivers,
            "replica": run.replicas,
        }
        return configured | ordered_scale(self.dir)

    def start(self, roles: Collection[str] = ROLES) -> None:
        """Start the processes of these roles."""
        (self.dir / "logs").mkdir(parents=True, exist_ok=True)
        for stale in (self.dir / "roles").glob("*.json"):
            stale.unlink()
        (self.dir / "roles").mkdir(exist_ok=True)
        (self.dir / SCALE_FILE).unlink(missing_ok=True)
        for role, count in self.counts().items():
            for index in range(count if role in roles else 0):
                self._spawn(role, index)
        self._watcher.start()

    def stop(self, deadline_s: float = 15.0) -> None:
        """SIGTERM to all, wait for their draining, SIGKILL to what is left."""
        self._stopping.set()
        if self._watcher.ident is not None:
            self._watcher.join(timeout=5)
        end = time.monotonic() + deadline_s
        for process in self.processes.values():
            process.popen.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.popen.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait(timeout=5)
            process.log.close()

    def kill(self, role: str, index: int) -> int:
        """kill -9 one process, for fault tests; the watcher starts it again. Returns the pid that died."""
        popen = self.processes[f"{role}-{index}"].popen
        popen.kill()
        return popen.pid

    def freeze(self, role: str, index: int) -> subprocess.Popen[bytes]:
        """SIGSTOP one process, for fault tests. It goes on at SIGCONT, which the caller sends to what is returned."""
        popen = self.processes[f"{role}-{index}"].popen
        popen.send_signal(signal.SIGSTOP)
        return popen

    def retire(self, role: str, deadline_s: float = 30.0) -> None:
        """SIGTERM to all processes of a role; returns once they have drained, and they stay away.

        Raises TimeoutError for one that does not end.
        """
        self._retired.add(role)
        leaving = [p for p in self.processes.values() if p.role == role]
        for process in leaving:
            process.popen.send_signal(signal.SIGTERM)
        end = time.monotonic() + deadline_s
        for process in leaving:
            while process.popen.poll() is None:
                if time.monotonic() > end:
                    raise TimeoutError(f"{process.name} does not end within {deadline_s:g} s of SIGTERM")
                time.sleep(0.05)

    def alive(self) -> dict[str, bool]:
        return {name: p.popen.poll() is None for name, p in self.processes.items()}

    def raise_if_failed(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _command(self, role: str, index: int) -> list[str]:
        command = [sys.executable, "-m", "everspun", "role", role, "--index", str(index)]
        command += ["--config", str(self.config_path)]
        for override in self.overrides:
            command += ["--set", override]
        return command

    def _spawn(self, role: str, index: int) -> None:
        name = f"{role}-{index}"
        with self._lock:
            old = self.processes.get(name)
            log = old.log if old else (self.dir / "logs" / f"{name}.log").open("ab")
            popen = subprocess.Popen(
                self._command(role, index),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
            )
            if old:
                old.popen = popen
                old.restarts += 1
            else:
                old = self.processes[name] = Process(role, index, popen, log)
            old.starts.append(time.monotonic())

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for process in list(self.processes.values()):
                gone = process.popen.poll() is not None
                if process.leaving and gone:
                    self._forget(process)
                elif gone and process.role not in self._retired and not self._stopping.is_set():
                    self._restart(process)
            self._scale()

    def _scale(self) -> None:
        """Bring the number of processes to what was ordered. Who is to go drains and is not started again."""
        needed, settled = shards_needed(self.dir)
        for role, count in (ordered_scale(self.dir) | ({"shard": needed} if needed else {})).items():
            if role in self._retired or not any(process.role == role for process in self.processes.values()):
                continue
            for index in range(count):
                if f"{role}-{index}" not in self.processes and not self._stopping.is_set():
                    self._spawn(role, index)
            for process in list(self.processes.values()):
                over = process.role == role and process.index >= count and not process.leaving
                if over and (settled or role != "shard"):
                    process.leaving = True
                    process.popen.send_signal(signal.SIGTERM)

    def _forget(self, process: Process) -> None:
        del self.processes[process.name]
        process.log.close()
        (self.dir / "roles" / f"{process.name}.json").unlink(missing_ok=True)

    def _restart(self, process: Process) -> None:
        now = time.monotonic()
        while process.starts and now - process.starts[0] > MINUTE_S:
            process.starts.popleft()
        if len(process.starts) > self.run.restart_limit:
            if self.failure is None:
                tail = log_tail(self.dir / "logs" / f"{process.name}.log")
                self.failure = RunStopped(
                    f"{process.name} died {len(process.starts)} times within a minute "
                    f"(exit code {process.popen.returncode}); the end of its log:\n{tail}"
                )
            return
        if process.popen.returncode != -signal.SIGKILL:
            time.sleep(0.5)  # a process that fails by itself would fail again at once
        self._spawn(process.role, process.index)


def log_tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def order_scale(run_dir: Path, role: str, count: int) -> None:
    """Tell the launcher that runs in this folder how many processes of a role are to run from now on."""
    path = run_dir / SCALE_FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(ordered_scale(run_dir) | {role: count}))
    fresh.replace(path)


def ordered_scale(run_dir: Path) -> dict[str, int]:
    """Role -> processes ordered of the launcher that runs in this folder."""
    try:
        said = json.loads((run_dir / SCALE_FILE).read_text())
    except FileNotFoundError:
        return {}
    return {role: int(count) for role, count in said.items() if role in SCALABLE and int(count) >= 1}


def shards_needed(run_dir: Path) -> tuple[int, bool]:
    """How many shards are to run, as the one that holds the clocks says: those of the map in force, and those that an
    operator wants; and whether others may end (S6). 0 while it does not say."""
    try:
        said = json.loads((run_dir / "roles" / "shard-0.json").read_text())
    except (ValueError, FileNotFoundError):
        return 0, False  # it starts, or never did
    return int(said.get("processes", 0)), bool(said.get("settled", False))


def role_files(run_dir: Path) -> dict[str, dict[str, object]]:
    """What each running role says of itself: `<role>-<index>` -> pid, ports, address."""
    found: dict[str, dict[str, object]] = {}
    for path in sorted((run_dir / "roles").glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text())
        except (ValueError, FileNotFoundError):
            continue  # being written or removed at this moment: it is there at the next look
    return found


def _environment() -> dict[str, str]:
    """Two cores are shared by ten processes: no role needs a pool of maths threads beyond what its config says."""
    env = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        env.setdefault(name, "1")
    env["PYTHONUNBUFFERED"] = "1"
    env[LAUNCHER] = str(os.getpid())
    return env


def die_with_parent() -> None:
    """Called by a role's process: if the launcher that started it is killed, it stops in order (Linux only; elsewhere
    it sees its broker go). It asks for that itself, since no Python may run between fork and exec of a process with
    threads. To Linux the parent is the thread that started it: one that the watcher started again is told to stop as
    soon as the watcher ends, and once more by `stop`."""
    launcher = os.environ.get(LAUNCHER, "")
    if launcher and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(launcher):  # it died meanwhile
            os.kill(os.getpid(), signal.SIGTERM)
