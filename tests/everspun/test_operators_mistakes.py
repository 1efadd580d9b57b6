"""What people do wrong at the command line is told in a line, with exit code 2 or 1, and never
as a traceback."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from everspun.__main__ import COMMANDS, main
from everspun.commands.answer import GO_ON
from everspun.commands.mistakes import report, unreadable_argument
from everspun.config import ConfigError, load
from everspun.launcher import AlreadyLocked, BrokerError, lock_file, start_broker, unlock
from everspun.local_run import MARKER, LocalRun, NotOurs

#: A port of loopback at which nobody listens.
NOBODY = "127.0.0.1:9"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(
        f'[run]\ndir = "{tmp_path}/run"\n[checkpointer]\nroot = "{tmp_path}/checkpoints"\n'
        f'[archive]\nroot = "{tmp_path}/archive"\n'
        f'[stream]\nbootstrap_servers = "{NOBODY}"\nrequest_timeout_ms = 300\n'
    )
    return path


def said(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit code, all that was printed); a traceback anywhere fails."""
    try:
        code = main(command)
    except SystemExit as end:  # argparse's
        code = int(end.code or 0)
    captured = capsys.readouterr()
    assert code != 2 or captured.err.startswith("everspun"), captured
    assert code != 2 or not captured.out or command[0] in GO_ON, captured
    text = captured.out + captured.err
    assert "Traceback" not in text
    assert "a fault of ours" not in text
    return code, text


#: Commands that read or write the cluster, the shards, or a run, as somebody types them when
#: nothing runs.
AWAY = {
    "topics create": "127.0.0.1:9",
    "topics check": "127.0.0.1:9",
    "fraud list": "127.0.0.1:9",
    "fraud show u1": "127.0.0.1:9",
    "fraud allow u1": "no broker at 127.0.0.1:9: ",
    "fraud ban u1": "is the broker of [stream] bootstrap_servers running",
    "breaker list": "127.0.0.1:9",
    "quarantine list": "127.0.0.1:9",
    "trace 0 5": "127.0.0.1:9",
    "trace 99 5": "partition 99: impressions has 0 to",
    "trace 0 5 --row -1": "--row -1: allowed is 0 to",
    "quarantine add impressions 0 5": "127.0.0.1:9",
    "clock back --by-ms 70000 --reason ahead": "127.0.0.1:9",
    "pause": "nothing was changed",
    "resume": "nothing was changed",
    "staleness": "no answer",
    "staleness 3": "not changed",
    "shards scale 3 --wait-s 0": "nothing was changed",
    "learners scale 2 --wait-s 0.1": "nothing was changed",
    "checkpoints show 7": "",
    "checkpoints restore 7": "",
    "predict {}": "no checkpoint is published yet",
    "predict nan": "row 'nan' is no JSON (Expecting value",
    "inspect item=i42": "no complete checkpoint yet",
    "checkpoints restore": "restore which?",
    "checkpoints restore --lift": "nothing is held",
    "run": "127.0.0.1:9",
    "events check impressions": "127.0.0.1:9",
}


@pytest.mark.parametrize("command", AWAY)
def test_nothing_that_runs_is_a_line(
    command: str, config: Path, capsys: pytest.CaptureFixture[str]
):
    code, text = said([*command.split(), "-c", str(config)], capsys)
    assert code == 2, text
    assert AWAY[command] in text
    assert 1 <= len(text.strip().splitlines()) <= 3, text


