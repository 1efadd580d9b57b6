"""Whatever is wrong is said: what, since when, and what to type."""

import argparse
import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointer import CheckpointerConfig
from everspun.commands.data import clock
from everspun.commands.system.status import _body
from everspun.config import Config, ConfigError, load
from everspun.status import referee
from everspun.status.catch_up import CatchUp
from everspun.status.quality import Quality
from everspun.status.rate_file import RateFile
from everspun.status.scraping import Report, scrape
from everspun.status.table import snapshot
from everspun.status.usual_rate import HOUR_MS, UsualRate

NOW_MS = 1_800_000_000_000
UP = {"state": "up", "since_ms": NOW_MS - 60_000, "ends": 0, "reason": ""}


def report(**series: float) -> Report:
    return Report({(name, ()): value for name, value in series.items()})


def judged(
    state: dict[str, Any], files: dict[str, Any], answering: set[str], alive: dict[str, bool]
) -> list[str]:
    return referee.processes("var/run", state, files, answering, alive, NOW_MS)


def launched(**processes: Any) -> dict[str, Any]:
    named = {name.replace("_", "-"): UP | changed for name, changed in processes.items()}
    return {"pid": 5, "written_ms": NOW_MS, "processes": named, "troubles": []}


def test_a_healthy_run_is_not_called_wrong():
    state = launched(labeler_0={}, shard_0={})
    files = {"labeler-0": {"pid": 1}, "shard-0": {"pid": 2}}
    assert judged(state, files, set(files), {"launcher": True}) == []


@pytest.mark.parametrize(
    ("state", "files", "alive", "words"),
    [
        (
            launched(replica_0={"state": "failing", "ends": 12, "reason": "exit code 1: no disk"}),
            {},
            {},
            [
                "replica-0 keeps ending since",
                "12 times: exit code 1: no disk",
                "var/run/logs/replica-0.log",
            ],
        ),
        (
            launched(replica_0={"state": "waits", "reason": "signal SIGKILL"}),
            {},
            {},
            ["is down since", "SIGKILL"],
        ),
        (
            launched(replica_0={"state": "stopped", "pid": 7}),
            {"replica-0": {"pid": 7}},
            {"replica-0": True},
            ["replica-0 does nothing since", "(1.0 min)", "kill -CONT 7"],
        ),
        (launched(replica_0={}), {}, {}, ["replica-0 has not come up since", "(1.0 min)"]),
        (
            launched(replica_0={}),
            {"replica-0": {"pid": 7}},
            {"replica-0": True},
            ["does not answer, though", "kill -USR1 7", "kill -9 7", "logs/replica-0.log"],
        ),
        (
            launched(replica_0={"pid": 7}),
            {"replica-0": {}},
            {},
            ["replica-0 cannot be asked", "roles/replica-0.json", "kill 7"],
        ),
        ({}, {"replica-0": {"pid": 7}}, {}, ["is gone: everspun role replica --index 0"]),
        (
            launched() | {"written_ms": NOW_MS - 60_000},
            {},
            {},
            ["the launcher has said nothing since", "(1.0 min)"],
        ),
        (launched(), {}, {"launcher": False}, ["the launcher (process 5) is gone", "everspun run"]),
        (
            launched()
            | {
                "troubles": [{"what": "starting x: EAGAIN", "since_ms": NOW_MS - 9_000, "count": 3}]
            },
            {},
            {},
            ["starting x: EAGAIN, 3 times since", "(9.0 s)"],
        ),
    ],
)
def test_what_is_not_there_is_named(
    state: Any, files: Any, alive: dict[str, bool], words: list[str]
):
    (line,) = judged(state, files, set(), {"launcher": True} | alive)
    assert not [word for word in words if word not in line], line


def test_stages_that_are_there_and_do_nothing_are_named():
    config = Config(checkpointer=CheckpointerConfig(interval_ms=10_000))
    reports = {
        "replica-0": report(everspun_served_version=-1, everspun_replica_failing_s=90),
        "replica-1": report(everspun_served_version=4),
        "shard-0": report(everspun_data_time_ms=NOW_MS - 5_000),
        "checkpointer-0": report(
            everspun_data_time_ms=NOW_MS - 400_000, everspun_checkpoint_created_ms=NOW_MS - 300_000
        ),
        "labeler-0": Report(
            {
                ("everspun_waiting", (("reason", "verdicts"),)): 1.0,
                ("everspun_data_time_ms", ()): NOW_MS - 9e6,
            }
        ),
    }
    shot = snapshot(reports, NOW_MS, None)
    late = [
        CatchUp("labeler", 5_000.0, None),
        CatchUp("learner", 5_000.0, 60.0),
        CatchUp("shard", 100.0, None),
    ]
    found = referee.stages(config, shot, late, reports)
    assert [line.split(":")[0].split(" since")[0] for line in found] == [
        "replica-0 has no model and answers with the prior",
        "replica-0 has not reached the store for 1.5 min",
        "labeler behind by 1.4 h, not gaining",
        "no checkpoint is published",
    ]
    assert "is the fraud filter up?" in found[2]
    reports["shard-0"] = report(everspun_data_time_ms=NOW_MS - 400_000)  # nothing new: none is due
    assert "no checkpoint" not in str(
        referee.stages(config, snapshot(reports, NOW_MS, None), [], reports)
    )


