"""What a command says when it is done fits the terminal."""

from pathlib import Path

import pytest

from everspun.__main__ import main
from everspun.commands.data import clock, lost

CONFIG = '[stream]\nbootstrap_servers = "127.0.0.1:9"\n'


@pytest.mark.parametrize(
    "typed",
    ["clock back --by-ms 70000 --reason x", "lost impressions 0 0 5000000000 --force --reason x"],
)
def test_a_word_that_was_said_fits_the_terminal(
    typed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "x.toml").write_text(CONFIG)
    monkeypatch.setenv("COLUMNS", "60")
    for module in (clock, lost):
        monkeypatch.setattr(module, "say", lambda *_: [])
    monkeypatch.setattr(lost, "topic_id", lambda *_: "")
    assert main([*typed.split(), "-c", str(tmp_path / "x.toml")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) >= 2
    assert max(map(len, said)) <= 60
