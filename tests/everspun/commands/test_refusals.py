"""What is refused is told on standard error, in the answer of JSON, and by the exit code."""

import json
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import everspun.commands
from checkpointer.process import operator_actions
from checkpointer.store import Announcement
from everspun.__main__ import main
from everspun.commands.data import trace
from everspun.commands.mistakes import told
from everspun.launcher import BrokerError, start_broker
from everspun.trace import EventTrace
from everspun.trace.journey import Step

#: Nobody listens there.
NOBODY = "127.0.0.1:9"


def test_what_goes_to_standard_error_stands_in_the_answer_of_json_too():
    """So commands write there by `everspun.commands.mistakes` alone."""
    commands = Path(everspun.commands.__file__).parent
    users = {path.name for path in commands.rglob("*.py") if "stderr" in path.read_text()}
    assert users == {"mistakes.py"}


def test_a_trace_that_no_collector_took_is_not_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "x.toml"
    config.write_text("")
    found = EventTrace("label/0", 5, (Step("window", "labeler", 0, 1_000),))
    monkeypatch.setattr(trace, "traced", lambda *_: found)
    monkeypatch.setattr(trace, "SEND_S", 0.2)
    typed = ["trace", "0", "5", "-c", str(config), "--otlp"]
    for url in (f"http://{NOBODY}/v1/traces", "x"):
        assert main([*typed, url]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"everspun trace: not sent to {url}: ")
        assert said.count("\n") == 1
        assert main([*typed, url, "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert "not sent to" in answer["error"]
        assert answer["data"][0]["chain"] == "label/0"


def test_a_trace_that_a_collector_took_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "x.toml"
    config.write_text("")
    found = EventTrace("label/0", 5, (Step("window", "labeler", 0, 1_000),))
    monkeypatch.setattr(trace, "traced", lambda *_: found)
    monkeypatch.setattr("everspun.trace.send", lambda *_: 1)
    typed = ["trace", "0", "5", "-c", str(config), "--json"]
    answers = []
    for more in ([], ["--otlp", f"http://{NOBODY}/v1/traces"]):
        assert main([*typed, *more]) == 0
        answers.append(capsys.readouterr())
    assert answers[0].out == answers[1].out
    assert "1 spans sent to" in answers[1].err


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a broker that takes connections, and never answers."""
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        broker.listen(64)
        yield f"127.0.0.1:{broker.getsockname()[1]}"


@pytest.mark.parametrize("typed", ["topics check", "fraud list", "fraud ban u1", "run --quiet"])
def test_a_broker_that_hangs_is_a_line(
    typed: str, hanging: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """By each way in: the administrator's, a reader's, a writer's, a run's."""
    config = tmp_path / "x.toml"
    config.write_text(
        f'[run]\ndir = "{tmp_path}/run"\n[checkpointer]\nroot = "{tmp_path}/checkpoints"\n'
        f'[stream]\nbootstrap_servers = "{hanging}"\nrequest_timeout_ms = 200\n'
    )
    assert main([*typed.split(), "-c", str(config)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1), said
    assert hanging in said.err
    assert not (tmp_path / "run" / "logs").exists()


@pytest.mark.parametrize(
    ("typed", "stands"),
    [("restore 7", "c-7 is held in the store"), ("restore --lift", "lifted in the store")],
)
def test_a_hold_that_could_not_be_announced_is_said_to_be_in_force(
    typed: str,
    stands: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    config = tmp_path / "x.toml"
    config.write_text(
        f'[checkpointer]\nroot = "{tmp_path}/checkpoints"\n'
        f'[stream]\nbootstrap_servers = "{NOBODY}"\nrequest_timeout_ms = 200\n'
    )
    held = Announcement("rolled_back", "clicks", 7, "c-7", "", "", revision=1)
    for action in ("restore", "lift"):
        monkeypatch.setattr(operator_actions, action, lambda *_: held)
    assert main(["checkpoints", *typed.split(), "-c", str(config)]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1), said
    assert f"{stands}: replicas see it within serving.poll_ms = " in said.err
    assert "; not announced: " in said.err


def test_without_a_home_what_needs_one_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As in a container whose user nobody has entered."""

    def nobody(_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(RuntimeError) as raised:
        Path("~/x").expanduser()
    assert "set HOME" in (told(raised.value) or "")
    monkeypatch.setattr("everspun.launcher.broker.shutil.which", lambda name: f"/bin/{name}")
    with pytest.raises(BrokerError, match="set it, or XDG_CACHE_HOME"):
        start_broker("kafka", tmp_path / "broker")
    assert not Path("~").exists()


#: A command with "" in the place of a variable that is not set, and what is said.
UNSET = {
    ("fraud", "ban", ""): "nothing was decided: the name is empty, which is everybody",
    ("fraud", "allow", ""): "nothing was decided: the name is empty, which is everybody",
    ("replay", "", "--set", "stream.replayed=true"): "source '': expected a file, 'movielens'",
}


@pytest.mark.parametrize("typed", UNSET)
def test_a_variable_that_is_not_set_means_nothing(
    typed: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = tmp_path / "x.toml"
    config.write_text("")
    assert main([*typed, "-c", str(config)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert UNSET[typed] in said.err


def refusal(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit code, what was said on standard error)."""
    return main(command), capsys.readouterr().err


def test_a_port_that_a_broker_cannot_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, text = refusal(["broker", "--port", port, "--dir", str(tmp_path / "b")], capsys)
    assert code == 2
    assert f"port {port} of 127.0.0.1 is in use" in text
    for port in ("99999", "-1"):
        code, text = refusal(["broker", "--port", port, "--dir", str(tmp_path / "b")], capsys)
        assert (code, f"port {port}: allowed is 1 to 65535" in text) == (2, True)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "bind", refused)
        code, text = refusal(["broker", "--port", "80", "--dir", str(tmp_path / "b")], capsys)
    assert (code, "port 80 of 127.0.0.1 may not be listened at" in text) == (2, True)
    (tmp_path / "file").write_text("")
    assert (
        "give another one with --dir"
        in refusal(["broker", "--dir", str(tmp_path / "file/b")], capsys)[1]
    )


def test_an_index_that_is_no_number(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["role", "labeler", "--index", "x"])
    assert "'x': a whole number is meant, or 'auto'" in capsys.readouterr().err


def test_text_without_quotes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "x.toml").write_text("")
    typed = ["status", "-c", str(tmp_path / "x.toml"), "--set", "checkpointer.begin=2026-11-01"]
    assert main(typed) == 2
    assert "expected str, got date; text stands in quotes" in capsys.readouterr().err
