"""A replica with a folder goes on from the rows that it has written there (A5)."""

import json
import time
from dataclasses import replace

import pyarrow as pa
import pytest

from checkpointer.tables.catalogue_follower import CatalogueFollower
from everspun import loads
from stream import Partition
from stream.log import MemoryLog, catalogue_kept_ms, wall_clock_ms
from stream.log.rows import RocksStorage, RowsFailed
from stream.monitoring import TimeLimit

STREAM = loads(
    """
[features.title]
kind = "text"
catalogue = "items"
[model]
categorical = ["item", "title"]
"""
).stream
ITEMS = Partition(STREAM.catalogues["items"], 0)
ASKED = pa.table({"item": ["i0", "i1", "i2"], "f_title": [""] * 3})


def made_log() -> MemoryLog:
    log = MemoryLog(now=wall_clock_ms)
    log.create(ITEMS.topic, 1)
    return log


def append(log, at_ms: int, **titles: str | None) -> None:
    writer = log.writer()
    for item, title in titles.items():
        value = None if title is None else json.dumps({"title": title}).encode()
        writer.append(ITEMS, value, item.encode(), (), at_ms)
    writer.flush(1_000)


def answers(log, dir, stream=STREAM) -> list[str]:
    """What one that starts says, once it has read to the end."""
    follower = CatalogueFollower(stream, log, 1 << 20, dir)
    follower.start()
    limit = TimeLimit(20)
    while follower.newest is None and not limit.over:
        time.sleep(0.01)
    said = follower.filled(ASKED).column("f_title").to_pylist()
    age_s = follower.age_s(wall_clock_ms())
    follower.close()
    assert age_s is not None
    for held in follower.newest.held.values():
        held.close()
    return said


@pytest.fixture
def read(tmp_path):
    """A log that was read, of which the first record is gone since."""
    log = made_log()
    append(log, wall_clock_ms(), i0="first", i1="second")
    assert answers(log, tmp_path) == ["first", "second", ""]
    log.delete_below(ITEMS, 1)
    return log


def test_it_goes_on_from_its_folder(read, tmp_path):
    append(read, wall_clock_ms(), i1=None, i2="third")
    assert answers(read, tmp_path) == ["first", "", "third"]
    assert answers(read, tmp_path) == ["first", "", "third"]
    assert answers(read, None) == ["", "", "third"]


def test_another_topic_of_the_name_is_read_from_its_first_record(read, tmp_path):
    read.delete(ITEMS.topic)
    read.create(ITEMS.topic, 1)
    append(read, wall_clock_ms(), i1="again")
    assert answers(read, tmp_path) == ["", "again", ""]


def test_rows_read_by_other_rules_are_of_no_use(read, tmp_path):
    assert answers(read, tmp_path, replace(STREAM, record_bytes_max=1 << 16)) == ["", "second", ""]


def test_rows_of_long_ago_are_of_no_use(tmp_path):
    """What deleted others since may be compacted."""
    log = made_log()
    append(log, wall_clock_ms() - catalogue_kept_ms(STREAM) - 1_000, i0="first", i1="second")
    assert answers(log, tmp_path) == ["first", "second", ""]
    log.delete_below(ITEMS, 1)
    assert answers(log, tmp_path) == ["", "second", ""]


def test_a_folder_that_cannot_be_read_is_begun_anew(read, tmp_path, caplog):
    (folder,) = tmp_path.glob("catalogue-items-*")
    for path in folder.glob("*"):
        path.write_bytes(b"not this")
    assert answers(read, tmp_path) == ["", "second", ""]
    assert "begun anew" in caplog.text


@pytest.fixture
def damage(monkeypatch):
    """damage(folder): rows that lie there cannot be read, until it is emptied."""
    get = RocksStorage.get

    def read(self, keys):
        if (self._dir / "damaged").exists():
            raise RowsFailed("Corruption: block checksum mismatch")
        return get(self, keys)

    monkeypatch.setattr(RocksStorage, "get", read)
    monkeypatch.setattr("checkpointer.tables.catalogue_follower.RETRY_S", 0.01)
    return lambda folder: (folder / "damaged").touch()


def test_a_folder_whose_rows_cannot_be_read_is_begun_anew(read, tmp_path, damage):
    (folder,) = tmp_path.glob("catalogue-items-*")
    damage(folder)
    assert answers(read, tmp_path) == ["", "second", ""]


def test_a_row_that_cannot_be_read_for_an_answer_is_read_anew(tmp_path, damage):
    log = made_log()
    append(log, wall_clock_ms(), i0="first", i1="second")
    follower = CatalogueFollower(STREAM, log, 1 << 20, tmp_path)
    follower.start()
    limit = TimeLimit(20)
    while follower.newest is None and not limit.over:
        time.sleep(0.01)
    held = follower.newest.held["items"]
    held._young = held._old = {}  # as if others had been asked for since
    (folder,) = tmp_path.glob("catalogue-items-*")
    damage(folder)
    said = follower.filled(ASKED)
    assert said is ASKED
    while said is ASKED and not limit.over:
        time.sleep(0.01)
        said = follower.filled(ASKED)
    follower.close()
    assert said.column("f_title").to_pylist() == ["first", "second", ""]
    for one in (held, follower.newest.held["items"]):
        one.close()
    (folder / "damaged").unlink()
    log.delete_below(ITEMS, 1)
    assert answers(log, tmp_path) == ["", "second", ""], "the folder is of no use since"
