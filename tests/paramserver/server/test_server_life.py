"""Servers that die, come back and end: incarnations, fences, the role they write."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from served_shard import SPEC, W, a_push

from paramserver.config import ParamServerConfig
from paramserver.messages import (
    Epoch,
    Outcome,
    StartOutcome,
    StartRequest,
)
from paramserver.ports import PortUnreachable
from paramserver.process import run
from paramserver.server.state_dir import StateDir, StateInUse
from paramserver.wire import connect
from stream.monitoring import TimeLimit

PROCESS = """
    import sys
    from everspun.roles.stop_signals import stop_on_signals
    from paramserver.config import ParamServerConfig
    from paramserver.process.process import run
    from paramserver.server.state_dir import StateDir
    index, run_dir = int(sys.argv[1]), sys.argv[2]
    state = StateDir(run_dir, index)
    config = ParamServerConfig(staleness=0, allow_ms=20, lease_ms=60_000)
    run(config, 2, index, state.next_incarnation(), run_dir, stop_on_signals())
"""


def spawn(index: int, run_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROCESS), str(index), str(run_dir)]
    )


def eventually(ask, seconds: float = 30.0):
    """The first answer that is not None; Unreachable counts as none."""
    limit = TimeLimit(seconds)
    while not limit.over:
        try:
            answer = ask()
        except PortUnreachable:
            answer = None
        if answer is not None:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"nothing within {seconds} s")


@pytest.mark.processes
def test_killed_processes_come_back_as_new_incarnations(tmp_path: Path):
    """kill -9 of the other shard, then of the clock holder: what a learner must see, it sees."""
    processes = [spawn(n, tmp_path) for n in range(2)]
    config = ParamServerConfig(staleness=0, allow_ms=20)
    shards, clock = connect(config, str(tmp_path), 2)
    try:
        for shard in shards.values():
            eventually(lambda shard=shard: shard.begin(SPEC, {"c": 0}, W))
        epoch = clock.join("m", "a").epoch

        def started(at: int, epoch: Epoch):
            reply = clock.start(StartRequest("m", epoch, "c", at, at + 1))
            return None if reply.outcome is StartOutcome.WAIT_STALENESS else reply

        assert eventually(lambda: started(0, epoch)).outcome is StartOutcome.ADMITTED
        push = a_push(0, epoch=epoch, keys={}, gradients={}, dense={})
        assert shards[1].push(push).outcome is Outcome.APPLIED

        processes[1].send_signal(signal.SIGKILL)
        processes[1].wait()
        with pytest.raises(PortUnreachable):
            shards[1].push(push)
        processes[1] = spawn(1, tmp_path)
        assert eventually(lambda: shards[1].progress("m")).incarnation == 2
        assert shards[1].progress("m").progress is None
        eventually(lambda: (clock.renew("m", epoch, "computing") or {}).get(1) == 2 or None)
        shards[1].begin(SPEC, {"c": 0}, W)
        assert shards[1].push(push).outcome is Outcome.WRONG_INCARNATION
        eventually(
            lambda: shards[1].push(replace(push, incarnation=2)).outcome is Outcome.APPLIED or None
        )

        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        processes[0] = spawn(0, tmp_path)
        eventually(lambda: clock.renew("m", epoch, "computing") is None or None)
        later = clock.join("m", "a").epoch
        assert later == Epoch(2, 1)
        assert eventually(lambda: started(1, later)).outcome is StartOutcome.ADMITTED
        stale = replace(push, incarnation=2, start=1, end=2)
        assert shards[1].push(stale).outcome is Outcome.FENCED
        assert shards[1].push(replace(stale, epoch=later)).outcome is Outcome.APPLIED
    finally:
        for process in processes:
            process.terminate()
        for client in (*shards.values(), clock):
            client.close()
        assert [process.wait(timeout=20) for process in processes] == [0, 0]


@pytest.mark.long
def test_a_silent_learner_is_fenced_on_every_shard(tmp_path: Path):
    config = ParamServerConfig(lease_ms=300, stated_max_ms=300, allow_ms=20)
    stop = threading.Event()
    threads = [
        threading.Thread(target=run, args=(config, 2, n, 1, str(tmp_path), stop)) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    shards, clock = connect(config, str(tmp_path), 2)
    try:
        for shard in shards.values():
            eventually(lambda shard=shard: shard.begin(SPEC, {"c": 0}, W))
        epoch = eventually(lambda: clock.join("m", "a")).epoch
        push = a_push(0, epoch=epoch, keys={}, gradients={}, dense={})

        def fenced_everywhere() -> bool | None:
            return (
                all(shard.push(push).outcome is Outcome.FENCED for shard in shards.values()) or None
            )

        started = StartRequest("m", epoch, "c", 0, 1)
        eventually(lambda: clock.start(started).outcome is StartOutcome.ADMITTED or None)
        assert shards[1].push(push).outcome is Outcome.APPLIED
        eventually(fenced_everywhere)
        assert clock.renew("m", epoch, "computing") is None
        assert not clock.ended("m", epoch, 0)
    finally:
        stop.set()
        for client in (*shards.values(), clock):
            client.close()
        for thread in threads:
            thread.join(timeout=10)


@pytest.mark.long
def test_a_service_writes_its_role_and_stops(tmp_path: Path):
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(ParamServerConfig(), 1, 0, 4, str(tmp_path), stop))
    thread.start()
    role = tmp_path / "roles" / "shard-0.json"
    eventually(lambda: role.exists() or None)
    assert f'"pid": {os.getpid()}' in role.read_text()
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_incarnations_only_grow_and_one_process_holds_them(tmp_path: Path):
    state = StateDir(str(tmp_path), 0)
    assert [state.next_incarnation() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(StateInUse, match="shard 0"):
        StateDir(str(tmp_path), 0)
    StateDir(str(tmp_path), 1).close()
    state.close()
    again = StateDir(str(tmp_path), 0)
    assert again.next_incarnation() == 4
    (again.path / "incarnation").write_text("")
    with pytest.raises(ValueError, match="no number"):
        again.next_incarnation()
    again.close()
