"""No error of the operating system ends the launcher's watching, and no role takes another with
it."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everspun.config import RunConfig
from everspun.launcher import launcher as module
from everspun.launcher import process as process_module
from everspun.launcher.launcher import Launcher
from everspun.launcher.locks import AlreadyLocked
from everspun.launcher.process import NeverStarted, Process
from everspun.launcher.restarts import Restarts
from everspun.launcher.role_log import cut_log, last_words
from everspun.launcher.run_files import IN_FORCE_FILE, order_scale, role_files
from everspun.launcher.state import StateFile, read_state
from stream.monitoring import TimeLimit

WAIT_S = 30.0


def wait_for(what: Callable[[], bool]) -> None:
    limit = TimeLimit(WAIT_S)
    while not what():
        assert not limit.over
        time.sleep(0.005)


class Sleeper:
    """Stands in for `subprocess.Popen`: ends when it is told to."""

    pids = iter(range(100_000, 10_000_000))

    def __init__(self, *_: Any, **__: Any) -> None:
        self.pid, self.returncode = next(self.pids), None

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.returncode = -number

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def config(tmp_path: Path, **changed: Any) -> RunConfig:
    counts = {"shards": 1, "learners": 1, "fraud": 0, "replicas": 1} | changed
    return RunConfig(dir=str(tmp_path / "run"), **counts)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    monkeypatch.setattr(module, "LOOK_S", 0.002)
    monkeypatch.setattr(module, "SLOW_LOOKS", 2)
    monkeypatch.setattr(module.subprocess, "Popen", Sleeper)
    launcher = Launcher(tmp_path / "x.toml", config(tmp_path))
    launcher.start()
    yield launcher
    launcher.stop(0.1)


CALLS = {
    "start a process": (module.subprocess, "Popen"),
    "look whether it lives": (Sleeper, "poll"),
    "tell it to end": (Sleeper, "send_signal"),
    "read a file": (Path, "read_text"),
    "open a file": (Path, "open"),
    "list a folder": (Path, "glob"),
    "measure a file": (Path, "stat"),
    "remove a file": (Path, "unlink"),
    "open by number": (os, "open"),
    "write in place": (os, "pwrite"),
    "cut a file": (os, "truncate"),
    "ask for room": (os, "statvfs"),
}
ERRORS = (
    "EAGAIN",
    "ENOMEM",
    "EMFILE",
    "ENFILE",
    "ENOSPC",
    "EDQUOT",
    "EIO",
    "EROFS",
    "EACCES",
    "ENOENT",
    "ESTALE",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [*ERRORS, "MemoryError", "RuntimeError"])
def test_the_watcher_survives_every_error_at_every_call(
    watched: Launcher, monkeypatch: pytest.MonkeyPatch, call: str, error: str
):
    owner, name = CALLS[call]
    real, looked = getattr(owner, name), [0]
    kinds = {"MemoryError": MemoryError(), "RuntimeError": RuntimeError("can't start new thread")}

    def fails(*given: Any, **named: Any) -> Any:
        if threading.current_thread() is not watched._watcher:
            return real(*given, **named)
        looked[0] += 1
        raise kinds.get(error) or OSError(getattr(errno, error), os.strerror(getattr(errno, error)))

    learner = watched.processes["learner-0"].popen
    log = Path(watched.processes["shard-0"].log.name)
    log.write_bytes(b"x" * 3 * watched.run.log_bytes_max) if "cut" in call else None
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        learner.returncode = -signal.SIGKILL
        order_scale(watched.dir, "learner", 2)
        time.sleep(0.03)
    assert watched._watcher.is_alive()
    wait_for(
        lambda: watched.processes["learner-0"].popen is not learner and watched.alive()["learner-0"]
    )
    wait_for(lambda: watched.alive().get("learner-1", False))
    replica = watched.processes["replica-0"].popen
    replica.returncode = -signal.SIGKILL
    wait_for(
        lambda: (
            watched.processes["replica-0"].popen is not replica and all(watched.alive().values())
        )
    )
    assert watched.processes["labeler-0"].restarts == 0


@pytest.mark.parametrize(
    "said", ["[]", "", "{", "null", "3", '{"processes": "many"}', '{"processes": -1}', "\x00" * 9]
)
@pytest.mark.parametrize("name", ["roles/shard-0.json", "roles/learner-0.json", "scale.json"])
def test_files_of_the_run_may_hold_anything(watched: Launcher, name: str, said: str):
    (watched.dir / name).write_text(said)
    learner = watched.processes["learner-0"].popen
    learner.returncode = -signal.SIGKILL
    wait_for(
        lambda: watched.processes["learner-0"].popen is not learner and watched.alive()["learner-0"]
    )
    assert sorted(watched.processes) == [
        "checkpointer-0",
        "labeler-0",
        "learner-0",
        "replica-0",
        "shard-0",
    ]
    assert isinstance(role_files(watched.dir), dict)


def test_what_goes_on_going_wrong_is_said_with_its_count_and_in_the_state(
    watched: Launcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(module.subprocess, "Popen", full)
    watched.processes["replica-0"].popen.returncode = 1
    wait_for(lambda: watched.processes["replica-0"].history.own_ends >= 2)
    told = watched.said()
    assert (
        "cannot be started: [Errno 11] Resource temporarily"
        in told["processes"]["replica-0"]["reason"]
    )
    assert [one["what"].startswith("starting replica-0") for one in told["troubles"]] == [True]
    assert sum("starting replica-0" in line for line in caplog.messages) == 1
    wait_for(lambda: bool(read_state(watched.dir).get("troubles")))


# --- real processes
# -----------------------------------------------------------------------------------------------


class Shell(Launcher):
    """Roles are a line of shell."""

    line = "sleep 60"
    failing = "echo before; echo 'ValueError: no such model' >&2; exit 3"

    def _command(self, role: str, index: int) -> list[str]:
        return ["/bin/sh", "-c", self.failing if role == "replica" else "exec " + self.line]


@pytest.mark.processes
def test_a_role_that_cannot_start_takes_nobody_with_it_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    launcher = Shell(tmp_path / "x.toml", config(tmp_path, restart_wait_max_s=0.05))
    launcher.start()
    try:
        wait_for(lambda: launcher.processes["replica-0"].history.own_ends >= 10)
        others = {name: p for name, p in launcher.processes.items() if name != "replica-0"}
        assert all(p.popen.poll() is None and p.restarts == 0 for p in others.values())
        wait_for(
            lambda: (
                read_state(launcher.dir).get("processes", {}).get("replica-0", {}).get("state")
                == "failing"
            )
        )
        assert (
            read_state(launcher.dir)["processes"]["replica-0"]["reason"]
            == "exit code 3: ValueError: no such model"
        )
        assert any("replica-0 ended 3 times in a row" in line for line in caplog.messages)
        assert "no such model" in str(launcher.failure)
    finally:
        launcher.stop()
    assert read_state(launcher.dir) == {}


LAUNCHER = """
import sys, time
from pathlib import Path
from everspun.config import RunConfig
from everspun.launcher.launcher import Launcher
class One(Launcher):
    def _command(self, role, index):
        code = (
            "from everspun.launcher.launcher_pipe import die_with_launcher; die_with_launcher(); "
            "print('up', flush=True)"
        )
        return [sys.executable, "-c", code + "; import time; time.sleep(600)"]
