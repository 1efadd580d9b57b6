"""The command line: help, bad use, events checked in a file, limits judged."""

import json
import os
from pathlib import Path

import pytest

from everspun.__main__ import COMMANDS, main
from everspun.commands.system.status import breaches
from everspun.config import Config, LimitsConfig
from everspun.launcher import write_targets
from everspun.status.quality import Quality
from everspun.status.scraping import Report, quantile
from everspun.status.table import StatusSnapshot, duration, render, snapshot

EVENT = '{"id":"e1","ts_ms":1700000000000,"session":"s","source":"u","vendor":"v","item":"i"}'


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert len(capsys.readouterr().out) > 100


def test_a_bad_config_is_told_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "x.toml"
    path.write_text("[strem]\n")
    assert main(["status", "--config", str(path)]) == 2
    assert "did you mean 'stream'" in capsys.readouterr().err


def test_good_events_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "events.jsonl"
    path.write_text(EVENT + "\n\n" + EVENT.replace('"s"', '"another"') + "\n")
    assert main(["events", "check", str(path), "--config", os.devnull]) == 0
    assert "2 good events, 0 bad records" in capsys.readouterr().out


def test_bad_events_are_named_by_line_field_and_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "events.jsonl"
    path.write_text(
        "\n".join(
            [EVENT, EVENT.replace('"e1"', "5"), EVENT.replace("1700000000000", "1700000000"), "{"]
        )
    )
    assert main(["events", "check", str(path), "--config", os.devnull]) == 1
    out = capsys.readouterr().out
    assert "1 good events, 3 bad records" in out
    assert "send it as a string" in out
    assert "looks like seconds" in out
    assert "not JSON" in out


def test_events_check_decodes_as_the_labeler_does_in_bounded_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """What is odd costs its line; features that nobody declared are counted; a line without end
    is not held."""
    path, config = tmp_path / "events.jsonl", tmp_path / "x.toml"
    config.write_text('[stream]\ncategorical_features = ["user"]\nrecord_bytes_max = 2000\n')
    spelled = EVENT[:-1] + ', "features": {"usr": "ann", "user": "ann"}}'
    odd = [
        EVENT.replace('"e1"', '"\\ud83d"'),
        "[" * 1_999,
        "9" * 1_999,
        EVENT[:-1] + ', "x": "' + "y" * 9_000 + '"}',
    ]
    path.write_text("\n".join([spelled, *odd, spelled]))
    assert main(["events", "check", str(path), "--config", str(config)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "2 good events, 4 bad records" in out
    assert "half of a character" in out
    assert "more than 2000 bytes" in out
    assert "not declared" in out
    assert "usr" in out


def report(**series: float) -> Report:
    return Report({(name, ()): value for name, value in series.items()})


def test_broken_limits_are_listed_with_value_and_limit():
    config = Config(limits=LimitsConfig(model_age_max_s=60, calibration_band=0.1))
    reports = {
        "replica-0": report(everspun_served_model_age_s=90),
        "labeler-0": report(everspun_records_in_total=5),
    }
    shot = snapshot(reports, 1_000, None)
    quality = Quality("shop", rows=10, prediction_sum=6, label_sum=4)
    told = breaches(config, shot, quality, reports)
    assert any("90.0 is above 60" in line for line in told)
    assert any("calibration 1.500" in line for line in told)
    fine = snapshot({"replica-0": report(everspun_served_model_age_s=9)}, 1_000, None)
    assert breaches(config, fine, Quality("shop"), reports) == []


def test_a_registry_that_is_away_is_said_with_what_it_answers():
    labels = (("schema", "7"), ("reason", "http://registry:8081 does not answer: refused"))
    away = Report({("everspun_registry_away", labels): 1_700_000_000.0})
    reports = {"labeler-0": away}
    (told,) = breaches(Config(), snapshot(reports, 1_000, None), Quality("shop"), reports)
    assert told.startswith("labeler-0: schema 7 is waited for since 2023-11-14")
    assert "does not answer: refused" in told


def test_a_run_that_does_not_answer_is_broken():
    assert "no process" in breaches(Config(), StatusSnapshot(0, {}), Quality("shop"), {})[0]


def test_stages_sum_their_processes_and_show_the_slowest():
    reports = {
        "learner-0": report(everspun_records_in_total=5, everspun_data_time_ms=900),
        "learner-1": report(everspun_records_in_total=7, everspun_data_time_ms=400),
    }
    shot = snapshot(reports, 1_000, None)
    learner = shot.stages["learner"]
    assert (learner.processes, learner.records_in, learner.data_time_ms) == (2, 12, 400)
    assert render(shot, Quality("shop"), "title") is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.34, "340 ms"),
        (12.3, "12.3 s"),
        (252, "4.2 min"),
        (11_160, "3.1 h"),
        (561_600, "6.5 d"),
        (None, ""),
    ],
)
def test_durations_read_well(seconds: float | None, text: str):
    assert duration(seconds) == text


def test_quantiles_of_a_histogram_are_upper_bounds():
    buckets = {"1.0": 50.0, "2.0": 90.0, "+Inf": 100.0}
    assert quantile(buckets, 0.5) == 1.0
    assert quantile(buckets, 0.9) == 2.0
    assert quantile({}, 0.5) is None


def test_prometheus_finds_every_role_and_only_changes_are_written(tmp_path: Path):
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "learner-1.json").write_text('{"pid": 1, "metrics_port": 4711}')
    assert write_targets(tmp_path)
    found = json.loads((tmp_path / "prometheus-targets.json").read_text())
    assert found == [
        {"targets": ["127.0.0.1:4711"], "labels": {"process": "learner-1", "role": "learner"}}
    ]
    assert not write_targets(tmp_path)
