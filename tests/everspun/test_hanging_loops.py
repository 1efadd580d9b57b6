"""A process with a loop that hangs says so, writes down what it does, and is ended and begun again;
one whose broker, shards and store are away lives."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everspun.config import load
from everspun.launcher import Launcher, role_files
from everspun.launcher import launcher as launching
from everspun.launcher.hangs import ask_live
from stream.monitoring import TimeLimit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

TURN_MAX_S, WAIT_S = 8.0, 120.0
CONFIG = """
[run]
dir = {dir}
labelers = 4
learners = 2
turn_max_s = {turn_max_s}
[stream]
bootstrap_servers = "127.0.0.1:{port}"
hash_secret = "a secret of this test"
request_timeout_ms = 500
[checkpointer]
root = {root}
"""
#: Runs in each process as it begins: where a file of the process's name says so, a method hangs
#: from then on, in every call, once in all processes of that name.
HOOK = """
import os, sys, threading, time

def hang(*_, **__):
    time.sleep(1_000_000)

def wait():
    at, words = os.environ["TEST_HANGS"], sys.orig_argv
    name = words[words.index("role") + 1] + "-" + words[words.index("--index") + 1]
    while True:
        time.sleep(0.05)
        try:
            module, cls, method = open(f"{at}/{name}").read().split()
        except (OSError, ValueError):
            continue
        if module in sys.modules and hasattr(sys.modules[module], cls):
            os.unlink(f"{at}/{name}")
            setattr(getattr(sys.modules[module], cls), method, hang)
            return

if "role" in sys.orig_argv:
    threading.Thread(target=wait, daemon=True).start()
"""
#: process -> what hangs in it, and the loop that says so
HANGS = {
    "labeler-0": ("labeler.labels.runner Labelling run_once", "label"),
    "labeler-1": ("labeler.retraction.runner Retracting run_once", "retract"),
    "labeler-2": ("labeler.counting.runner Head run_once", "head"),
    "learner-0": ("learners.pacing.pacer Pacer handle", "learn"),
    "checkpointer-0": ("checkpointer.cuts.driver Driver step", "cuts"),
}
LIVES = ("labeler-3", "learner-1")


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    hook, hangs = tmp_path / "hook", tmp_path / "hangs"
    hook.mkdir()
    hangs.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK)
    paths = [str(hook), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("TEST_HANGS", str(hangs))
    monkeypatch.setattr(launching, "HANG_LOOK_S", 1.5)
    with socket.socket() as bound:  # bound and not listening: nobody answers there
        bound.bind(("127.0.0.1", 0))
        path = tmp_path / "everspun.toml"
        path.write_text(
            CONFIG.format(
                dir=json.dumps(str(tmp_path / "run")),
                root=json.dumps(str(tmp_path / "checkpoints")),
                port=bound.getsockname()[1],
                turn_max_s=TURN_MAX_S,
            )
        )
        launcher = Launcher(path, load(path).run)
        launcher.start(("labeler", "learner", "checkpointer"))
        yield launcher
        launcher.stop(0.1)


def until(what: Callable[[], bool], why: str) -> None:
    limit = TimeLimit(WAIT_S)
    while not what():
        assert not limit.over, why
        time.sleep(0.1)


def test_who_hangs_begins_again_and_who_waits_for_others_lives(launcher: Launcher, tmp_path: Path):
    names = {*HANGS, *LIVES}
    until(lambda: set(role_files(launcher.dir)) == names, "they do not come up")
    for name, (target, _) in HANGS.items():
        (tmp_path / "hangs" / f"{name}.new").write_text(target)
        (tmp_path / "hangs" / f"{name}.new").rename(tmp_path / "hangs" / name)
    said: dict[str, str] = {}

    def listen() -> bool:
        for name, file in role_files(launcher.dir).items():
            if why := ask_live("127.0.0.1", file.get("metrics_port", 0)):
                said[name] = why
        return all(launcher.processes[name].restarts for name in HANGS)

    until(listen, "who hangs is not ended")
    for name, (_, loop) in HANGS.items():
        process = launcher.processes[name]
        assert said[name].startswith(f"loop {loop} has not turned for"), name
        assert process.reason.startswith(f"it hung, and was ended: loop {loop} has not"), name
        log = (launcher.dir / "logs" / f"{name}.log").read_text(errors="replace")
        assert " in hang\n" in log, f"{name}: its log says where it hung"
    for name in LIVES:
        assert launcher.processes[name].restarts == 0, said.get(name)
    assert set(said) == set(HANGS)
