import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointer.retention import Keep, Kept, expired


def chain(n, **changes):
    return [Kept(f"{i:02d}", i, f"s{i}", f"s{i - 1}" if i else None, **changes) for i in range(n)]


def test_the_last_few_and_the_parent_of_the_oldest_of_them_stay():
    assert expired(chain(10), "09", Keep(3)) == ["00", "01", "02", "03", "04", "05"]


def test_head_and_pinned_stay():
    assert expired(chain(6), "00", Keep(1), pinned=["02"]) == [
        "03"
    ]  # 01 is the parent of 02, 04 of 05


def test_deltas_keep_everything_down_to_their_base():
    entries = chain(3) + [
        Kept(f"{i:02d}", i, f"s{i}", f"s{i - 1}", full=False) for i in range(3, 7)
    ]
    assert expired(entries, "06", Keep(1)) == ["00", "01"]


def test_rejected_ones_do_not_push_good_ones_out():
    entries = chain(3) + [Kept(f"{i:02d}", i, f"s{i}", "s2", rejected=True) for i in range(3, 8)]
    assert expired(entries, "07", Keep(2, 1)) == ["03", "04", "05", "06"]
    assert "07" in expired(entries, "02", Keep(2, 0))


def test_those_of_a_move_push_nobody_out():
    """Several are taken within seconds, for shards to read ahead; what people go back to is what
    was published."""
    entries = chain(3) + [
        Kept(f"{i:02d}", i, f"s{i}", f"s{i - 1}", judged=False) for i in range(3, 6)
    ]
    assert expired([*entries, Kept("06", 6, "s6", "s5")], "06", Keep(2)) == ["00", "03", "04"]


def test_an_unfinished_one_goes_once_its_number_is_complete():
    assert expired([*chain(2), Kept("01x", 1), Kept("02x", 2)], "01", Keep(5)) == ["01x"]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="published=0"):
        expired([], None, Keep(0))


@given(
    st.integers(0, 30),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.data(),
)
def test_nothing_that_something_rests_on_is_deleted(n, keep, keep_rejected, hours, days, data):
    entries = []
    for i in range(n):
        parent = None if i == 0 else f"s{data.draw(st.integers(0, i - 1))}"
        entries.append(
            Kept(
                f"{i:02d}",
                i,
                f"s{i}",
                parent,
                data.draw(st.booleans()),
                i == 0 or data.draw(st.booleans()),
                created_ms=i * data.draw(st.sampled_from([1, 3_600_000, 90_000_000])),
            )
        )
    head = data.draw(st.sampled_from([e.name for e in entries])) if entries else None
    gone = set(expired(entries, head, Keep(keep, keep_rejected, hours, days)))
    assert head not in gone
    left = {e.sha256 for e in entries if e.name not in gone}
    good = [e for e in entries if not e.rejected]
    assert all(e.name not in gone for e in good[-keep:])
    by_sha = {e.sha256: e for e in entries}
    for entry in good[-keep:]:
        assert (
            entry.parent is None
            or entry.parent in left
            or (entry.full and not by_sha[entry.parent].full)
        )
    for entry in (e for e in entries if e.name not in gone):
        while not entry.full:
            entry = by_sha[entry.parent]
            assert entry.sha256 in left, "whatever is kept can be loaded"
    assert len(left) <= n


HOUR_MS = 3_600_000


def test_of_the_last_hours_and_days_one_each_stays():
    """A cut each twenty minutes for four days, deltas between full ones."""
    entries = [
        Kept(
            f"{i:03d}",
            i,
            f"s{i}",
            f"s{i - 1}" if i else None,
            full=i % 4 == 0,
            created_ms=i * HOUR_MS // 3,
        )
        for i in range(4 * 24 * 3)
    ]
    gone = set(expired(entries, entries[-1].name, Keep(2, 0, hours=5, days=3)))
    left = [e for e in entries if e.name not in gone]
    assert {e.created_ms // HOUR_MS for e in left} >= set(range(91, 96))
    assert {e.created_ms // (24 * HOUR_MS) for e in left} == {1, 2, 3}
    assert len(left) < 25


def test_many_that_came_at_once_leave_something_older():
    """Whatever pushes out the last few: hours and days are those of the clock."""
    old = [Kept(f"{i:03d}", i, f"s{i}", created_ms=i * HOUR_MS) for i in range(3)]
    burst = [Kept(f"{i:03d}", i, f"s{i}", created_ms=2 * HOUR_MS + i) for i in range(3, 200)]
    gone = expired([*old, *burst], "199", Keep(2, 0, hours=3, days=1))
    assert {"000", "001"} & set(gone) == set()
    assert len(gone) == 196
