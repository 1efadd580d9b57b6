"""What README tells somebody with a Kafka of their own to type is typed: in a shell, in the order
of the page, over a broker that `everspun broker` starts. Each row of its table of commands is typed
too, or this file says why not.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from everspun.launcher.broker import why_not_embedded
from stream.monitoring import TimeLimit

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(400)]
ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
WAIT_S = 120.0

#: By the first words of a row of the table: what is typed for it, before `-c everspun.toml`, or why
#: nothing is.
ROWS = {
    "everspun broker": "the broker of this test",
    "everspun run": "typed above the table",
    "everspun status": "typed above the table",
    "everspun audit": ["audit"],
    "everspun events check": ["events check clicks"],
    "everspun quarantine": ["quarantine list"],
    "everspun lost": "it needs input that is gone",
    "everspun clock": "it needs a clock that was ahead",
    "everspun forget": "it needs a secret",
    "everspun fraud": ["fraud list"],
    "everspun retrain": ["models list", "archive status"],
    "everspun checkpoints": ["checkpoints list"],
    "everspun staleness": ["staleness", "staleness 1"],
    "everspun shards": "it takes minutes",
    "everspun topics": ["topics check", "topics acls"],
    "everspun completion": "it takes no config; test_front_door.py",
    "everspun pause": ["pause", "resume"],
    "everspun replay": "its topics would be those of a replay",
    "everspun simulate": "it takes no config; test_simulate.py",
}
#: As Kafka's own tool does with these options.
CONSOLE_PRODUCER = """#!{python}
import sys
from kafka import KafkaProducer
typed = dict(zip(sys.argv[1::2], sys.argv[2::2]))
readers = [value for name, value in zip(sys.argv[1:], sys.argv[2:]) if name == "--reader-property"]
assert readers == ["parse.key=true", "key.separator=|"], readers
producer = KafkaProducer(bootstrap_servers=typed["--bootstrap-server"])
for line in sys.stdin.buffer:
    key, _, value = line.rstrip(b"\\n").partition(b"|")
    producer.send(typed["--topic"], value, key).get(timeout=30)
producer.close()
"""


def blocks() -> list[str]:
    """The code blocks of the section, in order."""
    section = README.partition("## Use it on your own Kafka")[2].partition("\n## ")[0]
    return re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def rows() -> list[str]:
    return re.findall(r"^\| `(everspun [^`]*)`", README, re.MULTILINE)


class Terminal:
    """A folder in which lines are typed, with `everspun` and Kafka's console producer on its
    path. Its broker is at `address`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.behind = folder, list[subprocess.Popen[bytes]]()
        tools = folder / "bin"
        tools.mkdir()
        for name, text in (
            ("everspun", f'#!/bin/sh\nexec {sys.executable} -m everspun "$@"\n'),
            ("kafka-console-producer.sh", CONSOLE_PRODUCER.format(python=sys.executable)),
        ):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        path = f"{tools}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"localhost:{free.getsockname()[1]}"

    def type(self, line: str) -> str:
        """What it prints. It must end well."""
        code, out = self.ends(line)
        assert code == 0, f"{line}: exit code {code}\n{out}"
        return out

    def ends(self, line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace("localhost:9092", self.address)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TimeLimit(WAIT_S).left_s,
        )
        assert "Traceback" not in done.stdout, done.stdout
        return done.returncode, done.stdout

    def leave(self, line: str) -> None:
        """Typed, and left to run until the end."""
        with (self.folder / f"left-{len(self.behind)}.log").open("wb") as out:
            self.behind.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {line}"],
                    cwd=self.folder,
                    env=self.environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            )

    def until(self, line: str, holds: str) -> str:
        """Typed again and again until what it prints has these words; what it printed then."""
        limit = TimeLimit(WAIT_S)
        while True:
            code, out = self.ends(line)
            if holds in out:
                return out
            for one in self.behind:
                assert one.poll() is None, self.said()
            assert not limit.over, f"{line}: {code}, {out}\n{self.said()}"

    def said(self) -> str:
        return "\n".join(path.read_text()[-2_000:] for path in self.folder.glob("left-*.log"))

    def close(self) -> None:
        for one in reversed(self.behind):
            one.send_signal(signal.SIGINT)
            try:
                one.wait(60)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    reason = why_not_embedded()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"broker: {reason}")
    one = Terminal(Path(tempfile.mkdtemp(prefix="everspun-")))  # a socket's path must be short
    yield one
    one.close()
    shutil.rmtree(one.folder, ignore_errors=True)


def edited(text: str, address: str) -> str:
    """`brokers`, as the page says; one process of each role, for this test's sake; and what a
    broker in memory has not got."""
    for before, after in (
        ("127.0.0.1:9092", address),
        ("shards = 2", "shards = 1"),
        ("learners = 2", "learners = 1"),
        ("[stream]", "[stream]\nstatic_members = false"),
    ):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def test_every_row_of_the_table_is_typed_or_not_for_a_reason():
    first_words = [name for row in rows() for name in ROWS if f"{row} ".startswith(f"{name} ")]
    assert len(rows()) == len(first_words)
    assert set(first_words) == set(ROWS)


def test_use_it_on_your_own_kafka(terminal: Terminal):
    commands, console = blocks()
    config, create, run, status = (line.partition("  #")[0] for line in commands.splitlines())
    port = terminal.address.rpartition(":")[2]
    terminal.leave(f"everspun broker --kind embedded --port {port}")
    terminal.type(config)
    path = terminal.folder / "everspun.toml"
    path.write_text(edited(path.read_text(), terminal.address))
    terminal.until(create, "topics are as they must be")
    terminal.leave(run)
    terminal.type(console)
    checked = terminal.type("everspun events check impressions -c everspun.toml")
    assert "1 good events, 0 bad records" in checked
    terminal.until(f"{status} && echo all is well", "all is well")
    assert json.loads(terminal.type(f"{status} --json"))
    for line in [line for typed in ROWS.values() if isinstance(typed, list) for line in typed]:
        terminal.type(f"everspun {line} -c everspun.toml")
