"""The outage bench's own judgement, and the faults that need no pipeline."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.failures import outages_faults
from bench.failures.outages import COMMAND, Outcome, filled, silences
from bench.failures.outages_faults import (
    FAULTS,
    ClockTwoDaysAhead,
    PointerEmpty,
    StoreAway,
    wrong_clock,
)


def local(folder: Path) -> SimpleNamespace:
    root = folder / "checkpoints"
    (root / "coverage").mkdir(parents=True)
    (root / "coverage" / "published.json").write_text("{}")
    return SimpleNamespace(
        config=SimpleNamespace(
            checkpointer=SimpleNamespace(root=str(root)),
            model=SimpleNamespace(name="coverage"),
            run=SimpleNamespace(),
        )
    )


def test_a_fault_that_nobody_names_is_silent_unless_it_heals_itself_or_was_not_made():
    assert Outcome("x").silent
    assert not Outcome("x", seconds_to_named=3.0).silent
    assert not Outcome("x", heals_itself=True).silent
    assert not Outcome("x", skipped="needs root").silent


def test_every_fault_has_a_name_of_its_own(tmp_path: Path):
    names = [kind(local(tmp_path / str(n))).name for n, kind in enumerate(FAULTS)]
    assert len(set(names)) == len(names)
    assert "store away" in names


def test_the_command_of_a_line_of_status_is_found():
    line = 'impressions[0] stopped: gone; to go on: everspun lost impressions 0 0 23 --reason "..."'
    (found,) = COMMAND.findall(line)
    assert found == 'everspun lost impressions 0 0 23 --reason "..."'
    assert filled(found) == ["lost", "impressions", "0", "0", "23", "--reason", "bench"]
    assert filled("everspun lost clicks 1 2 3") == [
        "lost",
        "clicks",
        "1",
        "2",
        "3",
        "--reason",
        "bench",
    ]


def test_a_fault_is_silent_too_where_no_alert_fires():
    assert Outcome("x", seconds_to_named=3.0, alerts_watched=True).silent
    assert not Outcome("x", seconds_to_named=3.0, alerts_watched=True, seconds_to_alert=40.0).silent


def test_alerts_that_nobody_watched_are_not_judged():
    outcomes = [Outcome("x", seconds_to_named=3.0), Outcome("y"), Outcome("z", heals_itself=True)]
    assert silences(outcomes, False) == {"silent": None, "silent_status": 1, "silent_alerts": None}
    outcomes[0].alerts_watched = True
    assert silences(outcomes, True) == {"silent": 2, "silent_status": 1, "silent_alerts": 2}


def test_a_store_that_was_away_comes_back_as_it_was(tmp_path: Path):
    it = StoreAway(local(tmp_path))
    it.begin()
    assert (tmp_path / "checkpoints" / "coverage").is_file()
    it.end()
    assert (tmp_path / "checkpoints" / "coverage" / "published.json").read_text() == "{}"


def test_a_pointer_is_emptied(tmp_path: Path):
    PointerEmpty(local(tmp_path)).begin()
    assert (tmp_path / "checkpoints" / "coverage" / "published.json").read_bytes() == b""


@pytest.mark.parametrize(("role", "off_s"), [("labeler", 2 * 86_400), ("learner", 0)])
def test_the_clock_is_wrong_for_the_roles_that_are_meant(tmp_path: Path, role: str, off_s: int):
    with contextlib.contextmanager(wrong_clock)(tmp_path / "clock"):
        it = ClockTwoDaysAhead(local(tmp_path))
        it.begin()
        command = [
            sys.executable,
            "-c",
            "import time; print(time.time(), time.time_ns())",
            "role",
            role,
        ]
        said = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        it.end()
        assert Path(outages_faults.os.environ[outages_faults.CLOCK_FILE]).read_text() == "0"
    assert outages_faults.CLOCK_FILE not in outages_faults.os.environ
    assert abs(float(said[0]) - time.time() - off_s) < 60
    assert abs(int(said[1]) / 1e9 - time.time() - off_s) < 60
