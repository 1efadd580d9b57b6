"""Tables in files without a name, and letters about them."""

import os
import sys

import numpy as np
import pytest

from checkpointer.store import Hold
from checkpointer.tables import Initial, ModelVersion
from checkpointer.tables.versioned_table import VersionedTable
from checkpointer.workers.cut_letter import CutLetter, FollowerState, decode_letter, mapped, share
from checkpointer.workers.epochs import READS_NONE, Epochs, epoch_of
from checkpointer.workers.memory_files import (
    MappedFiles,
    SharedMemory,
    TableFiles,
    content_of,
    memory_file,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd_create")


def files_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_lives_as_long_as_its_array_or_whoever_maps_it():
    before = files_open()
    files, maps = TableFiles(), MappedFiles()
    array = files.allocate(10_000)
    other = os.dup(files.file_of(array))
    seen = maps.array(other)
    again = maps.array(other)
    os.close(other)
    array[5_000] = 7
    assert seen[5_000] == again[5_000] == 7
    assert seen.ctypes.data == again.ctypes.data != array.ctypes.data
    del array
    assert files_open() == before + 1  # the mapping's
    assert seen[5_000] == 7
    del again
    assert seen.sum() == 7
    del seen
    assert files_open() == before


def test_a_file_of_bytes_is_read_whole():
    data = os.urandom(300_000)
    file = memory_file(data)
    assert content_of(file) == data == content_of(file)
    os.close(file)


def test_a_cut_is_read_from_the_files_that_come_with_its_letter(make):
    files, epochs = TableFiles(), Epochs(np.full(1, READS_NONE, np.int64))
    table = VersionedTable(3, 10, Initial(7, 0.5), 99, SharedMemory(files, epochs, 4))
    keys = np.arange(1, 200, dtype=np.uint64)
    rows = np.random.default_rng(0).standard_normal((len(keys), 3)).astype(np.float32)
    table.add(keys, rows)
    version = table.publish()
    dense = {"bias": np.array([1.5], np.float32)}
    cut, which = share(make(3), ModelVersion({"w": version}, dense), 4, files.file_of)
    assert cut.epoch == epoch_of(4, 1)
    state = FollowerState("clicks", Hold(), {"x": ("flipped byte", 5)}, "", 0.0)
    told = decode_letter(CutLetter(state, cut).encode())
    assert told.state == state
    assert told.cut is not None
    assert told.cut.manifest == make(3)
    assert told.cut.manifest.sha256 == make(3).sha256
    maps = MappedFiles()
    weights = mapped(told.cut, [maps.array(file) for file in which])
    asked = np.arange(0, 300, dtype=np.uint64)
    np.testing.assert_array_equal(weights.tables["w"].lookup(asked), version.lookup(asked))
    assert len(weights.tables["w"]) == len(keys)
    np.testing.assert_array_equal(weights.dense["bias"], dense["bias"])
    table.add(keys[:50], rows[:50] + 1)  # a writer goes on: this version does not change
    table.publish()
    np.testing.assert_array_equal(weights.tables["w"].lookup(keys), rows)
