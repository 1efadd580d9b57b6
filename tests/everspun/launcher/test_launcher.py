"""The launcher's processes: as many learners as ordered, while the rest goes on."""

import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everspun.__main__ import main
from everspun.config import RunConfig
from everspun.launcher.launcher import Launcher
from everspun.launcher.metrics import LauncherMetrics
from everspun.launcher.run_files import order_scale, ordered_scale, role_files
from stream import PortTaken
from stream.monitoring import TimeLimit, metrics_server

#: Stands in for a role: says that it runs, and ends at SIGTERM.
ROLE = (
    "import pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text('{\"pid\": 1}'); "
    "time.sleep(60)"
)
WAIT_S = 20.0


class Sleepers(Launcher):
    def _command(self, role: str, index: int) -> list[str]:
        return [sys.executable, "-c", ROLE, str(self.dir / "roles" / f"{role}-{index}.json")]


def wait_for(what: Callable[[], bool]) -> None:
    limit = TimeLimit(WAIT_S)
    while not what():
        assert not limit.over
        time.sleep(0.02)


def test_learners_are_started_and_stopped_while_the_rest_goes_on(tmp_path: Path):
    run = RunConfig(
        dir=str(tmp_path / "run"), shards=1, learners=2, fraud=0, labelers=1, replicas=0
    )
    launcher = Sleepers(tmp_path / "x.toml", run)

    def running() -> list[str]:
        return sorted(
            n for n, p in launcher.processes.items() if p.role == "learner" and not p.leaving
        )

    launcher.start()
    try:
        shard = launcher.processes["shard-0"].popen.pid
        order_scale(launcher.dir, "learner", 4)
        wait_for(lambda: running() == [f"learner-{i}" for i in range(4)])
        kept = launcher.processes["learner-0"].popen.pid
        order_scale(launcher.dir, "learner", 1)
        wait_for(
            lambda: (
                sorted(n for n in launcher.processes if n.startswith("learner")) == ["learner-0"]
            )
        )
        assert not (launcher.dir / "roles" / "learner-3.json").exists()
        assert launcher.processes["learner-0"].popen.pid == kept
        order_scale(launcher.dir, "learner", 2)
        wait_for(lambda: running() == ["learner-0", "learner-1"])
        assert launcher.processes["shard-0"].popen.pid == shard
        assert (
            launcher.processes["shard-0"].restarts == launcher.processes["learner-0"].restarts == 0
        )
    finally:
        launcher.stop()


def test_shards_run_as_the_clock_holder_says_and_end_once_its_map_is_in_force(tmp_path: Path):
    run = RunConfig(
        dir=str(tmp_path / "run"), shards=1, learners=1, fraud=0, labelers=1, replicas=0
    )
    launcher = Sleepers(tmp_path / "x.toml", run)

    def says(processes: int, settled: bool) -> None:
        fresh = launcher.dir / "roles" / "new"
        fresh.write_text(json.dumps({"pid": 1, "processes": processes, "settled": settled}))
        fresh.replace(launcher.dir / "roles" / "shard-0.json")

    def shards() -> list[str]:
        return sorted(name for name in launcher.processes if name.startswith("shard"))

    launcher.start()
    try:
        wait_for((launcher.dir / "roles" / "shard-0.json").exists)
        says(3, settled=True)
        wait_for(lambda: shards() == ["shard-0", "shard-1", "shard-2"])
        says(2, settled=False)
        order_scale(launcher.dir, "learner", 2)  # carried out in the same look
        wait_for(lambda: "learner-1" in launcher.processes)
        assert not launcher.processes["shard-2"].leaving
        says(2, settled=True)
        wait_for(lambda: shards() == ["shard-0", "shard-1"])
    finally:
        launcher.stop()


def test_a_launcher_whose_port_another_has_exports_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(metrics_server, "_own", None)
    metrics = LauncherMetrics(lambda: {"processes": {}, "troubles": [], "stream": {}})
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = RunConfig(dir=str(tmp_path), metrics_port=port, metrics_port_each=False)
        for _ in range(2):
            with pytest.raises(PortTaken, match=rf"launcher-0: .*127\.0\.0\.1:{port}: Address"):
                metrics.export(run)
        assert role_files(tmp_path) == {}
    for _ in range(2):
        metrics.export(run)
    assert role_files(tmp_path)["launcher-0"]["metrics_port"] == port
    assert metrics_server._own is not None
    metrics_server._own.close()


def test_an_order_is_of_one_launcher_and_of_roles_that_scale(tmp_path: Path):
    order_scale(tmp_path, "learner", 3)
    order_scale(tmp_path, "shard", 3)
    assert ordered_scale(tmp_path) == {"learner": 3}
    assert ordered_scale(tmp_path / "elsewhere") == {}
    for count, believed in ((1_024, {"learner": 1_024}), (1_025, {}), (1 << 62, {}), (0, {})):
        order_scale(tmp_path, "learner", count)
        assert ordered_scale(tmp_path) == believed


def test_what_nobody_carries_out_is_said(tmp_path: Path, capsys):
    path = tmp_path / "x.toml"
    path.write_text(f"[run]\ndir = {str(tmp_path)!r}\n")
    (tmp_path / "roles").mkdir()
    for command, code, words in (
        ("learners scale 2 --wait-s 0.1", 1, "0 learners run, 2 were ordered"),
        ("learners scale 0", 2, "0 learners; allowed is 1 to 1024"),
        ("shards scale 2 --wait-s 0", 2, "nothing was changed, or nobody knows"),
        ("staleness", 2, "no answer"),
        ("staleness 0", 2, "not changed, or nobody knows"),
    ):
        assert main([*command.split(), "--config", str(path)]) == code
        said = capsys.readouterr()
        assert (words in said.err, said.out) == (True, ""), command
