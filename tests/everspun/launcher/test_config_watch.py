"""A run takes of a changed file what is safe, one process after the other."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from everspun.commands.system.run import check_changed
from everspun.config import ConfigError, loads
from everspun.hosts import ALL
from everspun.launcher.config_watch import ConfigNotTaken, ConfigWatch
from everspun.launcher.launcher import Launcher
from everspun.launcher.renewals import Renewals, RenewalState
from everspun.launcher.run_files import IN_FORCE_FILE
from stream.monitoring import TimeLimit

#: Stands in for a role: writes how it was started, and ends at once where it is told to fail.
ROLE = """
import json, os, pathlib, sys, time
place, *words = sys.argv[1:]
if "learners.drain_ms=4321" in words:
    sys.exit("a drain of 4321 ms cannot be run here")
draft = pathlib.Path(place + ".new")
draft.write_text(json.dumps({"pid": os.getpid(), "words": words}))
draft.replace(place)
time.sleep(60)
"""
WAIT_S = 20.0


class Sleepers(Launcher):
    def _command(self, role: str, index: int) -> list[str]:
        place = str(self.dir / "roles" / f"{role}-{index}.json")
        return [sys.executable, "-c", ROLE, place, *super()._command(role, index)]

    def words(self, name: str) -> str:
        place = self.dir / "roles" / f"{name}.json"
        return place.read_text() if place.exists() else ""

    def pids(self, role: str) -> dict[str, int]:
        return {n: p.popen.pid for n, p in self.processes.items() if p.role == role}


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[tuple[Path, Sleepers, ConfigWatch]]:
    path = tmp_path / "x.toml"
    path.write_text(
        f'[run]\ndir = "{tmp_path}/run"\nshards = 1\nlearners = 2\nfraud = 0\nreplicas = 1\n'
    )
    launcher = Sleepers(path, loads(path.read_text()).run, in_force=path.read_text())
    launcher.start()
    try:
        wait_for(lambda: all(map(launcher.words, launcher.processes)))
        yield path, launcher, ConfigWatch(launcher)
    finally:
        launcher.stop()


def wait_for(what: Callable[[], bool]) -> None:
    limit = TimeLimit(WAIT_S)
    while not what():
        assert not limit.over
        time.sleep(0.02)


def changed(path: Path, watch: ConfigWatch, text: str) -> None:
    path.write_text(text)
    watch.look()
    watch.look()


def test_processes_start_with_what_was_there_when_the_run_began(
    begun: tuple[Path, Sleepers, ConfigWatch],
):
    path, launcher, _ = begun
    kept = launcher.dir / IN_FORCE_FILE
    assert kept.read_text() == path.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    assert f'"--in-force", "{kept}"' in launcher.words("learner-0")


def test_a_changed_key_starts_its_readers_again_and_nobody_else(
    begun: tuple[Path, Sleepers, ConfigWatch],
):
    path, launcher, watch = begun
    before, others = launcher.pids("learner"), launcher.pids("shard") | launcher.pids("replica")
    changed(path, watch, path.read_text() + "[learners]\ndrain_ms = 7000\n")
    wait_for(lambda: all("drain_ms=7000" in launcher.words(n) for n in before))
    assert all(launcher.pids("learner")[n] != pid for n, pid in before.items())
    assert launcher.pids("shard") | launcher.pids("replica") == others
    assert all(p.history.ends == 0 for p in launcher.processes.values()), "none of it is a failure"


def test_counts_follow_the_file(begun: tuple[Path, Sleepers, ConfigWatch]):
    path, launcher, watch = begun
    changed(path, watch, path.read_text().replace("replicas = 1", "replicas = 2"))
    wait_for(lambda: set(launcher.pids("replica")) == {"replica-0", "replica-1"})
    changed(path, watch, path.read_text().replace("learners = 2", "learners = 1"))
    wait_for(lambda: set(launcher.pids("learner")) == {"learner-0"})


def test_a_value_that_cannot_be_run_ends_one_process_and_a_better_one_goes_on(
    begun: tuple[Path, Sleepers, ConfigWatch],
):
    path, launcher, watch = begun
    text, other = path.read_text(), launcher.pids("learner")["learner-1"]
    changed(path, watch, text + "[learners]\ndrain_ms = 4321\n")
    wait_for(lambda: launcher.processes["learner-0"].history.ends >= 2)
    assert launcher.pids("learner")["learner-1"] == other
    changed(path, watch, text + "[learners]\ndrain_ms = 8000\n")
    wait_for(lambda: all("drain_ms=8000" in launcher.words(n) for n in ("learner-0", "learner-1")))


def test_what_is_not_taken_is_said_until_the_file_is_as_before(
    begun: tuple[Path, Sleepers, ConfigWatch],
):
    path, launcher, watch = begun
    text, shards = path.read_text(), launcher.pids("shard")
    with pytest.raises(ConfigNotTaken, match="shards scale 3"):
        changed(path, watch, text.replace("shards = 1", "shards = 3"))
    more = "[stream]\nwindow_ms = 7_200_000\ngrace_ms = 1_000\n"
    with pytest.raises(ConfigNotTaken, match=r"^run|^stream"):
        changed(path, watch, text.replace("shards = 1", "shards = 3") + more)
    try:
        watch.look()
    except ConfigNotTaken as error:
        launcher.note(watch.doing, error)
    told = [what.partition(": ")[2].split()[0] for what in launcher.troubles]
    assert set(told) == {"run.shards", "stream.window_ms", "stream.grace_ms"}
    with pytest.raises(ConfigError, match="shard_count"):
        changed(path, watch, text.replace("shards = 1", "shard_count = 1"))
    path.unlink()
    watch.look()
    with pytest.raises(ConfigError, match="no such file"):
        watch.look()
    changed(path, watch, text)
    assert launcher.pids("shard") == shards


def test_what_no_process_could_run_with_what_stays_in_force_is_not_taken(
    begun: tuple[Path, Sleepers, ConfigWatch],
):
    path, launcher, _ = begun
    watch, pids = ConfigWatch(launcher, partial(check_changed, ALL)), launcher.pids("learner")
    text = path.read_text()
    more = '[learners]\nslices = ["colour"]\n[features.colour]\n[serving]\npoll_ms = 777\n'
    with pytest.raises(ConfigNotTaken, match=r"learners.slices.* not taken .*colour.*; stop"):
        changed(path, watch, text + more)
    assert any("features.colour" in what for what in launcher.troubles)
    assert launcher.pids("learner") == pids
    changed(path, watch, text + "[serving]\npoll_ms = 777\n")
    wait_for(lambda: "poll_ms=777" in launcher.words("replica-0"))


@pytest.mark.parametrize(
    ("was", "now"),
    [("[run]", '[serving]\ntoken_file = "{token}"\n[run]'), ("replicas = 0", "replicas = 1")],
)
def test_a_file_that_who_starts_again_could_not_read_is_not_taken(
    was: str, now: str, tmp_path: Path
):
    """Nor a first process of its role."""
    token = tmp_path / "serving.token"
    text = f'[run]\ndir = "{tmp_path}/run"\nshards = 1\nfraud = 0\n'
    if "replicas" in was:
        text = f'[serving]\ntoken_file = "{token}"\n{text}replicas = 0\n'
    path = tmp_path / "x.toml"
    path.write_text(text)
    launcher = Sleepers(path, loads(text).run, in_force=text)
    launcher.start(["replica"])
    try:
        wait_for(lambda: all(map(launcher.words, launcher.processes)))
        watch, pids = ConfigWatch(launcher, partial(check_changed, ALL)), launcher.pids("replica")
        said = rf" not taken while running: serving.token_file = '{token}': No such file .* meant$"
        with pytest.raises(ConfigNotTaken, match=said):
            changed(path, watch, text.replace(was, now.format(token=token)))
        assert launcher.pids("replica") == pids
        token.write_text("t" * 40)
        watch.look()
        wait_for(lambda: launcher.pids("replica").keys() == {"replica-0"})
        wait_for(lambda: launcher.pids("replica") != pids)
    finally:
        launcher.stop()


@pytest.mark.parametrize("what", ["empty", "a folder", "half", "gone"])
def test_a_file_that_says_nothing_changes_nothing(
    what: str, begun: tuple[Path, Sleepers, ConfigWatch]
):
    path, launcher, watch = begun
    text, pids = path.read_text(), dict(launcher.pids("learner"))
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what != "gone":
        path.write_text({"empty": "\n", "half": text[: text.index("shards") + 8]}[what])
    watch.look()
    with pytest.raises(ConfigNotTaken, match=f"goes on as it is, and began with .*{IN_FORCE_FILE}"):
        watch.look()
    if what == "a folder":
        path.rmdir()
    assert launcher.pids("learner") == pids
    changed(path, watch, text + "[learners]\ndrain_ms = 7000\n")
    wait_for(lambda: all("drain_ms=7000" in launcher.words(name) for name in pids))


def test_what_to_do_is_said_of_a_long_value_too(begun: tuple[Path, Sleepers, ConfigWatch]):
    path, launcher, watch = begun
    names = [f"feature_{i}" for i in range(200)]
    with pytest.raises(ConfigNotTaken) as error:
        changed(path, watch, f"{path.read_text()}[stream]\ncategorical_features = {names}\n")
    launcher.note(watch.doing, error.value)
    (what,) = launcher.troubles
    assert len(what) < 700
    assert what.endswith("stop `everspun run` and start it again")


def test_one_after_the_other_and_who_goes_is_passed_over():
    renewals, state = Renewals(), dict.fromkeys("abd", RenewalState.RUNS)
    state["c"] = RenewalState.GOES
    renewals.order("abcd")
    assert renewals.look(state.__getitem__) == "a"
    state["a"] = RenewalState.STARTS
    assert renewals.look(state.__getitem__) is None
    renewals.order(["a", "b"])  # again, while a starts
    state["a"] = RenewalState.RUNS
    assert renewals.look(state.__getitem__) == "b"
    state["b"] = RenewalState.RUNS
    told = [renewals.look(state.__getitem__) for _ in range(4)]
    assert told == ["d", "a", None, None]
    assert len(renewals) == 0
