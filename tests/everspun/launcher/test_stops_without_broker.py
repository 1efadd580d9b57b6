"""Every role ends when it is told to, or its launcher is gone, though there is no broker."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from everspun.launcher.launcher_pipe import LAUNCHER_PIPE
from stream.monitoring import TimeLimit

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

ROLES = ("labeler", "fraud", "learner", "checkpointer", "archiver")
CONFIG = """
[run]
dir = {dir}
[stream]
bootstrap_servers = "127.0.0.1:{port}"
hash_secret = "a secret of this test"
request_timeout_ms = 60_000
[checkpointer]
root = {root}
[labeler]
drain_ms = 500
[learners]
drain_ms = 500
"""

WAIT_S = 120.0


@pytest.mark.parametrize("how", ["told", "launcher gone"])
def test_roles_end_without_a_broker(how: str, tmp_path: Path):
    with socket.socket() as bound:  # bound and not listening: nobody answers there
        bound.bind(("127.0.0.1", 0))
        config = tmp_path / "everspun.toml"
        root = json.dumps(str(tmp_path / "checkpoints"))
        config.write_text(
            CONFIG.format(dir=json.dumps(str(tmp_path)), port=bound.getsockname()[1], root=root)
        )
        theirs, ours = os.pipe()
        processes = {role: start(role, config, theirs) for role in ROLES}
        try:
            limit = TimeLimit(WAIT_S)
            while not all((tmp_path / "roles" / f"{role}-0.lock").exists() for role in ROLES):
                assert not limit.over, "they do not come up"
                time.sleep(0.1)
            time.sleep(2)  # into what they wait for
            assert {role: process.poll() for role, process in processes.items()} == dict.fromkeys(
                ROLES
            )
            if how == "told":
                for process in processes.values():
                    process.send_signal(signal.SIGTERM)
            else:
                os.close(ours)
            limit = TimeLimit(WAIT_S)
            for role, process in processes.items():
                assert process.wait(limit.left_s) >= 0, role  # by itself
        finally:
            for process in processes.values():
                process.kill()
                process.wait()


def start(role: str, config: Path, pipe: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "everspun", "role", role, "--config", str(config)],
        env=os.environ | {LAUNCHER_PIPE: str(pipe)},
        pass_fds=(pipe,),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
