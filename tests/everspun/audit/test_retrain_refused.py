"""`everspun retrain` of what is gone, or of a model that has begun otherwise: refused before
anything is changed."""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from old_shop import CONFIG, EXAMPLES, STEP_MS, T0, OldShop

from checkpointer.store import Catalogue, open_store
from everspun import __main__ as front_door
from everspun.audit.asked import BEGINNING_MS, look
from everspun.commands.training import retrain
from stream import show_ms

BATCHES = 12


class Started(BaseException):
    """Passes the front door, which reports every Exception and goes on."""


def arrival_ms(shop: OldShop, batch: int) -> int:
    return shop.batches[batch].header.arrival_max_ms


@given(examples=st.integers(0, BATCHES), begin=st.integers(-1, BATCHES - 1), data=st.data())
def test_a_time_is_there_whole_or_what_it_lacks_is_named(
    examples: int, begin: int, data: st.DataObject
):
    shop = OldShop(2).write()
    from_ms = BEGINNING_MS if begin < 0 else arrival_ms(shop, begin)
    to_ms = None if data.draw(st.booleans()) else arrival_ms(shop, BATCHES - 1) + 1
    (asked,) = look(shop.retain(examples).log.reader(), None, CONFIG.stream, from_ms, to_ms, {})
    there = examples == 0 or (begin > examples and examples < BATCHES)
    assert bool(asked.lacks) == (not there)
    if not there:
        assert f"records 0 to {examples - 1}" in asked.lacks[0]
    elif to_ms is not None:
        assert asked.rows == sum(one.header.labelled for one in shop.batches[max(0, begin) :])


@given(
    archived=st.integers(1, BATCHES),
    examples=st.integers(1, BATCHES),
    begin=st.integers(0, BATCHES - 1),
)
def test_a_gap_between_archive_and_log_is_named(archived: int, examples: int, begin: int):
    shop = OldShop(2).write()
    with tempfile.TemporaryDirectory() as folder:
        archive = shop.archive(folder, archived)
        from_ms, to_ms = arrival_ms(shop, begin), arrival_ms(shop, BATCHES - 1) + 1
        (asked,) = look(
            shop.retain(examples).log.reader(), archive, CONFIG.stream, from_ms, to_ms, {}
        )
    gap = archived < examples < BATCHES
    assert bool(asked.lacks) == gap, asked.lacks


def test_a_damaged_file_of_the_archive_is_named(tmp_path: Path):
    shop = OldShop().write()
    archive = shop.archive(str(tmp_path))
    path = archive.paths(0)[1]
    (tmp_path / path).write_bytes(b"PAR1")
    (asked,) = look(shop.retain(11).log.reader(), archive, CONFIG.stream, BEGINNING_MS, T0 * 2, {})
    assert path in asked.lacks[0]


def test_a_model_that_has_begun_needs_what_it_has_not_read_yet():
    shop = OldShop().write().retain(5)
    reader = shop.log.reader()
    assert look(reader, None, CONFIG.stream, BEGINNING_MS, None, {0: 5})[0].lacks == []
    assert (
        "records 4 to 4"
        in look(reader, None, CONFIG.stream, BEGINNING_MS, None, {0: 4})[0].lacks[0]
    )


# --- the command ---


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> OldShop:
    made = OldShop().write()
    monkeypatch.setattr(retrain, "KafkaLog", lambda stream: made.log)
    monkeypatch.setattr(retrain, "examples_log", lambda config: made.log)
    monkeypatch.setattr(retrain, "stop_on_signals", threading.Event)

    def never(*given: object) -> None:
        raise Started("a process would be started")

    monkeypatch.setattr(retrain.Launcher, "start", never)
    return made


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    config = tmp_path / "x.toml"
    config.write_text(
        f'[run]\ndir = "{tmp_path}/run"\n[stream]\npartitions = 1\n[checkpointer]\nroot = '
        f'"{tmp_path}/store"\n'
        f'[archive]\nroot = "{tmp_path}/archive"\n[model]\nname = "second"\ncategorical = '
        f'["item"]\n'
    )
    return ["retrain", "--config", str(config)]


def refused(
    given: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, code: int = 1
) -> str:
    assert front_door.main(given) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert not (tmp_path / "store" / "second" / "begin.json").exists()
    assert not (tmp_path / "run" / "logs").exists()
    return said


def test_all_of_it_gone(
    shop: OldShop, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    shop.retain(BATCHES)
    said = refused(
        [*command, "--from", show_ms(T0), "--to", show_ms(T0 + 9 * STEP_MS)], capsys, tmp_path
    )
    assert "examples[0]: records 0 to 11, from 2023-11-14T22:13:20" in said
    assert "--archive" in said


def test_part_of_it_gone(
    shop: OldShop, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    shop.retain(4)
    said = refused([*command, "--from", show_ms(T0)], capsys, tmp_path)
    assert "records 0 to 3" in said
    earliest = said.partition(". --from ")[2].split()[0]
    with pytest.raises(Started):
        front_door.main([*command, "--from", earliest])


def test_the_beginning_gone(
    shop: OldShop, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    shop.retain(1)
    assert "from the beginning" in refused(command, capsys, tmp_path)


def test_nothing_in_it(
    shop: OldShop, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    said = refused([*command, "--from", "2020-01-01", "--to", "2020-02-01"], capsys, tmp_path)
    assert "nothing is there to learn" in said


def test_another_beginning_under_the_same_name(
    shop: OldShop, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    files = open_store(str(tmp_path / "store"))
    Catalogue(files, "second").write_begun(
        {"label/0": shop.batches[3].header.start, "late/0": 0, "retract/0": 0}
    )
    assert front_door.main([*command, "--from", show_ms(T0)]) == 1
    assert "has begun otherwise (label/0 at" in capsys.readouterr().err
    files.write("second/retrain.json", json.dumps({"from_ms": T0 + STEP_MS * 10}).encode())
    shop.log.delete_below(
        EXAMPLES, 6
    )  # whatever is there of it: what was asked for then is remembered
    assert front_door.main([*command, "--from", show_ms(T0)]) == 1
    assert f"has begun with --from {show_ms(T0 + STEP_MS * 10)}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--from", "October"], "moment 'October'"),
        (["--from", "2026-13-01"], "moment '2026-13-01'"),
        (["--to", "1700000000"], "moment '1700000000'"),
        (
            ["--from", "2026-11-01", "--to", "2026-10-01"],
            "--to 2026-10-01 is not after --from 2026-11-01",
        ),
    ],
)
def test_times_that_are_none(
    shop: OldShop,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    given: list[str],
    words: str,
):
    assert words in refused([*command, *given], capsys, tmp_path, code=2)


def test_while_another_system_drains_in_its_folder(
    shop: OldShop, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "run" / "roles").mkdir(parents=True)
    role = tmp_path / "run" / "roles" / "learner-0.json"
    code = "import time; 'everspun'; print(flush=True); time.sleep(60)"
    sleeper = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()  # only now its command line is sure to be there
        role.write_text(json.dumps({"pid": sleeper.pid}))
        said = refused(command, capsys, tmp_path)
        assert "learner-0" in said
        assert "drains" in said
    finally:
        sleeper.kill()
        sleeper.wait()
    other = subprocess.Popen(["sleep", "60"])
    try:
        role.write_text(json.dumps({"pid": other.pid}))  # an id that another program has got since
        with pytest.raises(Started):
            front_door.main(command)
    finally:
        other.kill()
        other.wait()
