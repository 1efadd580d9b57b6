"""State that a later version has written is refused in one line, and nothing of it is changed."""

import hashlib
import json
import shutil
import threading
from pathlib import Path

import pytest

from checkpointer.archive import Archive
from checkpointer.store import Catalogue, Damaged, NewerFormat, open_store
from everspun.commands.mistakes import is_said_in_full, told
from everspun.config import Config, loads
from everspun.roles import has_begun, roles
from labeler import FraudConfig
from labeler.fraud import FraudFilter, OtherTables, dict_tables
from paramserver.server import StateDir, StateInUse, StateUnreadable

WRITTEN = Path(__file__).parents[2] / "data" / "formats"


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With the checkpoints of an earlier version, whose head is of a format of tomorrow."""
    shutil.copytree(WRITTEN / "checkpoints", tmp_path / "checkpoints")
    head = Catalogue(open_store(str(tmp_path / "checkpoints")), "clicks").head()
    assert head is not None
    path = tmp_path / "checkpoints" / "clicks" / head.name / "manifest.json"
    path.write_text(
        path.read_text().replace('"format":1', '"format":9').replace('"format":2', '"format":9')
    )
    return loads(
        f'[run]\ndir = "{tmp_path}/run"\n[model]\nname = "clicks"\n'
        f'[checkpointer]\nroot = "{tmp_path}/checkpoints"\n'
    )


def refused(error: BaseException, *words: str) -> None:
    line = told(error)
    assert line is not None
    assert is_said_in_full(error), "no traceback in a role's log"
    assert "\n" not in line
    assert not [word for word in words if word not in line], line


def test_no_shard_goes_on_below_a_checkpoint_of_a_later_version(config: Config, tmp_path: Path):
    before = contents(tmp_path)
    with pytest.raises(NewerFormat) as raised:
        roles.shard(config, 0, threading.Event())
    refused(raised.value, "format 9", "later version", "checkpoints restore NUMBER --training")
    with pytest.raises(NewerFormat):
        has_begun(config)  # `everspun run` asks before it starts anything
    assert contents(tmp_path) == before


def test_an_operator_may_go_on_from_an_older_one(config: Config):
    catalogue = Catalogue(open_store(config.checkpointer.root), "clicks")
    older = next(entry.manifest for entry in catalogue.entries() if entry.manifest is not None)
    from checkpointer.process.operator_actions import list_checkpoints, restore_training

    assert "newer" in list_checkpoints(catalogue)[-1].reason
    restore_training(catalogue, older.name)
    head = Catalogue(open_store(config.checkpointer.root), "clicks").head()
    assert head is not None
    assert head.name == older.name


@pytest.mark.parametrize(
    ("name", "text"),
    [("incarnation", "v2 17"), ("orders.json", '{"revision": 3, "models": {"m": {"new": 1}}}')],
)
def test_a_shards_folder_that_says_something_else(name: str, text: str, tmp_path: Path):
    folder = tmp_path / "state" / "shard-0"
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    state = StateDir(str(tmp_path), 0)
    with pytest.raises(StateUnreadable) as raised:
        state.next_incarnation() if name == "incarnation" else state.settings()
    refused(raised.value, name)
    assert (folder / name).read_text() == text
    with pytest.raises(StateInUse) as taken:
        StateDir(str(tmp_path), 0)
    refused(taken.value, "stop that one first")
    state.close()


def test_an_archive_of_a_later_version(tmp_path: Path):
    shutil.copytree(WRITTEN / "archive", tmp_path / "archive")
    head = tmp_path / "archive" / "p0.json"
    head.write_text(json.dumps(json.loads(head.read_text()) | {"format": 2}))
    before = contents(tmp_path)
    with pytest.raises(Damaged) as raised:
        Archive(open_store(str(tmp_path / "archive"))).head(0)
    refused(raised.value, "p0.json", "format 2", "another version")
    assert contents(tmp_path) == before


def test_tables_of_a_later_fraud_filter():
    tables = dict_tables()
    tables.progress["format"] = 2
    with pytest.raises(OtherTables) as raised:
        FraudFilter(FraudConfig(), ["impressions/0"], ["clicks/0"], tables)
    refused(raised.value, "format 2", "another version")
    assert dict(tables.progress.items()) == {"format": 2}
