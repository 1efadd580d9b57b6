"""Parts of a long run of seeds add up, whenever one is ended."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import run as runner
from run_state import RunState


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds that were run, by a run that does nothing; 13 fails."""
    ran: list[int] = []

    def run_seed(seed: int) -> runner.Result:
        ran.append(seed)
        failure = "seed 13: I3" if seed == 13 else ""
        return runner.Result(
            seed, failure, Counter({("crash", "shard"): 1}), Counter(labelled=2), 0.5
        )

    monkeypatch.setattr(runner, "run_seed", run_seed)
    monkeypatch.setattr(runner, "commit", lambda: "abc")
    return ran


def test_parts_add_up_and_no_seed_is_run_twice(tmp_path: Path, told: list[int], capsys):
    state = str(tmp_path / "state.json")
    assert runner.main(["--start", "10", "--seeds", "2", "--state", state]) == 0
    assert runner.main(["--start", "14", "--seeds", "2", "--state", state]) == 0
    assert runner.main(["--start", "10", "--seeds", "8", "--state", state, "--keep-going"]) == 1
    assert told == [10, 11, 14, 15, 12, 13, 16, 17]
    kept = json.loads(Path(state).read_text())
    assert kept["seeds"] == 8
    assert kept["done"] == {"abc": [[10, 17]]}
    assert kept["cpu_s"] == 4.0
    assert kept["failed"] == {"13": "seed 13: I3"}
    assert kept["table"] == {"crash | shard": 8}
    assert kept["counts"] == {"labelled": 16}
    assert "8 seeds in all parts, 1 failed, 13; 4 CPU s, 0.500 a seed" in capsys.readouterr().out


def test_what_failed_is_run_again_and_counts_once(tmp_path: Path, told: list[int], monkeypatch):
    state = tmp_path / "state.json"
    command = ["--start", "12", "--seeds", "3", "--state", str(state), "--keep-going"]
    assert runner.main(command) == 1
    assert runner.main(command) == 1
    assert told == [12, 13, 14, 13]
    failing = runner.run_seed
    monkeypatch.setattr(runner, "run_seed", lambda seed: replace(failing(seed), failure=""))
    assert runner.main(command) == 0
    kept = RunState.load(state)
    assert (kept.seeds, kept.failed, kept.counts["labelled"]) == (3, {}, 6)


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path, told: list[int], monkeypatch):
    state = tmp_path / "state.json"
    went = runner.run_seed

    def killed_at_12(seed: int) -> runner.Result:
        if seed == 12:
            raise KeyboardInterrupt
        return went(seed)

    monkeypatch.setattr(runner, "run_seed", killed_at_12)
    with pytest.raises(KeyboardInterrupt):
        runner.main(["--start", "10", "--seeds", "4", "--state", str(state)])
    assert RunState.load(state).seeds == 2
    monkeypatch.setattr(runner, "run_seed", went)
    runner.main(["--start", "10", "--seeds", "4", "--state", str(state), "--keep-going"])
    assert told == [10, 11, 12, 13]
    assert RunState.load(state).seeds == 4


def test_two_commits_are_told_apart(tmp_path: Path):
    state = RunState(tmp_path / "state.json")
    for commit, seed in (("a", 1), ("b", 2), ("a", 3), ("a", 4)):
        state.add(commit, seed, "", 1.0, Counter(), Counter())
    state.save()
    kept = RunState.load(state.path)
    assert kept == state
    assert kept.commits == {"a": [[1, 1], [3, 4]], "b": [[2, 2]]}
    assert list(kept.remaining(range(6))) == [0, 5]


def test_another_file_is_refused_and_left(tmp_path: Path):
    path = tmp_path / "caught.json"
    path.write_text('{"no trim": 3}')
    with pytest.raises(ValueError, match="holds no state of a run of seeds"):
        RunState.load(path)
    assert path.read_text() == '{"no trim": 3}'
