"""A table is a dict of rows, however its keys collide and whenever it grows."""

import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paramserver.messages import TableSpec
from paramserver.slots import SLOTS, SlotMap, foreign_key, slot_of
from paramserver.tables.arena import Arena
from paramserver.tables.table import Table, TableRows
from stream.kernels import mix64

SPEC = TableSpec("t", 3, "sgd", {"rate": 0.5}, init_scale=0.1, seed=7)


def keys_of(values) -> np.ndarray:
    return np.array(sorted(set(values)), np.uint64)


def unmix(h: int) -> int:
    """The key whose mix64 is h: keys that collide in every index can be made at will."""
    mask = (1 << 64) - 1
    for factor in (0xC4CEB9FE1A85EC53, 0xFF51AFD7ED558CCD):
        h ^= h >> 33
        h = h * pow(factor, -1, 1 << 64) & mask
    return h ^ h >> 33


# Any key, small keys, and keys whose hashes share their low 40 bits: the same home cell at every
# size.
some_keys = st.lists(
    st.one_of(
        st.integers(0, (1 << 64) - 1),
        st.integers(0, 40),
        st.integers(0, 60).map(lambda i: unmix(i << 40 | 3)),
    ),
    max_size=40,
).map(keys_of)


class TableAsDict(RuleBasedStateMachine):
    """Pull, push, delta, save and load against a dict that applies the same formula one key at a
    time."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(SPEC)
        self.model: dict[int, tuple[np.ndarray, int, int]] = {}  # key -> weights, version, event ms
        self.version = 0
        self.known = np.empty(0, np.uint64)

    def expected(self, key: int) -> np.ndarray:
        if key in self.model:
            return self.model[key][0]
        return Table(SPEC).pull(np.array([key], np.uint64))[0]

    @rule(keys=some_keys)
    def pull(self, keys):
        before = len(self.table)
        rows = self.table.pull(keys)
        assert rows.shape == (len(keys), 3)
        assert rows.dtype == np.float32
        for key, row in zip(keys.tolist(), rows, strict=True):
            np.testing.assert_array_equal(row, self.expected(key))
        assert len(self.table) == before, "a pull creates nothing (S3)"

    @rule(
        keys=some_keys,
        gradient=st.floats(-2, 2, width=32),
        event_ms=st.integers(0, 20).map(lambda s: 1000 * s),
    )
    def push(self, keys, gradient, event_ms):
        self.version += 1
        gradients = (
            np.full((len(keys), 3), gradient, np.float32)
            * np.arange(1, len(keys) + 1, dtype=np.float32)[:, None]
        )
        for key, g in zip(keys.tolist(), gradients, strict=True):
            seen = self.model[key][2] if key in self.model else 0
            row = self.expected(key) - np.float32(0.5) * g
            self.model[key] = (row, self.version, max(seen, event_ms))
        self.table.reserve(keys)
        self.table.apply(keys, gradients, self.version, event_ms)

    @rule(back=st.integers(0, 5))
    def delta(self, back):
        since = max(self.version - back, 0)
        items = self.table.items(since_version=since)
        assert set(items.keys.tolist()) == {
            k for k, (_, version, _) in self.model.items() if version > since
        }

    @rule(order_seed=st.integers(0, 9))
    def save_and_load_in_another_order(self, order_seed):
        items = self.table.items()
        order = np.random.default_rng(order_seed).permutation(len(items.keys))
        self.table = Table(SPEC)
        self.table.load(items.take(order))

    @invariant()
    def holds(self):
        self.table.validate()
        items = self.table.items()
        assert set(items.keys.tolist()) == set(self.model)
        for i, key in enumerate(items.keys.tolist()):
            row, version, event_ms = self.model[key]
            np.testing.assert_array_equal(items.rows[i], row)
            assert (items.version[i], items.touched_ms[i]) == (version, event_ms)


TestTableAsDict = TableAsDict.TestCase
TestTableAsDict.settings = settings(
    max_examples=settings.default.max_examples * 40 // 100, stateful_step_count=20, deadline=None
)


def test_it_grows_and_finds_everything():
    table = Table(TableSpec("t", 2, "adagrad", {"rate": 1.0, "accumulator": 0.0}))
    keys = np.arange(5000, dtype=np.uint64)
    for part in np.array_split(keys, 9):
        table.reserve(part)
        table.apply(part, np.ones((len(part), 2), np.float32), 1, 5)
    table.validate()
    assert len(table) == 5000
    np.testing.assert_allclose(table.pull(keys[::-1].copy()), -1.0)


def test_a_large_table_grows_in_place():
    """Past the size from which memory is mapped and moved: every row keeps its values and its
    place in the index."""
    table = Table(TableSpec("t", 64, "adagrad", init_scale=0.1))
    rng = np.random.default_rng(1)
    keys = np.unique(rng.integers(0, 1 << 63, 30_000).astype(np.uint64))
    expected = table.pull(keys)
    for version, part in enumerate(np.array_split(keys, 20)):
        table.reserve(part)
        table.apply(part, np.zeros((len(part), 64), np.float32), version, version)
    table.validate()
    np.testing.assert_array_equal(table.pull(keys), expected)
    items = table.items()
    np.testing.assert_array_equal(items.keys, keys)
    np.testing.assert_array_equal(
        items.version, np.repeat(np.arange(20), [len(p) for p in np.array_split(keys, 20)])
    )


@pytest.mark.parametrize("failing", [OSError, SystemError])
def test_where_memory_cannot_move_it_is_copied(monkeypatch, failing):
    class Stuck(mmap.mmap):
        def resize(self, newsize):
            raise failing

    monkeypatch.setattr("paramserver.tables.arena.mmap.mmap", Stuck)
    arena = Arena(1 << 15, 16, np.float32)
    arena.array[:] = np.arange(16)
    before = arena.array
    arena.grow(1 << 16)
    assert arena.array.shape == (1 << 16, 16)
    np.testing.assert_array_equal(arena.array[: 1 << 15], before)


def test_an_unmade_reservation_changes_nothing(monkeypatch):
    table = Table(SPEC)
    keys = np.arange(12, dtype=np.uint64)
    table.reserve(keys)
    table.apply(keys, np.ones((12, 3), np.float32), 1, 5)
    before = table.items()

    def no_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("paramserver.tables.row_store.Arena.grow", no_memory)
    with pytest.raises(MemoryError):
        table.reserve(np.arange(100, dtype=np.uint64))
    monkeypatch.undo()
    for a, b in zip(before, table.items(), strict=True):
        np.testing.assert_array_equal(a, b)
    table.validate()


@given(
    st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=50).map(keys_of),
    st.integers(0, 3),
    st.integers(1, 9),
)
@settings(max_examples=settings.default.max_examples // 2, deadline=None)
def test_initial_values_depend_on_key_and_seed_alone(keys, seed, dim):
    table = Table(TableSpec("t", dim, "adagrad", init_scale=0.25, seed=seed))
    once = table.pull(keys)
    assert (np.abs(once) <= 0.25).all()
    np.testing.assert_array_equal(table.pull(keys[::-1].copy())[::-1], once)
    for i in range(len(keys)):
        np.testing.assert_array_equal(table.pull(keys[i : i + 1]), once[i : i + 1])
    table.reserve(keys)
    table.apply(keys, np.zeros((len(keys), dim), np.float32), 1, 0)
    np.testing.assert_array_equal(table.pull(keys), once)


def test_initial_values_are_uniform_and_differ_by_seed_and_column():
    keys = np.arange(20_000, dtype=np.uint64)
    a = Table(TableSpec("t", 2, init_scale=1.0, seed=1)).pull(keys)
    b = Table(TableSpec("t", 2, init_scale=1.0, seed=2)).pull(keys)
    for column in (a[:, 0], a[:, 1], b[:, 0]):
        counts, _ = np.histogram(column, bins=10, range=(-1, 1))
        assert counts.sum() == len(keys)
        assert (np.abs(counts - 2000) < 200).all()
    assert abs(np.corrcoef(a[:, 0], a[:, 1])[0, 1]) < 0.03
    assert abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TableSpec("t", 0), "dim = 0"),
        (TableSpec("t", 1, init_scale=-1.0), "init_scale"),
        (TableSpec("t", 1, seed=-1), "seed = -1"),
        (TableSpec("t", 1, "ftrl", {"beta": 0.0}), "set beta above 0"),
    ],
)
def test_specs_that_cannot_be(spec, words):
    with pytest.raises(ValueError, match=words):
        Table(spec)


def test_rows_of_another_shape_are_not_loaded():
    items = TableRows(
        np.zeros(1, np.uint64),
        np.zeros((1, 4), np.float32),
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
    )
    with pytest.raises(ValueError, match=r"expected uint64 and \(1, 3\)"):
        Table(SPEC).load(items)


def test_mix64_is_murmur3s_finalizer():
    # fmix64 of the reference implementation, computed by its formula in Python integers
    assert int(mix64(np.uint64(0))) == 0
    for key in (1, 2, 1 << 63, (1 << 64) - 1, 0x9E3779B97F4A7C15):
        assert unmix(int(mix64(np.uint64(key)))) == key


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=60).map(keys_of), st.integers(1, 7))
@settings(max_examples=settings.default.max_examples // 2, deadline=None)
def test_split_deals_every_key_to_its_owner_in_order(keys, shards):
    slot_map = SlotMap.even(shards)
    parts = slot_map.split(keys)
    assert len(parts) == shards
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(keys)))
    for shard, indices in enumerate(parts):
        assert (np.diff(indices) > 0).all()
        assert (slot_map.owner[slot_of(keys[indices])] == shard).all()
        assert foreign_key(keys[indices], slot_map.owner, shard) == -1


def test_slots_are_even_and_maps_cover_them():
    keys = np.arange(1 << 17, dtype=np.uint64)
    counts = np.bincount(slot_of(keys), minlength=SLOTS)
    assert len(counts) == SLOTS
    assert counts.min() > 64
    for shards in (1, 2, 3, 1024):
        owned = [SlotMap.even(shards).owned(shard) for shard in range(shards)]
        np.testing.assert_array_equal(np.concatenate(owned), np.arange(SLOTS))
        assert owned[0][0] == 0, "shard 0 holds the clocks (K1)"
    with pytest.raises(ValueError, match="shards = 0"):
        SlotMap.even(0)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"ttl": 5000}, r"no policy 'ttl'.*did you mean 'ttl_ms'"),
        ({"ttl_ms": 10}, "ttl_ms = 10: allowed is 0 .off. or 1000 and more"),
        ({"rows_max": -1}, "rows_max = -1: must be 0"),
        ({"refuse": 2}, "refuse = 2: allowed is 0 or 1"),
    ],
)
def test_bad_policies_are_named(policy, words):
    with pytest.raises(ValueError, match=words):
        Table(TableSpec("t", 2, policy=policy))


def test_other_storage_is_refused_by_name():
    with pytest.raises(ValueError, match=r"storage = .float8., allowed are float32"):
        Table(TableSpec("t", 2, storage="float8"))
