"""The reader in another language, which knows the format from docs/checkpoints.md alone."""

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from checkpointer.serving import load
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.fsspec_store import Directory
from paramserver import parts

READER = Path(__file__).resolve().parents[3] / "examples" / "read_checkpoint.mjs"
NODE = shutil.which("node")
ROWS = [{"source": f"u{n}", "item": f"i{n}"} for n in range(20)]

pytestmark = pytest.mark.skipif(NODE is None, reason="no node here")


def read(root: Path, name: str, *keys: int) -> subprocess.CompletedProcess:
    asked = [str(NODE), str(READER), str(root / "clicks"), name, *map(str, keys)]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


def test_it_reads_the_weights_that_a_replica_serves(tmp_path, train):
    catalogue = Catalogue(Directory(str(tmp_path)), "clicks")
    base = train(catalogue, 1, ROWS, step=0.5, serving=True)
    delta = train(catalogue, 2, ROWS[:3], step=1.5, parent=base, delta=True, serving=True)
    for manifest in (base, delta):
        keys, rows = load(catalogue, manifest.name).weights.tables["weights"].items()
        found = json.loads(read(tmp_path, manifest.name, *keys.tolist(), 12345).stdout)
        assert found["rows"] == {"weights": len(keys)}
        told = found["weights"]["weights"]
        assert told.pop("12345") is None
        assert told == {str(k): row for k, row in zip(keys.tolist(), rows.tolist(), strict=True)}


@pytest.mark.parametrize("bits", [16, 8])
def test_it_reads_rounded_weights(tmp_path, train, config_of, monkeypatch, bits):
    import checkpoint_maker

    files = partial(parts.serving_files, bits=bits)
    monkeypatch.setattr(checkpoint_maker, "serving_files", files)
    catalogue = Catalogue(Directory(str(tmp_path)), "clicks")
    manifest = train(catalogue, 1, ROWS, 0.3, config_of(kind="fm", dim=7), serving=True)
    ((name, table),) = load(catalogue, manifest.name).weights.tables.items()
    keys, rows = table.items()
    found = json.loads(read(tmp_path, manifest.name, *keys.tolist()).stdout)
    told = found["weights"][name]
    assert told == {str(k): row for k, row in zip(keys.tolist(), rows.tolist(), strict=True)}


def test_it_names_a_file_that_is_not_as_its_manifest_says(tmp_path, train):
    catalogue = Catalogue(Directory(str(tmp_path)), "clicks")
    manifest = train(catalogue, 1, ROWS, serving=True)
    path = f"clicks/{manifest.name}/serving-1.safetensors"
    catalogue.files.write(path, catalogue.files.read(path)[:-1] + b"!")
    found = read(tmp_path, manifest.name)
    assert found.returncode != 0
    assert f"{manifest.name}/serving-1.safetensors: not as the manifest says" in found.stderr
