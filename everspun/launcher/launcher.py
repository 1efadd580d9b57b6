"""The local launcher: every role as a process of its own, started, watched, restarted and drained.

A process that dies is started again: every role resumes from the logs and the checkpoints by
itself, so there is nothing to clean up first. One that keeps dying waits longer and longer
(`everspun.launcher.restarts`), says why, and takes nobody with it. No error of the operating system
ends the watching: what could not be done is said, and tried again.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from everspun.config import ConfigError, RunConfig
from everspun.hosts import ALL, ROLES, Placement
from everspun.launcher.hangs import LOOK_S as HANG_LOOK_S
from everspun.launcher.hangs import HangWatch
from everspun.launcher.launcher_pipe import environment
from everspun.launcher.locks import is_removed, lock_file, unlock
from everspun.launcher.process import SAY_AGAIN_MS, NeverStarted, Process, Trouble, signal_words
from everspun.launcher.renewals import Renewals, RenewalState
from everspun.launcher.restarts import Restarts
from everspun.launcher.role_log import bound_log, last_words, log_tail, room_line
from everspun.launcher.run_files import (
    IN_FORCE_FILE,
    SCALABLE,
    SCALE_FILE,
    make_folders,
    ordered_scale,
    role_files,
    shards_needed,
    write_in_force,
)
from everspun.launcher.state import StateFile
from stream.log import wall_clock_ms

logger = logging.getLogger(__name__)

LOOK_S = 0.1
#: How often the state is written and logs are measured, in looks.
SLOW_LOOKS = 10
#: Roles of which more or fewer processes may run from one moment to the next.
RESIZED = (*SCALABLE, "labeler", "replica", "archiver")
TROUBLES_MAX = 50
#: Characters of a trouble.
WHAT_MAX = 600
LOCK_FILE = "launcher.lock"
#: So often in a row a process ends by itself before somebody who waits for the whole run gives up.
FAILED_ENDS = 8


class RunStopped(RuntimeError):
    """A process keeps dying; the message ends with its last words."""


class Launcher:
    """Runs the roles of one configuration under `run.dir`."""

    def __init__(
        self,
        config_path: Path,
        run: RunConfig,
        overrides: tuple[str, ...] = (),
        governed: bool = False,
        placement: Placement = ALL,
        in_force: str | None = None,
    ) -> None:
        """`in_force`: text of the configuration that processes start with, where the file at
        `config_path` may change while they run."""
        self.config_path, self.in_force = config_path, in_force
        self.run, self.governed, self.placement = run, governed, placement
        self.overrides = overrides
        self.dir = Path(run.dir)
        self.processes: dict[str, Process] = {}
        self.troubles: dict[str, Trouble] = {}
        self.stream_said: Callable[[], dict[str, object]] = dict  # what `run` knows of the stream
        self._retired: set[str] = set()
        self._renewals = Renewals()
        self._roles: frozenset[str] = frozenset()  # that this launcher runs
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._state: StateFile | None = None
        self._held = self._pipe = self._pipe_end = 0
        self._hangs = HangWatch(self._describe, self._end_hung)
        self._watcher = threading.Thread(target=self._watch, name="launcher", daemon=True)
        self._hang_watcher = threading.Thread(target=self._watch_hangs, name="hangs", daemon=True)

    def counts(self) -> dict[str, int]:
        """How many processes of each role are to run: as configured, or as ordered since
        (`order_scale`)."""
        return self.run.counts(self.governed) | ordered_scale(self.dir)

    def start(self, roles: Collection[str] = ROLES) -> None:
        """Start the processes of these roles. Raises `locks.AlreadyLocked` where another launcher
        runs in this folder, and OSError where the folder cannot be written; a process that cannot
        be started now is started later."""
        make_folders(self.dir)
        self._held = lock_file(self.dir / LOCK_FILE, f"run.dir {self.dir}")
        if self.in_force is not None:
            write_in_force(self.dir, self.in_force)
        self._pipe, self._pipe_end = os.pipe()
        for stale in (self.dir / "roles").glob("*.json"):
            stale.unlink()
        (self.dir / SCALE_FILE).unlink(missing_ok=True)
        self._roles = frozenset(roles)
        for role, count in self.counts().items():
            for index in self.placement.indices(role, count) if role in roles else ():
                self._add(role, index)
        self._watcher.start()
        self._hang_watcher.start()

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
                try:
                    process.popen.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    logger.error(
                        "%s (pid %d) does not end by SIGKILL", process.name, process.popen.pid
                    )
            if process.log is not None:
                process.log.close()
        if self._state is not None:
            self._state.close()
            self._state = None
        for held in (self._pipe, self._pipe_end, self._held):
            unlock(held)
        self._pipe = self._pipe_end = self._held = 0

    def kill(self, role: str, index: int) -> int:
        """kill -9 one process, for fault tests; the watcher starts it again. Returns the pid
        that died."""
        popen = self.processes[f"{role}-{index}"].popen
        popen.kill()
        return int(popen.pid)

    def freeze(self, role: str, index: int) -> subprocess.Popen[bytes]:
        """SIGSTOP one process, for fault tests. It goes on at SIGCONT, which the caller sends to
        what is returned."""
        popen: subprocess.Popen[bytes] = self.processes[f"{role}-{index}"].popen
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
                    raise TimeoutError(
                        f"{process.name} does not end within {deadline_s:g} s of SIGTERM"
                    )
                time.sleep(0.05)

    def renew(
        self, overrides: tuple[str, ...], counts: dict[str, int], roles: Collection[str]
    ) -> None:
        """From now on processes start with these overrides, `counts` (field of [run] -> processes)
        are to run, and those of `roles` that run are started again, one after the other: the next
        once the last one says that it runs."""
        with self._lock:
            self.overrides = overrides
            self.run = replace(self.run, **counts)  # type: ignore[arg-type]
            self._renewals.order(n for n, p in self.processes.items() if p.role in roles)
        if set(counts) & {f"{role}s" for role in SCALABLE}:  # the newest word counts
            (self.dir / SCALE_FILE).unlink(missing_ok=True)

    def alive(self) -> dict[str, bool]:
        return {name: p.popen.poll() is None for name, p in self.processes.items()}

    @property
    def failure(self) -> RunStopped | None:
        """A process that keeps dying, with the end of its log; for whoever has no use for the
        rest of the run."""
        now = _monotonic_ms()
        for process in list(self.processes.values()):
            if process.history.own_ends >= FAILED_ENDS or (
                len(process.history.starts_ms) > process.history.limit
                and process.history.keeps_ending(now)
            ):
                tail = log_tail(self.dir / "logs" / f"{process.name}.log", process.log_begin)
                return RunStopped(
                    f"{process.name} died {process.history.ends} times in a row "
                    f"({process.reason}); the end of its log:\n{tail}"
                )
        return None

    def raise_if_failed(self) -> None:
        if failure := self.failure:
            raise failure

    def note(self, doing: str, error: BaseException) -> None:
        """Something could not be done and will be tried again: said at once, then once a minute."""
        said_in_full = isinstance(error, OSError | ConfigError)
        what = f"{doing}: {error if said_in_full else repr(error)}"
        if len(what) > WHAT_MAX:  # what to do stands at the end
            what = f"{what[: WHAT_MAX // 2]} ... {what[-WHAT_MAX // 2 :]}"
        now = _monotonic_ms()
        with self._lock:
            trouble = self.troubles.get(what)
            if trouble is None:
                while len(self.troubles) >= TROUBLES_MAX:
                    del self.troubles[next(iter(self.troubles))]
                trouble = self.troubles[what] = Trouble(what, _wall_ms())
            trouble.count += 1
            trouble.last_ms = now
            if now - trouble.said_ms < SAY_AGAIN_MS:
                return
            trouble.said_ms = now
        logger.warning("%s; tried again", what)

    def _command(self, role: str, index: int) -> list[str]:
        command = [sys.executable, "-m", "everspun", "role", role, "--index", str(index)]
        command += ["--config", str(self.config_path)]
        if self.in_force is not None:
            command += ["--in-force", str(self.dir / IN_FORCE_FILE)]
        for override in self.overrides:
            command += ["--set", override]
        return command

    def _add(self, role: str, index: int) -> None:
        """A process that was not there. If it cannot be started now, the watcher tries again."""
        process = Process(
            role, index, NeverStarted(), None, Restarts(self.run.restart_limit, self._wait_max_ms)
        )
        self.processes[process.name] = process
        try:
            self._spawn(process)
        except OSError as error:
            self._refused(process, error)

    @property
    def _wait_max_ms(self) -> int:
        return int(self.run.restart_wait_max_s * 1_000)

    def _spawn(self, process: Process) -> None:
        """Raises OSError."""
        path = self.dir / "logs" / f"{process.name}.log"
        with self._lock:
            if process.log is None or is_removed(process.log.fileno(), path):
                try:
                    process.log = path.open("ab")
                except OSError as error:  # its words go to this process's standard error then
                    logger.warning("%s has no log: %s", process.name, error)
            output = process.log or sys.stderr
            process.log_begin = process.log.seek(0, os.SEEK_END) if process.log else 0
            process.popen = subprocess.Popen(
                self._command(process.role, process.index),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(self._pipe),
                pass_fds=(self._pipe,) if self._pipe else (),
            )
            process.restarts += bool(process.started_ms)
            process.started_ms = now = _monotonic_ms()
            process.due_ms = None
            process.renewing = False
            process.hang = ""
            process.history.on_start(now)

    def _refused(self, process: Process, error: BaseException) -> None:
        """The operating system starts no process at the moment."""
        self.note(f"starting {process.name}", error)
        now = _monotonic_ms()
        process.reason = f"cannot be started: {error}"
        process.due_ms = now + process.history.on_end(now, killed=False)

    def _watch(self) -> None:
        looks = 0
        while not self._stopping.wait(LOOK_S):
            for process in list(self.processes.values()):
                self.attempt(f"watching {process.name}", partial(self._look, process))
            self.attempt("scaling", self._scale)
            self.attempt("starting again", self._renew)
            looks += 1
            if looks % SLOW_LOOKS == 1:
                self.attempt("keeping its folder", self._keep_folder)
                self._cut_logs()
                self.attempt("writing the launcher's state", self._write_state)

    def _keep_folder(self) -> None:
        """What starts again finds its configuration, and `everspun status` what is said. Raises
        OSError for as long as the folder is not the one in which the run began."""
        if not is_removed(self._held, self.dir / LOCK_FILE):
            return
        make_folders(self.dir)
        if self.in_force is not None:
            write_in_force(self.dir, self.in_force)
        for process in list(self.processes.values()):
            log = process.log
            if log is not None and is_removed(log.fileno(), Path(log.name)):
                log.close()
                process.log = None  # its next start begins another one
        raise OSError(
            f"run.dir {self.dir} was removed or moved while its processes ran, with their sockets "
            "and what they kept there: stop `everspun run`, and start it again"
        )

    def _watch_hangs(self) -> None:
        """Its own thread: whoever is asked may take his time."""
        while not self._stopping.wait(HANG_LOOK_S):
            self.attempt("asking whether processes hang", self._look_for_hangs)

    def _look_for_hangs(self) -> None:
        self._hangs.look(
            role_files(self.dir),
            {
                name: process.popen.pid
                for name, process in list(self.processes.items())
                if not process.leaving and not process.renewing and process.popen.poll() is None
            },
        )

    def _describe(self, name: str) -> None:
        """Every thread of it goes into its log."""
        self.processes[name].popen.send_signal(signal.SIGUSR1)

    def _end_hung(self, name: str, why: str) -> None:
        process = self.processes[name]
        process.hang = why
        process.popen.kill()

    def attempt(self, doing: str, act: Callable[[], object]) -> None:
        """Do it; whatever is raised is noted, and it is for the caller to try again."""
        try:
            act()
        except Exception as error:  # whatever it is, the other processes are watched on
            self.note(doing, error)

    def _look(self, process: Process) -> None:
        now = _monotonic_ms()
        if process.popen.poll() is None:
            process.history.settle(now, process.started_ms)
            process.notice_stop(now)
        elif process.leaving:
            self._forget(process)
        elif process.role not in self._retired and not self._stopping.is_set():
            if process.renewing:
                process.due_ms = now
            elif process.due_ms is None:
                self._ended(process, now)
            if process.due_ms is not None and now >= process.due_ms:
                try:
                    self._spawn(process)
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    self._refused(process, error)

    def _ended(self, process: Process, now: int) -> None:
        """It is gone: why, for how long, and is it a habit?"""
        code = process.popen.returncode
        process.due_ms = now + process.history.on_end(now, killed=code == -signal.SIGKILL)
        how = signal_words(-code) if code < 0 else f"exit code {code}"
        how = f"it hung, and was ended: {process.hang}" if process.hang else how
        words = (
            last_words(self.dir / "logs" / f"{process.name}.log", process.log_begin)
            if code >= 0
            else ""
        )
        process.reason = ": ".join(filter(None, (how, words, room_line(self.dir))))
        if process.history.keeps_ending(now) and now - process.said_ms >= SAY_AGAIN_MS:
            process.said_ms = now
            logger.error(
                "%s ended %d times in a row (%s); it is started again every %.1f s, all others go "
                "on",
                *(
                    process.name,
                    process.history.ends,
                    process.reason,
                    (process.due_ms - now) / 1_000,
                ),
            )

    def _renew(self) -> None:
        with self._lock:
            name = self._renewals.look(self._state_of)
        if name is not None:
            process = self.processes[name]
            process.renewing = True
            process.popen.send_signal(signal.SIGTERM)

    def _state_of(self, name: str) -> RenewalState:
        process = self.processes.get(name)
        if process is None or process.leaving or process.role in self._retired:
            return RenewalState.GOES
        said = role_files(self.dir).get(name, {})
        up = not process.renewing and process.popen.poll() is None
        return (
            RenewalState.RUNS
            if up and said.get("pid") == process.popen.pid
            else RenewalState.STARTS
        )

    def _scale(self) -> None:
        """Bring the number of processes to what is configured, or was ordered. Who is to go drains
        and is not started again."""
        needed, settled = shards_needed(self.dir)
        wanted_counts = {r: n for r, n in self.counts().items() if r in RESIZED}
        for role, count in (wanted_counts | ({"shard": needed} if needed else {})).items():
            if role in self._retired or role not in self._roles:
                continue
            wanted = self.placement.indices(role, count)
            for index in wanted:
                if f"{role}-{index}" not in self.processes and not self._stopping.is_set():
                    self._add(role, index)
            for process in list(self.processes.values()):
                over = process.role == role and process.index not in wanted
                if over and not process.leaving and (settled or role != "shard"):
                    process.leaving = True
                    process.popen.send_signal(signal.SIGTERM)

    def _forget(self, process: Process) -> None:
        del self.processes[process.name]
        if process.log is not None:
            process.log.close()
        (self.dir / "roles" / f"{process.name}.json").unlink(missing_ok=True)

    def _cut_logs(self) -> None:
        for process in list(self.processes.values()):
            self.attempt(f"bounding the log of {process.name}", partial(self._cut_log, process))

    def _cut_log(self, process: Process) -> None:
        log = process.log
        if log and bound_log(log, self.run.log_bytes_max, self.run.log_files_kept):
            process.log_begin = 0

    def _write_state(self) -> None:
        if self._state is not None and self._state.is_removed:
            self._state.close()
            self._state = None
        if self._state is None:
            self._state = StateFile(self.dir)
        self._state.write(self.said())

    def said(self) -> dict[str, Any]:
        """What `everspun status` and Prometheus are told of the processes."""
        now, wall = _monotonic_ms(), _wall_ms()
        processes = {}
        for process in list(self.processes.values()):
            up, history = process.popen.poll() is None, process.history
            bad = history.keeps_ending(now)
            began_ms = history.since_ms if bad or not up else process.started_ms
            stopped_ms = process.stopped_ms if up and not bad else None
            processes[process.name] = {
                "state": "failing" if bad else "waits" if not up else "up",
                "pid": process.popen.pid,
                "ends": history.ends,
                "restarts": process.restarts,
                "since_ms": wall - (now - began_ms),
                "reason": process.reason,
            } | ({} if stopped_ms is None else _stopped(wall - (now - stopped_ms)))
        troubles = [
            {"what": one.what, "since_ms": one.since_ms, "count": one.count}
            for one in list(self.troubles.values())
            if now - one.last_ms < SAY_AGAIN_MS
        ]
        said = {
            "pid": os.getpid(),
            "written_ms": wall,
            "processes": processes,
            "troubles": troubles,
        }
        return said | {"stream": self.stream_said()}


def _stopped(since_ms: int) -> dict[str, Any]:
    return {"state": "stopped", "since_ms": since_ms}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return wall_clock_ms()
