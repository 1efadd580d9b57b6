"""The commands of docs/replay.md, "Replay your own log", typed as they stand there over real processes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everspun.launcher.broker import Broker, why_not_kafka

PAGE = Path(__file__).parents[3] / "docs" / "replay.md"

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]


def test_the_page_replays_a_log(broker_of_kind: Callable[[str], Broker], topic_prefix: str, tmp_path: Path):
    broker = broker_of_kind("kafka" if why_not_kafka() is None else "embedded")
    text = PAGE.read_text().partition("## Replay your own log")[2].partition("\n## ")[0]
    config = re.findall(r"```toml replay.toml\n(.*?)```", text, re.S)[0]
    config = config.replace("127.0.0.1:9092", broker.address)
    static = "false" if broker.kind == "embedded" else "true"
    config = config.replace("[stream]\n", f'[stream]\ntopic_prefix = "{topic_prefix}"\nstatic_members = {static}\n')
    (tmp_path / "replay.toml").write_text(config)
    typed = [
        line for block in re.findall(r"```sh\n(.*?)```", text, re.S) for line in block.splitlines() if line.strip()
    ]
    assert [line.split()[1] for line in typed] == ["events", "topics", "run", "replay", "audit"]
    few = ["--impressions=3000", "--days=0.5", "--click-rate=0.2", "--no-attacks"]
    assert everspun(tmp_path, "everspun simulate traffic.jsonl", *few) == 0
    running = None
    try:
        for line in typed[:-1]:
            if line.endswith("&"):
                running = subprocess.Popen(command(line.removesuffix("&")), cwd=tmp_path, env=environment())
            else:
                assert everspun(tmp_path, line) == 0, line
        impressions = sum(json.loads(line)["event"] == "impression" for line in (tmp_path / "traffic.jsonl").open())
        end = time.monotonic() + 240
        while not labelled(tmp_path, typed[-1], impressions):
            assert running is not None
            assert running.poll() is None
            assert time.monotonic() < end, "not all is labelled"
            time.sleep(1)
        assert everspun(tmp_path, "everspun replay traffic.jsonl --config replay.toml") == 2, "a second time"
    finally:
        if running is not None:
            running.send_signal(signal.SIGTERM)
            running.wait(60)


def labelled(folder: Path, line: str, impressions: int) -> bool:
    """Whether the audit is right and all are labelled."""
    done = subprocess.run([*command(line), "--json"], cwd=folder, env=environment(), capture_output=True, text=True)
    said = json.loads(done.stdout) if done.stdout else {}
    return done.returncode == 0 and (said["impressions"] or {}).get("labelled") == impressions


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}


def command(line: str) -> list[str]:
    return [sys.executable, "-m", *shlex.split(line)]


def everspun(folder: Path, line: str, *more: str) -> int:
    return subprocess.run([*command(line), *more], cwd=folder, env=environment(), timeout=240).returncode