l = One(Path("x.toml"), RunConfig(dir=sys.argv[1]))
l.start(("shard",))
time.sleep(600)
"""


@pytest.mark.processes
def test_roles_end_with_a_launcher_that_is_killed_and_a_second_one_is_refused(tmp_path: Path):
    run_dir = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(run_dir)])
    try:
        logs = [run_dir / f"logs/shard-{i}.log" for i in (0, 1)]
        wait_for(lambda: all(log.exists() and "up" in log.read_text() for log in logs))
        wait_for(lambda: len(read_state(run_dir).get("processes", {})) == 2)
        pids = [one["pid"] for one in read_state(run_dir)["processes"].values()]
        with pytest.raises(AlreadyLocked, match=f"is in use by process {first.pid}"):
            Launcher(tmp_path / "x.toml", RunConfig(dir=str(run_dir))).start(("shard",))
    finally:
        first.kill()
        first.wait()

    def gone(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"

    wait_for(lambda: all(map(gone, pids)))


def test_a_log_is_bounded_and_what_is_said_of_an_end_is_of_that_life(tmp_path: Path):
    path = tmp_path / "x.log"
    with path.open("ab") as log:
        log.write(b"old: RuntimeError: earlier\n" * 10)
        log.flush()
        assert not cut_log(path, 65_536)
        begin = log.tell()
        assert last_words(path, begin) == ""
        log.write(b'Traceback (most recent call last):\n  File "x", line 1\nKeyError: 5\n  frame\n')
        log.flush()
        assert last_words(path, begin) == "KeyError: 5"
        log.write(b"y" * 100_000)
        log.flush()
        assert cut_log(path, 65_536)
        assert path.stat().st_size == 0
        assert path.with_name("x.log.1").stat().st_size == 65_536
        log.write(b"goes on\n")
        log.flush()
        assert path.read_bytes() == b"goes on\n"
        assert last_words(path, begin) == "goes on"


def test_as_many_older_logs_are_kept_as_configured(tmp_path: Path):
    path = tmp_path / "x.log"
    for number in range(5):
        path.write_bytes(b"%d" % number * 70_000)
        assert cut_log(path, 65_536, kept_max=3)
    kept = {file.name: file.read_bytes()[:1] for file in tmp_path.iterdir() if file != path}
    assert kept == {"x.log.1": b"4", "x.log.2": b"3", "x.log.3": b"2"}


def test_older_logs_stay_where_there_is_no_room_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, kept = tmp_path / "x.log", {}
    for number in range(1, 4):
        kept[number] = f"old {number}"
        path.with_name(f"x.log.{number}").write_text(kept[number])
    path.write_bytes(b"new" * 30_000)

    def full(self: Path, *given: object, **named: object) -> object:
        if self.suffix == ".draft":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, *given, **named)

    opened = Path.open
    monkeypatch.setattr(Path, "open", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            cut_log(path, 65_536, kept_max=3)
    assert {number: path.with_name(f"x.log.{number}").read_text() for number in kept} == kept
    path.write_bytes(b"new" * 60_000)
    assert cut_log(path, 65_536, kept_max=3), "one that is twice as long is cut in any case"
    assert {number: path.with_name(f"x.log.{number}").read_text() for number in kept} == kept
    assert path.stat().st_size == 0


def test_a_log_that_was_taken_away_is_bounded_and_so_are_all_others(tmp_path: Path):
    launcher = Launcher(tmp_path / "x.toml", config(tmp_path, log_bytes_max=65_536))
    (launcher.dir / "logs").mkdir(parents=True)
    for role in ("labeler", "learner", "replica"):
        process = Process(role, 0, NeverStarted(), None, Restarts(5, 1_000))
        process.log = (launcher.dir / "logs" / f"{role}-0.log").open("ab", buffering=0)
        launcher.processes[process.name] = process
    (launcher.dir / "logs" / "labeler-0.log").unlink()
    for _ in range(5):
        for process in launcher.processes.values():
            process.log.write(b"x" * 40_000)
        launcher._cut_logs()
    sizes = {
        name: os.fstat(process.log.fileno()).st_size for name, process in launcher.processes.items()
    }
    assert max(sizes.values()) < 2 * 65_536, sizes
    assert not launcher.troubles
    for process in launcher.processes.values():
        process.log.close()


@pytest.mark.parametrize("troubles", [0, 60])
def test_the_state_can_be_read_when_everything_is_ill(troubles: int, tmp_path: Path):
    state = StateFile(tmp_path)
    ill = {"state": "failing", "pid": 4711, "since_ms": 1, "reason": "ü/" * 150}
    what = {"what": "starting x: " + "/données/" * 60, "since_ms": 1, "count": 1}
    said = {"pid": 1, "written_ms": 1, "stream": {}, "troubles": [what] * troubles}
    for processes in (60, 2_000):
        state.write(said | {"processes": {f"learner-{n}": ill for n in range(processes)}})
        read = read_state(tmp_path)
        assert read["processes"]["learner-0"]["reason"].startswith("ü/ü/")
        assert bool(read["troubles"]) == bool(troubles)
    state.close()


def test_the_state_is_written_over_in_place_and_its_length_stays(tmp_path: Path):
    state = StateFile(tmp_path)
    size = state.path.stat().st_size
    inode = state.path.stat().st_ino
    many = {
        f"learner-{i}": {"state": "failing" if i == 7 else "up", "reason": "x" * 300}
        for i in range(400)
    }
    state.write({"processes": many})
    assert list(read_state(tmp_path)["processes"]) == ["learner-7"]
    state.write({"processes": {}})
    assert read_state(tmp_path) == {"processes": {}}
    assert (state.path.stat().st_size, state.path.stat().st_ino) == (size, inode)
    state.path.write_text(json.dumps([]))
    assert read_state(tmp_path) == {}


def test_a_process_that_a_signal_stopped_is_said(
    watched: Launcher, monkeypatch: pytest.MonkeyPatch
):
    stopped = {watched.processes["learner-0"].popen.pid}
    monkeypatch.setattr(process_module, "is_stopped", lambda pid: pid in stopped)

    def state() -> str:
        said = read_state(watched.dir).get("processes", {})
        return str(said.get("learner-0", {}).get("state"))

    wait_for(lambda: state() == "stopped")
    since_ms = read_state(watched.dir)["processes"]["learner-0"]["since_ms"]
    assert 0 <= module._wall_ms() - since_ms < 60_000
    stopped.clear()
    wait_for(lambda: state() == "up")


def test_the_system_says_who_stands_still():
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        sleeper.send_signal(signal.SIGSTOP)
        wait_for(lambda: process_module.is_stopped(sleeper.pid))
        sleeper.send_signal(signal.SIGCONT)
        wait_for(lambda: not process_module.is_stopped(sleeper.pid))
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not process_module.is_stopped(sleeper.pid)


def test_a_removed_folder_is_said_and_what_starts_again_finds_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "LOOK_S", 0.002)
    monkeypatch.setattr(module, "SLOW_LOOKS", 2)
    monkeypatch.setattr(module.subprocess, "Popen", Sleeper)
    launcher = Launcher(tmp_path / "x.toml", config(tmp_path), in_force="# as it was\n")
    launcher.start()
    try:
        wait_for(lambda: bool(read_state(launcher.dir)))
        launcher.dir.rename(tmp_path / "moved")  # at once: the launcher makes it anew
        wait_for(lambda: bool(read_state(launcher.dir).get("troubles")))
        said = next(iter(read_state(launcher.dir)["troubles"]))["what"]
        assert f"run.dir {launcher.dir} was removed or moved while its processes ran" in said
        assert said.endswith("stop `everspun run`, and start it again")
        assert (launcher.dir / IN_FORCE_FILE).read_text() == "# as it was\n"
        launcher.kill("learner", 0)
        wait_for(lambda: (launcher.dir / "logs" / "learner-0.log").exists())
    finally:
        launcher.stop(0.1)


def test_a_process_that_a_signal_ended_says_what_it_may_be():
    assert "a file that it had mapped was cut short" in process_module.signal_words(signal.SIGBUS)
    assert process_module.signal_words(signal.SIGTERM) == "signal SIGTERM"
    assert process_module.signal_words(signal.SIGRTMIN + 3) == f"signal {signal.SIGRTMIN + 3}"


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"processes": []}',
        '{"processes": {"a": 1}}',
        '{"processes": {"a": {"since_ms": "x"}}}',
        '{"troubles": 5}',
        '{"troubles": [{"count": 1}]}',
        '{"written_ms": "x"}',
        '{"stream": 1}',
        "\x00",
    ],
)
def test_a_state_that_no_launcher_wrote_says_nothing(text: str, tmp_path: Path):
    (tmp_path / "launcher.json").write_text(text)
    assert read_state(tmp_path) == {}
