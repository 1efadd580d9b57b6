"""The guard of a shard's index: keys that crowd together make it choose another seed, and change
nothing else (S3)."""

import numpy as np
import pytest

from paramserver.messages import TableSpec
from paramserver.tables.hash_index import DISTANCE_MAX, REST_MIN, TAGS_MAX, Index
from paramserver.tables.table import Table

SPEC = TableSpec("w", 1, "sgd", {"rate": 1.0})
_BACK = [pow(factor, -1, 1 << 64) for factor in (0xC4CEB9FE1A85EC53, 0xFF51AFD7ED558CCD)]


def keys_of(hashes, seed):
    """The keys of which `stream.kernels.hashes.mix64(key ^ seed)` makes these."""
    h = hashes.copy()
    for factor in _BACK:
        h ^= h >> np.uint64(33)
        h *= np.uint64(factor)
    return (h ^ (h >> np.uint64(33))) ^ np.uint64(seed & (1 << 64) - 1)


def one_tag(count, seed, first=1):
    return keys_of(
        np.arange(first, first + count, dtype=np.uint64) << np.uint64(32) | np.uint64(0x12345678),
        seed,
    )


def one_home(count, seed, cells=1 << 20):
    """Of tags that differ, all with the same home in a table of up to so many cells."""
    return keys_of(np.arange(count, dtype=np.uint64) % np.uint64((1 << 32) // cells), seed)[
        : (1 << 32) // cells
    ]


def insert(table, keys, step=512):
    for at in range(0, len(keys), step):
        some = np.sort(keys[at : at + step])
        table.reserve(some)
        table.advance(at + 1, 1, len(some), 1, at + 1)
        table.apply(some, np.ones((len(some), 1), np.float32), at + 1, 1)
    table._row_store.validate()


@pytest.mark.parametrize("crafted", [one_tag, one_home])
def test_keys_made_to_crowd_together_are_spread_by_another_seed(crafted):
    table = Table(SPEC, secret=7)
    keys = crafted(4_000, int(table._row_store.index.span[2]))
    insert(table, keys)
    assert table.reseeded == 1
    assert table._row_store.index.strained >= 1
    np.testing.assert_array_equal(
        table.pull(np.sort(keys)), np.full((len(keys), 1), -1.0, np.float32)
    )
    assert len(table) == len(keys)


def test_it_is_made_anew_so_often_only_and_goes_on_in_between():
    table = Table(SPEC, secret=7)
    for time in range(8):  # somebody who reads the seed each time
        insert(table, one_tag(300, int(table._row_store.index.span[2]), 1 + 300 * time))
    assert 1 <= table.reseeded <= 1 + len(table) // REST_MIN
    assert len(table) == 2_400


def test_rows_and_answers_do_not_depend_on_the_secret():
    rng = np.random.default_rng(3)
    keys = np.unique(rng.integers(1, 1 << 63, 5_000, dtype=np.uint64))
    tables = [
        Table(TableSpec("w", 3, "adagrad", {"rate": 0.1}, init_scale=0.1), secret=secret)
        for secret in (0, 1, 2)
    ]
    for table in tables:
        rng = np.random.default_rng(4)
        for version in range(1, 30):
            some = np.sort(rng.choice(keys, 700, replace=False))
            table.reserve(some)
            table.advance(version, version * 1_000, len(some), version * 1_000, version)
            table.apply(
                some,
                rng.standard_normal((len(some), 3)).astype(np.float32),
                version,
                version * 1_000,
            )
        table._row_store.validate()
    seeds = {int(table._row_store.index.span[2]) for table in tables}
    assert len(seeds) == 3
    answers = [table.pull(keys).tobytes() for table in tables]
    assert answers[0] == answers[1] == answers[2]


def test_honest_keys_never_strain_it():
    rng = np.random.default_rng(5)
    table = Table(SPEC, secret=9)
    insert(table, np.unique(rng.integers(1, 1 << 63, 200_000, dtype=np.uint64)), 20_000)
    assert table._row_store.index.strained == table.reseeded == 0
    assert TAGS_MAX < DISTANCE_MAX


def test_without_memory_for_new_cells_it_goes_on_as_it_is(monkeypatch):
    def no_memory(*_):
        raise MemoryError

    table = Table(SPEC, 4_096, secret=7)
    keys = one_tag(40, int(table._row_store.index.span[2]))
    table.reserve(keys)
    monkeypatch.setattr("paramserver.tables.hash_index.zeroed", no_memory)
    table.advance(1, 1, len(keys), 1, 1)
    table.apply(np.sort(keys), np.ones((len(keys), 1), np.float32), 1, 1)
    table._row_store.validate()
    assert table.reseeded == 0
    assert table._row_store.index.strained > 0


def test_seeds_follow_from_the_secret_alone():
    assert Index(5).span[2] == Index(5).span[2] != Index(6).span[2]
