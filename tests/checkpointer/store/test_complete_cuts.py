"""What the governor takes of a checkpoint is what the whole checkpoint holds of those keys."""

import numpy as np
import pytest

from checkpointer.store.catalogue import Catalogue
from checkpointer.store.fsspec_store import open_store
from everspun.roles.complete_cuts import StoredCuts
from learners.governor import CompleteCut, CutGone
from learners.governor.shadow import touched_only
from paramserver import Progress
from paramserver.parts import whole
from paramserver.parts.part import to_arrays
from paramserver.server import read_part

ROWS = [{"source": f"u{n}", "item": f"i{n % 7}"} for n in range(40)]


def test_rows_are_found_by_key_in_base_and_deltas(tmp_path, train, config_of):
    catalogue = Catalogue(open_store(str(tmp_path)), config_of().name)
    cuts = StoredCuts(catalogue)
    assert cuts.newest() is None
    base = train(catalogue, 0, ROWS)
    head = train(catalogue, 1, ROWS[10:20], step=3.0, parent=base, delta=True)
    cut = cuts.newest()
    assert cut is not None
    assert (cut.number, cut.cut, cut.progress.chains) == (1, "c", head.chains)
    full = whole(
        (one.sha256, [read_part(catalogue.part_url(one, part.shard)) for part in one.parts])
        for one in catalogue.chain(head)
    )
    (name,) = full.tables
    some = np.sort(full.tables[name].keys)[::3]
    wanted = {
        name: np.unique(np.concatenate([some, np.arange(5, dtype=np.uint64)]))
    }  # and keys that have no row
    found, told = to_arrays(cuts.touched(cut, wanted))
    expected, said = to_arrays(touched_only(full, wanted))
    assert len(expected[f"table/{name}/keys"]) == len(some)
    assert told == said
    assert found.keys() == expected.keys()
    for column, array in expected.items():
        assert array.tobytes() == found[column].tobytes(), column


def test_a_cut_that_retention_took_is_named(tmp_path, train, config_of):
    catalogue = Catalogue(open_store(str(tmp_path)), config_of().name)
    cuts = StoredCuts(catalogue)
    there = train(catalogue, 0, ROWS)
    with pytest.raises(CutGone, match="checkpoint 5 of"):
        cuts.touched(CompleteCut(5, "c", Progress({}, {}), {}), {})
    (tmp_path / there.model / there.name / there.parts[1].path).unlink()
    cut = cuts.newest()
    assert cut is not None
    with pytest.raises(CutGone, match="part-1"):
        cuts.touched(cut, {})


def test_a_part_that_is_none_is_named(tmp_path, train, config_of):
    catalogue = Catalogue(open_store(str(tmp_path)), config_of().name)
    there = train(catalogue, 0, ROWS)
    (tmp_path / there.model / there.name / there.parts[0].path).write_bytes(b"no part at all")
    cut = StoredCuts(catalogue).newest()
    assert cut is not None
    with pytest.raises(CutGone, match=r"part-0.safetensors: not a safetensors file"):
        StoredCuts(catalogue).touched(cut, {})
