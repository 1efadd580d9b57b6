"""A store that is empty where a model has begun is not mounted: nothing begins anew in it (S5)."""

from pathlib import Path

import pytest
from driver_system import System

from checkpointer.metrics import CheckpointerMetrics
from checkpointer.process.process import _tell_published
from checkpointer.store.fsspec_store import BEGUN, RememberedStore


def remembered(tmp_path: Path, root: str = "/mnt/store", model: str = "clicks") -> RememberedStore:
    return RememberedStore(str(tmp_path), root, model)


def running(tmp_path: Path) -> System:
    """A model with checkpoints, whose checkpointer remembers that it began."""
    system = System()
    system.driver.used = remembered(tmp_path)
    system.begin()
    system.push("label/0", 100, 110)
    assert system.later().outcome == "published"
    return system


def unmount(system: System) -> dict[str, bytes]:
    kept = dict(system.files.contents)
    system.files.contents.clear()
    return kept


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("shards_too", [False, True])
def test_nothing_begins_anew_and_all_goes_on_once_it_is_mounted(
    tmp_path: Path, restarts: bool, shards_too: bool
):
    system = running(tmp_path)
    kept = unmount(system)
    if shards_too:  # they found no checkpoint to restore from
        for index in (0, 1):
            system.restart(index, incarnation=2, restore=False)
    if restarts:
        system.driver.recovered = False
        system.driver._head = None
        system.driver.used = remembered(tmp_path)
    if not shards_too:
        system.push("label/0", 110, 120)
    for _ in range(4):
        step = system.later(20_000)
        assert step.outcome in ("store", "not_restored")
    if not shards_too:
        assert step.outcome == "store"
        assert "is it mounted?" in step.detail
        assert f"rm {tmp_path / 'state' / BEGUN}" in step.detail
    assert not system.files.contents, "nothing is written into a folder that is no store"
    system.files.contents.update(kept)
    if not shards_too:
        assert system.later(20_000).outcome == "published"


def test_another_store_and_another_model_are_new_ones(tmp_path: Path):
    remembered(tmp_path).remember()
    assert remembered(tmp_path).was_begun()
    assert not remembered(tmp_path, root="/mnt/other").was_begun()
    assert not remembered(tmp_path, model="second").was_begun()
    remembered(tmp_path, model="second").remember()
    assert remembered(tmp_path).was_begun()
    assert remembered(tmp_path, model="second").was_begun()


@pytest.mark.parametrize("text", ["", "{}", "[1", "\x00", "3"])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, text: str):
    remembered(tmp_path).remember()
    (tmp_path / "state" / BEGUN).write_text(text)
    assert not remembered(tmp_path).was_begun()
    remembered(tmp_path).remember()
    assert remembered(tmp_path).was_begun()


def test_a_folder_that_cannot_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "state").write_text("no folder")
    remembered(tmp_path).remember()
    assert "not remembered yet" in caplog.text
    assert not remembered(tmp_path).was_begun()


def test_a_checkpointer_that_starts_says_how_old_the_published_one_is():
    system, metrics = System(), CheckpointerMetrics()

    def value(name: str) -> float:
        found = metrics.registry.get_sample_value(name)
        assert found is not None
        return found

    assert _tell_published(system.driver.catalogue, metrics)
    assert value("everspun_checkpoint_created_ms") == 0
    system.begin()
    system.push("label/0", 100, 110)
    manifest = system.later().manifest
    assert manifest is not None
    assert _tell_published(system.driver.catalogue, metrics)
    assert value("everspun_checkpoint_created_ms") == manifest.created_ms
    assert value("everspun_checkpoint_number") == manifest.number
