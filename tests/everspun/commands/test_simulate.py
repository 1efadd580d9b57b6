"""`everspun simulate`: whatever it is asked for, what it writes is what docs/events.md says."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everspun.__main__ import main
from everspun.replay import OwnFile
from everspun.replay.own_log import in_order


@settings(max_examples=settings.default.max_examples // 5)
@given(
    impressions=st.sampled_from([1, 2, 50, 400]),
    users=st.integers(1, 40),
    items=st.integers(1, 40),
    vendors=st.integers(1, 10),
    days=st.one_of(st.floats(1e-9, 0.3), st.floats(0.3, 400)),
    click_rate=st.floats(0.001, 0.999),
    session_views=st.floats(1, 20),
    focus=st.floats(0, 1),
    shared=st.floats(0, 1),
    sale_day=st.integers(-1, 3),
    views_max=st.integers(1, 20),
    attacks=st.booleans(),
    seed=st.integers(0, 1 << 40),
)
def test_whatever_is_asked_for_passes_the_check(
    tmp_path_factory: pytest.TempPathFactory, attacks: bool, **given_options: float
):
    folder = tmp_path_factory.mktemp("traffic")
    empty = folder / "empty.toml"
    empty.touch()
    out = folder / "traffic.jsonl"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given_options.items()]
    assert main(["simulate", str(out), "--attacks" if attacks else "--no-attacks", *options]) == 0
    for kind in ("impressions", "clicks"):
        events = [
            line
            for line in out.read_text().splitlines()
            if (json.loads(line)["event"] == "click") == (kind == "clicks")
        ]
        part = folder / f"{kind}.jsonl"
        part.write_text("".join(f"{line}\n" for line in events))
        if events:
            assert (
                main(
                    [
                        "events",
                        "check",
                        str(part),
                        "--kind",
                        kind,
                        "--config",
                        str(empty),
                    ]
                )
                == 0
            )
    assert main(["events", "check", str(out), "--config", str(empty)]) == 0, "the file as it is"
    read = list(in_order(OwnFile(out).events(), 0))
    assert len(read) == len(out.read_text().splitlines())


@pytest.mark.parametrize(
    "wrong",
    [
        "--impressions=0",
        "--vendors=0",
        "--days=0",
        "--days=nan",
        "--click-rate=1",
        "--focus=2",
        "--start-ms=17",
        "--seed=-1",
        "--session-views=0.5",
        "--zipf=-1",
    ],
)
def test_what_cannot_be_simulated_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
):
    assert main(["simulate", str(tmp_path / "x.jsonl"), wrong]) == 2
    said = capsys.readouterr().err
    assert wrong.split("=")[0].strip("-").replace("-", "_") in said
    assert said.count("\n") == 1


def test_a_folder_that_is_not_there_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["simulate", str(tmp_path / "none" / "x.jsonl"), "--impressions=5"]) == 2
    assert "none/x.jsonl" in capsys.readouterr().err
