"""The commands of docs/replay.md, "Replay your own log", typed as they stand there over real
processes."""

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

from everspun.__main__ import main
from everspun.launcher import Broker
from everspun.launcher.broker import why_not_kafka
from stream.monitoring import TimeLimit

PAGE = Path(__file__).parents[3] / "docs" / "replay.md"

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]


def test_the_page_replays_a_log(
    broker_of_kind: Callable[[str], Broker],
    topic_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    broker = broker_of_kind("kafka" if why_not_kafka() is None else "embedded")
    text = PAGE.read_text().partition("## Replay your own log")[2].partition("\n## ")[0]
    config = re.findall(r"```toml replay.toml\n(.*?)```", text, re.S)[0]
    config = config.replace("127.0.0.1:9092", broker.address)
    static = "false" if broker.kind == "embedded" else "true"
    config = config.replace(
        "[stream]\n", f'[stream]\ntopic_prefix = "{topic_prefix}"\nstatic_members = {static}\n'
    )
    (tmp_path / "replay.toml").write_text(config)
    typed = [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.S)
        for line in block.splitlines()
        if line.strip()
    ]
    assert [line.split()[1] for line in typed] == ["events", "topics", "run", "replay", "audit"]
    few = ["--impressions=3000", "--days=0.5", "--click-rate=0.2", "--no-attacks"]
    assert typed_here("everspun simulate traffic.jsonl", *few) == 0
    running = None
    try:
        for line in typed[:-1]:
            if line.endswith("&"):
                running = subprocess.Popen(
                    command(line.removesuffix("&")), cwd=tmp_path, env=environment()
                )
            elif line.split()[1] == "replay":
                assert replayed(line) == 0, line
            else:
                assert typed_here(line) == 0, line
        impressions = sum(
            json.loads(line)["event"] == "impression"
            for line in (tmp_path / "traffic.jsonl").open()
        )
        limit = TimeLimit(240)
        while not labelled(typed[-1], impressions, capsys):
            assert running is not None
            assert running.poll() is None
            assert not limit.over, "not all is labelled"
            time.sleep(1)
        assert replayed("everspun replay traffic.jsonl --config replay.toml") == 2, "a second time"
    finally:
        if running is not None:
            running.send_signal(signal.SIGTERM)
            running.wait(TimeLimit(60).left_s)


def labelled(line: str, impressions: int, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the audit is right and all are labelled."""
    capsys.readouterr()
    right = typed_here(line, "--json") == 0
    out = capsys.readouterr().out
    said = json.loads(out) if out else {}
    return right and (said["impressions"] or {}).get("labelled") == impressions


def typed_here(line: str, *more: str) -> int:
    """A command that ends by itself, in this process."""
    return main([*shlex.split(line)[1:], *more])


def replayed(line: str) -> int:
    """It listens to signals, so it has a process of its own."""
    return subprocess.run(command(line), env=environment(), timeout=240).returncode


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PAGE.parents[1])}


def command(line: str) -> list[str]:
    return [sys.executable, "-m", *shlex.split(line)]
