"""A configuration that comes through a pipe can be read once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everspun.config import loads
from everspun.launcher import Broker
from everspun.launcher.config_watch import ConfigWatch
from everspun.launcher.launcher import Launcher
from stream.log import create_topics
from stream.monitoring import TimeLimit


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.timeout(180)
def test_roles_start_with_what_came_through_a_pipe(
    broker_of_kind: Callable[[str], Broker], topic_prefix: str, tmp_path: Path
):
    text = (
        f'[run]\ndir = "{tmp_path}/run"\nshards = 1\n[checkpointer]\nroot = "{tmp_path}/ck"\n'
        f'[stream]\nbootstrap_servers = "{broker_of_kind("embedded").address}"\n'
        f'topic_prefix = "{topic_prefix}"\n'
    )
    create_topics(loads(text).stream)
    begin, end = os.pipe()
    os.write(end, text.encode())
    os.close(end)
    command = [sys.executable, "-m", "everspun", "run", "--quiet", "--roles", "shard"]
    running = subprocess.Popen([*command, "-c", f"/dev/fd/{begin}"], pass_fds=(begin,))
    os.close(begin)
    try:
        limit = TimeLimit(40.0)
        while not (tmp_path / "run/roles/shard-0.json").exists():
            assert running.poll() is None
            assert not limit.over, (tmp_path / "run/logs/shard-0.log").read_text()
            time.sleep(0.1)
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


@pytest.mark.timeout(20)
def test_nobody_waits_for_a_second_writer_of_a_pipe(tmp_path: Path):
    path = tmp_path / "x.toml"
    os.mkfifo(path)
    config = loads(f'[run]\ndir = "{tmp_path}/run"\n')
    ConfigWatch(Launcher(path, config.run, in_force="")).look()
