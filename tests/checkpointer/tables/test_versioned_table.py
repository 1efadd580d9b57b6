"""A table against a dictionary: every version that somebody holds is the dictionary of its
moment."""

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.tables.versioned_table import NO_CELLS, Initial, TableVersion, VersionedTable
from paramserver.tables import fill_unknown

WORD = 1 << 64


def unmixed(hashed: int) -> int:
    """The key whose hash this is: the inverse of murmur3's finalizer."""
    for step in (33, 0x9CB4B2F8129337DB, 33, 0x4F74430C22A54005, 33):
        hashed = hashed ^ hashed >> step if step == 33 else hashed * step % WORD
    return hashed


#: Few hashes, of which many agree in the half that stands in a cell, at both ends of the cells and
#: between.
TAGS = (0, 1, 2, 0xFFFFFFFF, 0xFFFFFFFE, 0x80000000)
KEYS = [unmixed(high << 32 | tag) for tag in TAGS for high in range(12)]
DIM = 3
INITIAL = Initial(7, 0.5)


def keys_of(which: Any) -> np.ndarray:
    return np.array(sorted(which), np.uint64)


def rows_of(keys: np.ndarray, number: int) -> np.ndarray:
    """What the delta that makes version `number` says of these keys."""
    return (
        (keys % np.uint64(1000)).astype(np.float32)[:, None]
        + np.arange(DIM, dtype=np.float32) / 4
        + number * 1000
    )


def check(version: TableVersion, model: dict[int, np.ndarray], keys: list[int]) -> None:
    asked = keys_of(keys)
    expected = np.empty((len(asked), DIM), np.float32)
    unknown = np.full(len(asked), -1, np.int64)
    fill_unknown(expected, asked, unknown, np.uint64(INITIAL.seed), np.float32(INITIAL.scale), DIM)
    for i, key in enumerate(asked.tolist()):
        if key in model:
            expected[i] = model[key]
    np.testing.assert_array_equal(version.lookup(asked), expected)
    assert ((version.find(asked) >= 0) == [key in model for key in asked.tolist()]).all()
    there, rows = version.items()
    assert there.tolist() == sorted(model)
    assert len(version) == len(model)
    np.testing.assert_array_equal(rows, [model[key] for key in sorted(model)] or np.empty((0, DIM)))


DELTAS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(KEYS)),
        st.sets(st.sampled_from(KEYS)),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=settings.default.max_examples * 120 // 100, deadline=None)
@given(st.sets(st.sampled_from(KEYS)), DELTAS, st.integers(0, 1))
def test_every_version_held_is_the_dictionary_of_its_moment(base, deltas, secret):
    table = VersionedTable(DIM, 4, INITIAL, secret)
    model: dict[int, np.ndarray] = {}
    held: list[tuple[TableVersion, dict[int, np.ndarray]]] = [(table.current, {})]
    for gone, given_, let_go, crowd in [(set(), base, 0, False), *deltas]:
        number = table.number + 1
        table.remove(keys_of(gone))
        added = keys_of(given_ | (set(range(5_000, 5_100)) if crowd else set()))
        table.add(added, rows_of(added, number))
        version = table.publish()
        model = {key: row for key, row in model.items() if key not in gone}
        model |= dict(zip(added.tolist(), rows_of(added, number), strict=True))
        held = [*held[let_go:], (version, model)]
        for one, then in held:
            check(one, then, [*KEYS, *range(4_990, 5_110)])
        table.validate()


def test_rows_that_nobody_can_see_are_used_again():
    table = VersionedTable(DIM, 1_000)
    keys = np.arange(1, 1_001, dtype=np.uint64)
    table.add(keys, rows_of(keys, 1))
    table.publish()
    first = table.slots_used
    for number in range(2, 300):
        table.add(keys[:100], rows_of(keys[:100], number))
        table.remove(keys[900:])
        table.publish()
        table.add(keys[900:], rows_of(keys[900:], number))
        table.publish()
    assert table.slots_used <= first + 600
    assert len(table.current) == 1_000


def test_a_version_that_is_held_keeps_its_rows_and_no_more():
    table = VersionedTable(DIM, 100)
    keys = np.arange(1, 101, dtype=np.uint64)
    table.add(keys, rows_of(keys, 1))
    held = table.publish()
    for number in range(2, 50):
        table.add(keys, rows_of(keys, number))
        table.publish()
    np.testing.assert_array_equal(held.lookup(keys), rows_of(keys, 1))
    assert table.slots_used <= 100 * 49
    del held
    table.publish()
    before = table.slots_used
    for number in range(50, 90):
        table.add(keys, rows_of(keys, number))
        table.publish()
    assert table.slots_used == before


@pytest.mark.long
def test_cells_grow_bit_by_bit_while_versions_from_before_are_read():
    table = VersionedTable(1, 10)
    rng = np.random.default_rng(5)
    known: dict[int, float] = {}
    held = []
    for number in range(1, 60):
        keys = np.unique(rng.integers(1, 1 << 63, 3_000, dtype=np.uint64))
        again = rng.choice(keys_of(known), 500, replace=False) if known else keys[:0]
        keys = np.union1d(keys, again)
        table.add(keys, np.full((len(keys), 1), number, np.float32))
        known |= dict.fromkeys(keys.tolist(), float(number))
        version = table.publish()
        if number % 20 == 3:
            held.append((version, dict(known)))
    table.validate()
    assert table.old is NO_CELLS or len(table.old)
    for version, then in [*held, (table.current, known)]:
        keys = keys_of(then)
        assert version.lookup(keys)[:, 0].tolist() == [then[key] for key in keys.tolist()]


def test_readers_on_other_threads_see_one_version_each():
    """A version's rows all say its number, or that of the delta that wrote them; those taken out
    are unknown."""
    table = VersionedTable(2, 4_000, Initial(0, 0.0))
    keys = np.arange(1, 4_001, dtype=np.uint64)
    table.add(keys, np.ones((len(keys), 2), np.float32))
    table.publish()
    models = {
        1: np.ones(len(keys), np.float32)
    }  # version -> what every key says, 0 = it has no row
    current = [table.current]
    faults: list[str] = []
    read = [0, 0]
    stop = threading.Event()

    def reader(index: int) -> None:
        while not stop.is_set():
            version = current[0]
            found = version.lookup(keys)
            if not (found == models[version.number][:, None]).all():
                faults.append(f"version {version.number}")
                return
            read[index] += 1

    threads = [threading.Thread(target=reader, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    rng = np.random.default_rng(3)
    for number in range(2, 400):
        model = models[number - 1].copy()
        gone, some = (
            rng.choice(len(keys), 300, replace=False),
            rng.choice(len(keys), 700, replace=False),
        )
        table.remove(keys[np.sort(gone)])
        model[gone] = 0
        table.add(keys[np.sort(some)], np.full((len(some), 2), number, np.float32))
        model[some] = number
        models[number] = model
        current[0] = table.publish()
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert min(read) > 0
    table.validate()


def test_a_table_that_is_full_says_so():
    table = VersionedTable(1, 0)
    table.room = 10
    with pytest.raises(MemoryError, match="load it anew"):
        table.add(np.arange(1, 20, dtype=np.uint64), np.zeros((19, 1), np.float32))


def test_what_does_not_fit_is_refused():
    table = VersionedTable(2, 0)
    with pytest.raises(ValueError, match="expected uint64"):
        table.add(np.arange(1, 3, dtype=np.uint64), np.zeros((2, 1), np.float32))
