"""Rows by key in rooms: whatever is put, dropped and put again, the newest is found."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.columns.counters import KeySequences, KeyTotals
from stream.columns.counters.key_rows import SequencesRows, TotalsRows, keys_of
from stream.columns.counters.key_table import LOAD_MAX, KeyTable
from stream.log.rows import MemoryStorage, RocksStorage, Rooms
from stream.log.rows.rooms import WINDOW_BYTES

KEYS = st.lists(st.integers(0, 400), max_size=150, unique=True)
STEPS = st.lists(st.tuples(st.sampled_from(("put", "put", "drop")), KEYS), max_size=12)
#: Keys whose homes are few, so that runs are long.
SPREAD = np.uint64(0x9E3779B97F4A7C15)


def keys_from(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, np.uint64) * SPREAD


@pytest.fixture(params=["memory", "disk"])
def rooms(request, tmp_path):
    storage = MemoryStorage() if request.param == "memory" else RocksStorage(tmp_path / "rows")
    yield Rooms(storage, 0)
    storage.close()


@settings(deadline=None)
@given(STEPS)
def test_a_table_is_a_dictionary(steps):
    table, truth = KeyTable(Rooms(MemoryStorage(), 0), 2), dict[int, list[int]]()
    for n, (what, numbers) in enumerate(steps):
        keys = keys_from(numbers)
        if what == "put":
            rows = np.array([[n, k] for k in numbers], np.uint64).reshape(-1, 2)
            table.put(keys, rows)
            truth |= {k: [n, k] for k in numbers if k}
        else:
            table.drop(keys)
            for k in numbers:
                truth.pop(k, None)
        asked = list(range(402))
        assert table.find(keys_from(asked)).tolist() == [truth.get(k, [0, 0]) for k in asked]
        assert len(table) == len(truth)
        assert len(table) <= LOAD_MAX * len(table.cells) or not truth


def sequences(keys: list[int], clicks: list[list[str]], bucket: int) -> KeySequences:
    ends = np.cumsum([0, *map(len, clicks)])
    values = [value for each in clicks for value in each]
    n = np.full(len(keys), bucket)
    times = np.arange(len(values)) + 1_000 * bucket
    return KeySequences(keys_from(keys), n, ends, times, pa.array(values, pa.string()))


def shown(rows: KeySequences) -> list[tuple[int, list[int], list[str]]]:
    values = rows.values.to_pylist()
    return [
        (int(rows.bucket[i]), rows.times[a:b].tolist(), values[a:b])
        for i, (a, b) in enumerate(zip(rows.ends[:-1], rows.ends[1:], strict=True))
    ]


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
CLICKS = st.dictionaries(st.integers(1, 60), st.lists(TEXT, max_size=5), max_size=40)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), CLICKS), max_size=12))
def test_sequences_are_found_as_they_were_put(steps):
    rows, truth = SequencesRows(Rooms(MemoryStorage(), 0)), {}
    for n, (puts, clicks) in enumerate(steps, 1):
        if puts:
            said = sequences(list(clicks), list(clicks.values()), n)
            rows.put(said)
            truth |= dict(zip(clicks, shown(said), strict=True))
        else:
            rows.drop(keys_from(list(clicks)))
            truth = {key: row for key, row in truth.items() if key not in clicks}
        asked = [5, *range(62), 5]
        assert shown(rows.find(keys_from(asked))) == [truth.get(k, (0, [], [])) for k in asked]
        assert len(rows) == len(truth)
    assert shown(rows.find(keys_from([]))) == []


def test_rows_that_grow_and_go_leave_their_room_to_others(rooms):
    rows = SequencesRows(rooms)
    for n in range(200):
        keys = [1 + (n * 7 + k) % 50 for k in range(20)]
        rows.put(sequences(keys, [["x" * (n % 40)] * (n % 4)] * 20, n))
        rows.drop(keys_from(keys[:10]))
    assert rooms.memory_bytes <= 4 * WINDOW_BYTES
    assert len(rows._words) <= 8_192  # 50 rows of at most 25 words, and as much again
    rows.clear()
    assert (len(rows), rooms.memory_bytes) == (0, 0)
    assert shown(rows.find(keys_from([3]))) == [(0, [], [])]


def test_packs_come_back_as_they_were(rooms):
    totals = KeyTotals(
        np.array([3, 9, 1 << 63], np.uint64),
        np.array([0.5, 0.0, 1e300]),
        np.array([1.0, 2.0, 3.0]),
        np.array([7, 0, 1 << 40]),
    )
    said = TotalsRows(rooms)
    packs = said.packed(totals, np.array([0, 1, 3]))
    assert [keys_of(pack).tolist() for pack in packs] == [[3], [9, 1 << 63]]
    for pack, at in zip(packs, (slice(0, 1), slice(1, 3)), strict=True):
        for found, column in zip(said.unpacked(pack), totals, strict=True):
            assert found.tolist() == column[at].tolist()
    clicks = KeySequences(
        np.array([1, 2, 3, 4], np.uint64),
        np.array([5, 6, 7, 8]),
        np.array([0, 2, 2, 3, 4]),
        np.array([11, 10, 9, 8]),
        pa.array(["late", "", "ü", "x" * 1_000, "beyond"]).slice(0, 4),
    )
    rows = SequencesRows(rooms)
    packs = rows.packed(clicks, np.array([0, 3, 4]))
    found = [row for pack in packs for row in shown(rows.unpacked(pack))]
    assert found == shown(clicks)
    assert [keys_of(pack).tolist() for pack in packs] == [[1, 2, 3], [4]]
    assert rows.packed(clicks, np.array([0])) == []


def test_what_leaves_memory_is_still_there(tmp_path):
    """More than may be in memory, on disk."""
    storage = RocksStorage(tmp_path / "rows")
    rooms = Rooms(storage, 3 * WINDOW_BYTES)
    table, keys = KeyTable(rooms, 1), keys_from(list(range(1, 20_001)))
    table.put(keys, np.arange(20_000, dtype=np.uint64)[:, None])
    most = 0
    for at in range(0, 20_000, 20):
        for k in range(at, at + 20):
            assert table.find(keys[k : k + 1]).tolist() == [[k]]
            most = max(most, rooms.memory_bytes)
    assert most == 3 * WINDOW_BYTES
    assert table.cells.nbytes > 6 * WINDOW_BYTES
    assert list(tmp_path.iterdir()) == [tmp_path / "rows"]  # a room has no name
    storage.close()