def test_a_store_that_fails_is_named_by_who_needs_it():
    reports = {
        "checkpointer-0": report(everspun_store_failing_s=90),
        "shard-0": report(everspun_state_stored=0),
        "shard-1": report(everspun_state_stored=1),
        "archiver-0": report(everspun_archive_failing_s=90),
        "learner-0": report(everspun_archive_failing_s=0),
    }
    found = referee.stages(Config(), snapshot(reports, NOW_MS, None), [], reports)
    assert len(found) == 3
    assert "archiver-0 has had no archive for 1.5 min" in found.pop(0)
    assert "checkpointer-0 has had no store for 1.5 min" in found[0]
    assert "shard-0: the store does not take its incarnation" in found[1]


def test_a_loop_that_does_not_turn_is_named_with_what_to_type():
    def told(silent_s: float) -> list[str]:
        series = {("everspun_loop_silent_s", (("loop", "retract"),)): silent_s}
        reports = {"labeler-1": Report(series), "replica-0": report(everspun_served_version=1)}
        return referee.stages(Config(), snapshot(reports, NOW_MS, None), [], reports)

    assert told(60.0) == []
    (line,) = told(90.0)
    assert line.startswith("labeler-1: its loop retract has not turned for 1.5 min: kill -USR1")
    assert "run.turn_max_s = 300 s" in line


def test_a_disk_is_nearly_full_by_its_own_size():
    assert referee.room("/a", 40 << 30, 1 << 40) == []
    assert "nearly full: 10.5 MB" in referee.room("/a", 10 << 20, 1 << 40)[0]
    assert referee.room("/a", 10 << 20, 24 << 20) == []
    assert referee.room("/a", 0, 24 << 20) != []
    assert "mounted read-only" in referee.room("/a", 40 << 30, 1 << 40, read_only=True)[0]


# --- a stream that stops
# ------------------------------------------------------------------------------------------


def fed(
    rate: Callable[[int], float], until_ms: int, begin_ms: int = 0, step_ms: int = 1_000
) -> UsualRate:
    """Looks each second at a stream of so many rows a look."""
    usual = UsualRate()
    for now in range(begin_ms + HOUR_MS * 1_000, begin_ms + HOUR_MS * 1_000 + until_ms, step_ms):
        usual.look(now, rate(now - begin_ms - HOUR_MS * 1_000))
        if usual.stopped():
            break
    return usual


def test_a_stream_that_stops_is_seen_within_a_minute_and_not_before():
    stops_ms = 600_000
    usual = fed(lambda at: 5.0 * (at < stops_ms), 700_000)
    assert usual.stopped()
    assert 29_000 <= usual.silent_ms() <= 60_000
    assert (
        "no events since"
        in referee.stream({"stream": usual.said()}, usual.last_row_ms + 40_000, ("i", "c"))[0]
    )
    usual.look(usual._looked_ms + 1_000, 3.0)
    assert not usual.stopped()


def test_nights_that_are_always_silent_and_thin_streams_are_no_stop():
    day, begin = 24 * HOUR_MS, HOUR_MS * 1_000
    shop, stops = UsualRate(), []
    for at in range(0, 9 * day, 60_000):
        shop.look(begin + at, 50.0 * (8 <= at % day // HOUR_MS < 22))
        if shop.stopped():
            stops.append(at // day)
    assert set(stops) <= {0}, "only the first evening is none that it knows"
    for at in range(9 * day + 10 * HOUR_MS, 9 * day + 10 * HOUR_MS + 120_000, 1_000):
        shop.look(begin + at, 0.0)
    assert shop.stopped()
    thin = fed(lambda at: float(at % 300_000 == 0), 6 * HOUR_MS)
    assert not thin.stopped()
    assert not fed(lambda at: 0.0, HOUR_MS).stopped()


@given(st.lists(st.tuples(st.integers(-(10**12), 10**12), st.floats(0, 1e6)), max_size=30))
def test_no_step_of_the_clock_breaks_it(looks: list[tuple[int, float]]):
    usual, now = UsualRate(), NOW_MS
    for step, rows in looks:
        now = max(1, now + step)
        usual.look(now, rows)
        said = usual.said()
        assert json.dumps(said, allow_nan=False)
        assert float(said["silent_s"]) >= 0  # type: ignore[arg-type]


def test_what_is_usual_is_known_after_a_restart(tmp_path: Path):
    """Of whole hours, and of the one that is open: launchers may live for minutes only."""
    day, begin = 24 * HOUR_MS, HOUR_MS * 1_000
    file = RateFile(tmp_path)
    assert not file.read().stopped()
    for at in range(0, 2 * day, 60_000):
        if at % (20 * 60_000) == 0:
            shop = file.read()
        shop.look(begin + at, 50.0)
        file.write(shop, begin + at)
    again = file.read()
    assert again.usual() == pytest.approx(50 / 60_000, rel=0.1)
    for at in range(2 * day, 2 * day + 60_000, 1_000):
        again.look(begin + at, 0.0)
    assert again.stopped()
    assert file.path.stat().st_size < 10_000
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"rates": 3, "open": []}', '{"rates": [1], "open": [0, 0, 0]}', "\x00",
        '{"rates": [' + ",".join(["NaN"] * 168) + '], "open": [0, 0, 0]}',
        '{"rates": [' + ",".join(["1"] * 168) + '], "open": [168, 0, 0]}',
        '{"rates": [' + ",".join(["1"] * 168) + '], "open": [0, Infinity, 1e999]}',
        '{"rates": [' + ",".join(["1"] * 168) + '], "open": [0, "x", 0]}',
    ],
)  # fmt: skip
def test_a_kept_rate_that_cannot_be_says_nothing(tmp_path: Path, text: str):
    file = RateFile(tmp_path)
    file.path.parent.mkdir()
    file.path.write_text(text)
    usual = file.read()
    assert usual.usual() is None
    usual.look(NOW_MS, 1.0)
    file.write(usual, NOW_MS)
    assert file.read().kept() == usual.kept()


