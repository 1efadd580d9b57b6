"""The list of benches and the comparison of two measurements."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.catalogue import benches
from bench.compare import compare, read_runs


def test_every_bench_says_what_it_takes():
    found = list(benches())
    assert {"pipeline", "recovery", "pushpull", "freshness_value"} <= {bench.name for bench in found}
    assert not [bench.name for bench in found if not bench.takes], "add a sentence: Takes about ..."


def test_ratios_of_medians_and_of_any_run_to_any_other():
    old = [
        {"rows_per_s": 100, "cpu": {"fraud": 4.0}, "machine": {"cores": 2}, "ok": True},
        {"rows_per_s": 200, "cpu": {"fraud": 4.0}},
    ]
    new = [{"rows_per_s": 300, "cpu": {"fraud": 1.0}, "extra": 3}]
    rows, fraud = compare(old, new)
    assert (rows.name, rows.old, rows.new, rows.ratio, rows.low, rows.high) == ("rows_per_s", 150, 300, 2.0, 1.5, 3.0)
    assert (fraud.name, fraud.ratio) == ("cpu.fraud", 0.25)


@pytest.mark.parametrize("text", ['{"a": 1}', '[{"a": 1}]', '{"saved_runs": [{"a": 1}]}', '{"a": 1}\n{"a": 2}\n'])
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