#: What stands in a configuration file, and what is said of it.
CONFIGS: dict[str, tuple[bytes, str]] = {
    "UTF-16": ("[run]\nshards = 1\n".encode("utf-16"), "UTF-16, as PowerShell's > writes it"),
    "Latin-1": (b'[run]\n[model]\nname = "caf\xe9"\n', "byte 0xe9 in line 3 is not UTF-8"),
    "no TOML": (b"shards: 2\n", "line 1"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "NUL": (b"[run]\nshards = 1\x00\n", "line 2"),
    "unknown key": (b"[run]\nshard = 1\n", "did you mean 'shards'"),
    "wrong type": (b'[run]\nshards = "two"\n', "run.shards = 'two': expected int"),
    "short window": (b"[stream]\nwindow_ms = 30_000\n", "fraud.cell_ms + fraud.settle_ms"),
    "NaN": (b"[limits]\nmodel_age_max_s = nan\n", "model_age_max_s = nan: expected a finite"),
    "infinite": (b"[run]\nrestart_wait_max_s = inf\n", "restart_wait_max_s = inf"),
    "no 64 bits": (b"[stream]\nwindow_ms = " + b"9" * 30, "stream.window_ms = 999"),
    "no float": (b"[limits]\ncalibration_band = 1" + b"0" * 400, "limits.calibration_band = 1"),
    "a million shards": (b"[run]\nshards = 1_000_000\n", "shards = 1000000: at most"),
    "no run folder": (b'[run]\ndir = ""\n', "dir = '': name a folder"),
    "a model outside": (b'[model]\nname = "../x"\n', "model.name = '../x': it names a folder"),
    "a topic of no name": (b'[stream]\ntopic_prefix = "a b"\n', "topic_prefix = 'a b'"),
    "no brokers": (b'[stream]\nbootstrap_servers = ""\n', "expected host:port"),
    "no port": (b'[stream]\nbootstrap_servers = "a:99999"\n', "'a:99999' is no address"),
    "a NUL within": (b'[run]\ndir = "a\\u0000"\n', "run.dir = 'a\\x00': it holds a NUL"),
    "long": (b'[stream]\nlabel_strategy = "' + b"x" * 9_000 + b'"\n', "label_strategy"),
    "no table": (b"run = 5\n", "[run] must be a table"),
    "deep": (b"run = " + b"[" * 5_000, ""),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "command", ["run", "status", "role shard", "topics check", "pause", "checkpoints list"]
)
def test_a_config_that_cannot_be_read(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.toml"
    path.write_bytes(CONFIGS[name][0])
    code, text = said([*command.split(), "-c", str(path)], capsys)
    assert code == 2
    assert text.startswith("everspun: config: ")
    assert CONFIGS[name][1] in text
    assert text.count("\n") == 1
    assert len(text) < 1_200


def test_a_config_path_that_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path, words in (
        (tmp_path, "a folder"),
        (tmp_path / "none", "no such file"),
        (tmp_path / ("x" * 300), ""),
    ):
        code, text = said(["status", "-c", str(path)], capsys)
        assert (code, text.count("\n")) == (2, 1)
        assert words in text
    bom = tmp_path / "100%.toml"
    bom.write_bytes(b"\xef\xbb\xbf[run]\r\nshards = 1\r\n")
    assert load(bom).run.shards == 1


@pytest.mark.parametrize(
    "command",
    [["fraud", "ban"], ["fraud", "show"], ["checkpoints", "show"], ["breaker", "release"]],
)
def test_arguments_that_are_not_utf8(
    command: list[str], config: Path, capsys: pytest.CaptureFixture[str]
):
    code, text = said([*command, "caf\udce9", "-c", str(config)], capsys)
    assert code == 2
    assert "b'caf\\xe9' is not UTF-8" in text


def test_a_file_whose_name_is_not_utf8_is_a_file(tmp_path: Path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    assert "is not UTF-8" in unreadable_argument([path])
    Path(path).write_text("")
    assert unreadable_argument([path]) == ""


def test_a_fault_of_ours_says_where_its_traceback_is(capsys: pytest.CaptureFixture[str]):
    assert report("audit", KeyError("x")) == 70
    text = capsys.readouterr().err
    assert "a fault of ours, please report it: KeyError('x'); its traceback is in " in text
    path = Path(text.strip().rpartition(" ")[2])
    assert "KeyError" in path.read_text()
    path.unlink()


def test_a_role_that_keeps_failing_leaves_its_tracebacks_in_its_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(3):
        assert report("role", KeyError("x")) == 70
    assert capsys.readouterr().err.count("KeyError: 'x'\neverspun role: a fault of ours") == 3
    assert not list(tmp_path.iterdir())


# --- two of one kind
# ----------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from everspun.launcher.locks import lock_file
lock_file(Path(sys.argv[1]), "x")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def held_elsewhere() -> Callable[[Path], int]:
    running: list[subprocess.Popen[str]] = []

    def hold(path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        one = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
        )
        running.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == "held\n"
        return one.pid

    yield hold
    for one in running:
        one.kill()
        one.wait()


@pytest.mark.processes
def test_a_second_one_of_anything_is_refused_and_names_the_first(
    tmp_path: Path,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    held_elsewhere: Callable[[Path], int],
):
    pid = held_elsewhere(tmp_path / "run/roles/replica-0.lock")
    code, text = said_of_role(["role", "replica", "-c", str(config)])
    assert code == 2
    assert f"replica-0 of {tmp_path}/run is in use by process {pid}" in text
    pid = held_elsewhere(tmp_path / "broker/broker.lock")
    with pytest.raises(
        BrokerError, match=f"is in use by process {pid}; give another one with --dir"
    ):
        start_broker("embedded", tmp_path / "broker")
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / MARKER).write_text("")
    (demo / "kept").write_text("")
    held_elsewhere(demo / "launcher.lock")
    with pytest.raises(AlreadyLocked):
        LocalRun.begin(demo, "", NOBODY)
    assert (demo / "kept").exists()


def said_of_role(command: list[str]) -> tuple[int, str]:
    """A role's process: it takes over the signals of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "everspun", *command], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.processes
def test_a_lock_ends_with_its_process(tmp_path: Path, held_elsewhere: Callable[[Path], int]):
    path = tmp_path / "x.lock"
    pid = held_elsewhere(path)
    with pytest.raises(AlreadyLocked):
        lock_file(path, "x")
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    unlock(lock_file(path, "x"))


@pytest.mark.parametrize("what", ["work", "file", "link", "marked folder of another name"])
def test_demo_empties_nothing_but_a_demo(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
):
    place, work = tmp_path / "place", tmp_path / "work"
    work.mkdir()
    (work / "thesis.tex").write_text("years")
    if what == "work":
        place = work
    elif what == "file":
        place.write_text("")
    elif what == "link":
        (work / MARKER).write_text("")
        place.symlink_to(work)
    else:
        (work / MARKER).mkdir()
        place = work
    with pytest.raises(NotOurs):
        LocalRun.begin(place, "", NOBODY)
    code, text = said(["demo", "--dir", str(place), "--broker", NOBODY], capsys)
    assert code == 2
    assert "nothing was removed" in text
    assert (work / "thesis.tex").read_text() == "years"


def test_every_command_is_in_some_table_of_mistakes():
    """Those that nobody here types wrongly are tried beside their own tests."""
    tried = {command.split()[0] for command in AWAY} | {
        "status",
        "role",
        "broker",
        "demo",
        "checkpoints",
        "config",
        "completion",  # takes nothing, and reads nothing
    }
    elsewhere = {"audit", "replay", "retrain", "models", "archive", "simulate", "forget", "lost"}
    assert set(COMMANDS) - tried - elsewhere == set()


def test_a_bad_override_is_named(config: Path, capsys: pytest.CaptureFixture[str]):
    for override in (
        "run.shards=0",
        "shards=1",
        "run.shards",
        "run.shards=x",
        "none.x=1",
        "run.shards.x=1",
        "stream.partitions.x=1",
        "run.dir.a.b=1",
        "run.shards=1\n[run]",
        "run.shards=nan",
        "limits.model_age_max_s=nan",
    ):
        code, text = said(["status", "-c", str(config), "--set", override], capsys)
        assert code == 2, override
        assert text.startswith("everspun: config: "), text
    with pytest.raises(ConfigError):
        load(config, ["run.shards.deep.er=1"])


def test_every_command_takes_json_and_answers_with_one_object(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
):
    """Also where it fails, or is typed wrongly."""
    mistyped = ["fraud lst", "learners scale 1e9", "status --jsn", "nonsense", "events check"]
    for command in [*AWAY, *mistyped, "archive list", "checkpoints list", "config", "completion"]:
        if command in ("run", "predict {}"):
            continue
        of_config = [] if command in ("config", "completion") else ["-c", str(config)]
        try:
            code = main([*command.split(), *of_config, "--json"])
        except SystemExit as end:
            code = int(end.code or 0)
        out = capsys.readouterr().out
        assert isinstance(said := json.loads(out), dict), command
        assert said["exit_code"] == code, command
        assert said.get("error") or said["said"] or said["tables"], command


@pytest.mark.parametrize(
    "typed",
    [
        "learners scale 2 --wait-s nan",
        "shards scale 2 --wait-s inf",
        "fraud ban u --hours 1e300",
        "fraud list --limit -1",
        "breaker release everything --to-ms 99999999999999999999",
        "breaker withhold everything --from-ms 999999999999999999",
        "trace 0 99999999999999999999",
        "lost impressions 0 0 99999999999999999999 --reason x",
        "staleness 1e3",
    ],
)
def test_a_number_that_cannot_be_meant_is_a_line(
    typed: str, config: Path, capsys: pytest.CaptureFixture[str]
):
    code, text = said([*typed.split(), "-c", str(config)], capsys)
    assert code == 2
    assert text.count("\n") == 1
    assert "--help" in text


def test_events_are_checked_by_the_config_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    events = tmp_path / "e.jsonl"
    events.write_text("{}")
    code, text = said(["events", "check", str(events), "-c", str(tmp_path / "no.toml")], capsys)
    assert (code, "no such file" in text) == (2, True)


SIGNALS_AND_PIPES = {
    "closed": "{python} -m everspun checkpoints list -c {config} >&-",
    "full": "{python} -m everspun checkpoints list -c {config} > /dev/full",
    "nobody reads": "{python} -m everspun config --markdown | true",
    "no standard error": "{python} -m everspun status -c {config}.none 2>&-",
}


@pytest.mark.parametrize("name", SIGNALS_AND_PIPES)
def test_output_that_goes_nowhere_is_no_traceback(name: str, config: Path):
    command = SIGNALS_AND_PIPES[name].format(python=sys.executable, config=config)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
    assert "a fault of ours" not in done.stderr


@pytest.mark.parametrize("who", ["", "shop", "User:", "User:{rol}", ":{role}"])
def test_principals_that_are_nobody(who: str, config: Path, capsys: pytest.CaptureFixture[str]):
    code, text = said(["topics", "acls", "-c", str(config), "--principals", who], capsys)
    assert code == 2
    assert f"--principals {who!r}: expected KIND:NAME such as User:" in text


def test_no_text_leaves_its_quotes_in_commands_of_kafka(
    config: Path, capsys: pytest.CaptureFixture[str]
):
    who = "User:CN=O'Brien;{role}"
    code, text = said(["topics", "acls", "-c", str(config), "--principals", who], capsys)
    assert code == 0
    assert all(
        any("O'Brien" in word for word in shlex.split(line)) for line in text.splitlines() if line
    )