# --- for machines
# -------------------------------------------------------------------------------------------------


def test_where_there_is_nothing_machines_are_told_null():
    body = _body(
        snapshot({"replica-0": report(everspun_served_model_age_s=math.nan)}, NOW_MS, None),
        Quality("m"),
        [],
    )
    said = json.loads(json.dumps(body, allow_nan=False))
    assert said["progressive"] == {
        "rows": 0,
        "log_loss": None,
        "normalized_entropy": None,
        "calibration": None,
    }
    assert said["staleness"] == {"p50": None, "p99": None}
    assert said["served"] == {"model_age_s": None, "data_age_s": None}
    assert said["stages"]["labeler"]["rate"] is None
    assert said["stages"]["labeler"]["data_time_ms"] is None


def test_role_files_may_say_anything(tmp_path: Path):
    (tmp_path / "roles").mkdir()
    for n, text in enumerate(
        ("[]", '{"metrics_port": "x"}', '{"metrics_port": 99999}', "\x00", '{"metrics_port": [1]}')
    ):
        (tmp_path / "roles" / f"labeler-{n}.json").write_text(text)
    assert scrape(tmp_path) == {}


def test_a_window_shorter_than_the_filters_cells_is_refused_before_anything_starts(tmp_path: Path):
    path = tmp_path / "x.toml"
    path.write_text("[stream]\nwindow_ms = 30_000\n")
    said = r"fraud\.cell_ms \+ fraud\.settle_ms = 300000 \+ 300000: allowed is at most 269500"
    with pytest.raises(ConfigError, match=said):
        load(path)
    assert load(path, ["run.fraud=0"]).stream.window_ms == 30_000


def test_clocks_that_are_apart_are_said_with_the_worst_input_and_no_producer_is_blamed():
    def told(apart_ms: int, ahead_ms: int) -> list[str]:
        series = {
            ("everspun_labeler_clocks_apart_ms", (("input", "impressions/0"),)): float(apart_ms),
            ("everspun_labeler_clocks_apart_ms", (("input", "clicks/0"),)): 5.0,
            ("everspun_labeler_time_ahead_ms", (("input", "impressions/0"),)): float(ahead_ms),
        }
        return referee.clocks(Config(), {"labeler-0": Report(series)}, NOW_MS)

    assert told(59_000, 59_000) == []
    assert (
        "broker's clock is 1.0 h behind the labeler's (1 inputs, worst impressions/0)"
        in told(-HOUR_MS, 0)[0]
    )
    (line,) = told(0, 2 * HOUR_MS)
    assert "2.0 h ahead of all clocks" in line
    assert "labels go on at 2027-01-15 10:00:00 UTC" in line
    assert f"everspun clock back impressions 0 --by-ms {2 * HOUR_MS} " in line


def test_the_command_that_sets_time_back_names_how_far_the_clocks_were_ahead():
    """Not how far time is ahead now: it comes closer while it stands."""
    series = {}
    for name in ("impressions/0", "clicks/0"):
        series["everspun_labeler_time_ahead_ms", (("input", name),)] = 1.0 * HOUR_MS
        series["everspun_labeler_time_fell_ms", (("input", name),)] = 2.0 * HOUR_MS
    (line,) = referee.clocks(Config(), {"labeler-0": Report(series)}, NOW_MS)
    typed = shlex.split(line.partition("by: everspun clock ")[2])
    parser = argparse.ArgumentParser()
    clock.arguments(parser)
    said = parser.parse_args(typed)
    assert (said.action, said.topic, said.partition, said.by_ms) == (
        "back",
        None,
        None,
        2 * HOUR_MS,
    )
    assert (
        len(clock.inputs(Config().stream, said.topic, said.partition))
        == 2 * Config().stream.partitions
    )
