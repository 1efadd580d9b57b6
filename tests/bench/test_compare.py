"""The list of benches and the comparison of two measurements."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.measuring.catalogue import benches
from bench.measuring.compare import check_comparable, compare, read_runs


def test_every_bench_says_what_it_takes():
    found = list(benches())
    assert {"pipeline", "recovery", "pushpull", "freshness_value"} <= {
        bench.name for bench in found
    }
    assert not [bench.name for bench in found if not bench.takes], "add a sentence: Takes about ..."


def test_ratios_of_medians_and_of_any_run_to_any_other():
    old = [
        {"rows_per_s": 100, "cpu": {"fraud": 4.0}, "machine": {"cores": 2}, "ok": True},
        {"rows_per_s": 200, "cpu": {"fraud": 4.0}},
    ]
    new = [{"rows_per_s": 300, "cpu": {"fraud": 1.0}, "extra": 3}]
    rows, fraud = compare(old, new)
    assert (rows.name, rows.old, rows.new, rows.ratio, rows.low, rows.high) == (
        "rows_per_s",
        150,
        300,
        2.0,
        1.5,
        3.0,
    )
    assert (fraud.name, fraud.ratio) == ("cpu.fraud", 0.25)


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '[{"a": 1}]', '{"saved_runs": [{"a": 1}]}', '{"a": 1}\n{"a": 2}\n']
)
def test_files_that_hold_runs(tmp_path: Path, text: str):
    (tmp_path / "runs.json").write_text(text)
    assert read_runs(tmp_path / "runs.json")[0] == {"a": 1}


def test_a_file_that_holds_none_is_named(tmp_path: Path):
    (tmp_path / "runs.json").write_text("examples: many")
    with pytest.raises(ValueError, match=r"runs\.json: not JSON"):
        read_runs(tmp_path / "runs.json")


def test_two_files_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, value in (("old", 1.0), ("new", 2.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"examples_per_s": value}))
    assert main(["--compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 0
    assert "2.000" in capsys.readouterr().out


def test_an_unknown_bench_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["pushpul"])
    assert "no bench 'pushpul'" in capsys.readouterr().err


def test_a_loss_where_there_was_none_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    old, new = (
        [{"lost": 0, "idle": 0, "rate": 2.0}, {"lost": 0, "idle": 0, "rate": 2.0}],
        [{"lost": 5, "idle": 0, "rate": 2.0}],
    )
    lost, rate = compare(old, new)
    assert (lost.name, lost.old, lost.new, lost.apart) == ("lost", 0, 5, True)
    assert not rate.apart
    assert not compare([{"lost": 0}, {"lost": 3}], [{"lost": 1}])[0].apart
    for name, runs in (("old", old), ("new", new)):
        (tmp_path / f"{name}.json").write_text(json.dumps(runs))
    assert main(["--compare", str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 0
    assert "from 0" in capsys.readouterr().out


def test_two_benches_are_not_compared_and_what_else_differs_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"bench": "pushpull", "options": [], "saved_runs": [{"rate": 1.0}]}))
    (tmp_path / "b.json").write_text(json.dumps({"bench": "pipeline", "rate": 1.0}))
    with pytest.raises(SystemExit):
        main(["--compare", str(path), str(tmp_path / "b.json")])
    assert "pushpull on one side and pipeline on the other" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no figure is on both sides"):
        check_comparable([{"a": 1}], [{"b": 1}])
    said = check_comparable([{"a": 1, "format": "json", "gone": 2}], [{"a": 1, "format": "arrow"}])
    assert said == [
        "format: 'json' on the old side, 'arrow' on the new",
        "gone: only on the old side",
    ]
