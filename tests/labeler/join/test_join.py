import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.join.click_join import ClickJoin, ClickLimits
from labeler.join.duplicates import DuplicateIds
from labeler.join.ring_index import INDEX_ROOM, RING_MIN, home
from stream.kernels import GOLDEN

WINDOW, WAIT, EARLY, EARLY_CLICK = 20, 25, 5, 4
LIMITS = ClickLimits(WINDOW, WAIT, EARLY, EARLY_CLICK)
# Few ids. Most share one home in an index of any size, or have one close behind it: hashes that
# agree in the half that is scaled to the index, turned back into ids. So probes pass each other,
# and only a comparison tells them apart.
UNHASH = pow(int(GOLDEN), -1, 2**64)
CROWDED = [
    ((0x9ABCDEF0 + near) << 32 | low) * UNHASH % 2**64
    for near in (0, 0, 0, 1, 1 << 24)
    for low in (3, 77)
]
IDS = st.sampled_from([1, 2, 2**64 - 1, *sorted(set(CROWDED))])


def test_the_ids_of_these_tests_share_their_homes_at_every_size():
    for slots in (RING_MIN, 5 * RING_MIN, 1261):
        homes = [home(np.uint64(id), int(INDEX_ROOM * slots) + 1) for id in CROWDED]
        assert len(set(homes)) <= 3


def u64(values):
    return np.array(values, np.uint64)


def i64(values):
    return np.array(values, np.int64)


class ObviousJoin:
    def __init__(self):
        self.clicks = []

    def match(self, id, ts, arrival):
        near = [
            c_ts - ts
            for c_id, c_ts, c_arrival in self.clicks
            if c_id == id and c_ts - ts <= WINDOW and arrival - EARLY <= c_arrival <= arrival + WAIT
        ]
        delays = [max(delay, 0) for delay in near if delay >= -EARLY_CLICK]
        return (
            int(bool(delays)),
            delays[0] if delays else -1,
            len(delays),
            len(near) - len(delays),
        )


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("insert"),
            st.lists(st.tuples(IDS, st.integers(0, 60), st.integers(0, 3)), max_size=30),
        ),
        st.tuples(
            st.just("match"),
            st.lists(st.tuples(IDS, st.integers(0, 60), st.integers(0, 100)), max_size=5),
        ),
        st.tuples(st.just("evict"), st.integers(0, 30)),
    ),
    max_size=30,
)


@settings(max_examples=settings.default.max_examples * 2, deadline=None)
@given(steps)
def test_join_agrees_with_the_obvious_one(steps):
    join, obvious, now, evicted = ClickJoin(), ObviousJoin(), 0, 0
    for kind, rows in steps:
        if kind == "insert":
            arrivals = []
            for id, ts, later in rows:
                now += later
                arrivals.append(now)
                obvious.clicks.append((id, ts, now))
            join.insert(u64([r[0] for r in rows]), i64([r[1] for r in rows]), i64(arrivals))
        elif kind == "evict":
            evicted = max(evicted, now - rows)
            obvious.clicks = [c for c in obvious.clicks if c[2] >= evicted]
            join.evict(evicted)
            assert len(join) == len(obvious.clicks)
        else:
            got = join.match(
                u64([r[0] for r in rows]),
                i64([r[1] for r in rows]),
                i64([r[2] for r in rows]),
                LIMITS,
            )
            want = [obvious.match(*row) for row in rows]
            assert list(zip(*(column.tolist() for column in got), strict=True)) == want


@settings(max_examples=settings.default.max_examples * 2, deadline=None)
@given(
    st.lists(st.lists(st.tuples(IDS, st.integers(0, 15)), max_size=30), max_size=10),
    st.integers(0, 20),
)
def test_duplicates_agree_with_the_rule(chunks, dedup_ms):
    table, seen, now = DuplicateIds(dedup_ms), [], 1000
    for chunk in chunks:
        ids, arrivals, want = [], [], []
        for id, later in chunk:
            now += later
            want.append(any(other == id and at >= now - dedup_ms for other, at in seen))
            seen.append((id, now))
            ids.append(id)
            arrivals.append(now)
        assert table.add(u64(ids), i64(arrivals)).tolist() == want


def test_a_join_costs_at_most_40_bytes_a_click_however_many_it_holds():
    join = ClickJoin()
    for at in range(0, 1 << 16, 1024):
        arrivals = np.arange(at, at + 1024, dtype=np.int64)
        join.insert(arrivals.astype(np.uint64) * np.uint64(977), arrivals, arrivals)
        assert join.bytes / len(join) <= 40


def test_tables_shrink_when_what_they_held_has_left():
    join, ids = ClickJoin(), DuplicateIds(10)
    many = np.arange(10_000, dtype=np.int64)
    join.insert(many.astype(np.uint64), many, many)
    join.evict(9_990)
    ids.add(many.astype(np.uint64), np.zeros(10_000, np.int64))
    ids.add(u64([1]), i64([1_000]))
    assert join.bytes <= 36 * RING_MIN
    assert ids.bytes <= 22 * RING_MIN
    assert join.match(
        u64([9_995]), i64([9_995]), i64([9_995]), ClickLimits(1, 1, 1, 0)
    ).label.tolist() == [1]
