"""What an earlier version wrote is read as it was written: checkpoints, an archive, a state folder.

`tests/data/formats/` was written by commit f03bdde (version 0.1.0); `expected.json` says what that
commit read from it. A format that must change gets a reader of the old one, and a folder more here.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpointer.archive import Archive
from checkpointer.store import Catalogue, model_state, open_store
from paramserver.server import StateDir
from stream import Record

WRITTEN = Path(__file__).parent / "data" / "formats"
EXPECTED: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text())


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(open_store(str(WRITTEN / "checkpoints")), "clicks")


def digest(record: Record) -> str:
    parts = (record.offset, record.timestamp_ms, record.key, record.value, record.headers)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def test_a_checkpoint_and_its_delta(catalogue: Catalogue):
    head, published = catalogue.head(verify=True), catalogue.published()
    assert head is not None
    assert published is not None
    assert published.name == head.name == EXPECTED["head"]["name"]
    assert head.sha256 == EXPECTED["head"]["sha256"]
    assert not head.is_full, "the head is a delta"
    assert {chain: at.end for chain, at in head.chains.items()} == EXPECTED["head"]["chains"]
    state = model_state(catalogue, head)
    assert state.tables.keys() == EXPECTED["tables"].keys()
    for name, table in EXPECTED["tables"].items():
        assert [str(key) for key in state.tables[name].keys] == table["keys"]
        np.testing.assert_array_equal(state.tables[name].rows[:, 0], table["weights"])


def test_an_altered_part_is_still_found(catalogue: Catalogue, tmp_path: Path):
    """The checksums are those of the files: the test above would not pass by reading nothing."""
    shutil.copytree(WRITTEN / "checkpoints", tmp_path / "checkpoints")
    part = tmp_path / "checkpoints" / "clicks" / EXPECTED["head"]["name"] / "part-0.safetensors"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(bytes(data))
    altered = Catalogue(open_store(str(tmp_path / "checkpoints")), "clicks").head(verify=True)
    assert altered is not None
    assert altered.name != EXPECTED["head"]["name"], "the one before it is whole"


def test_an_archive():
    archive = Archive(open_store(str(WRITTEN / "archive")))
    assert archive.paths(0) == EXPECTED["archive"]["paths"]
    records = [record for path in archive.paths(0) for record in archive.records(path)]
    assert [digest(record) for record in records] == EXPECTED["archive"]["records"]


def test_a_state_folder(tmp_path: Path):
    shutil.copytree(WRITTEN / "state", tmp_path / "state")
    folder = StateDir(str(tmp_path / "state"), 0, None)
    kept = EXPECTED["state"]
    found = {model: said._asdict() for model, said in folder.settings().items()}
    assert found == kept["settings"]
    assert folder.next_incarnation() > kept["incarnation"]
    folder.close()
