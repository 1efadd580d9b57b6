import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointer.serving.replica import Follower
from checkpointer.store import Announcement, Damaged, Hold, Part, Ref, announce, decode
from checkpointer.store.delta_chain import steps

DELTA = (Part(0, "p", "0" * 64, 1, 1, 0, "delta"),)
FULL = (Part(0, "p", "0" * 64, 1, 1),)


def ref(number):
    return Ref(number, f"{number:08d}-c", f"sha{number}")


def said(kind, number, revision=0):
    return Announcement(
        kind, "clicks", number, ref(number).name, "u", f"sha{number}", revision=revision
    )


def load(follower, now_ms=0):
    while (wanted := follower.wanted(now_ms)) is not None:
        follower.loaded(wanted)
    return follower.serving


def test_the_newest_published_is_wanted_whatever_the_order():
    follower = Follower("clicks")
    assert follower.wanted(0) is None
    for number in (3, 5, 4):
        follower.on_announcement(said("published", number))
    follower.on_announcement(said("rejected", 6))
    follower.on_announcement(Announcement("published", "other", 9, "n", "u", "s"))
    assert load(follower) == ref(5)
    assert follower.wanted(0) is None


def test_a_refused_one_costs_freshness_not_the_service():
    follower = Follower("clicks", retry_ms=100)
    follower.on_published([ref(1), ref(2)])
    assert follower.wanted(0) == ref(2)
    follower.refuse(ref(2), "flipped byte", 0)
    assert load(follower) == ref(1)
    assert follower.wanted(99) is None
    assert follower.wanted(100) == ref(2)


def test_a_hold_goes_back_and_holds_until_lifted():
    follower = Follower("clicks")
    follower.on_published([ref(n) for n in range(5)])
    assert load(follower) == ref(4)
    follower.on_announcement(said("rolled_back", 2, revision=1))
    assert load(follower) == ref(2)
    follower.on_announcement(said("published", 5))
    assert follower.wanted(0) is None
    follower.on_announcement(said("lifted", 5, revision=2))
    follower.on_announcement(said("rolled_back", 2, revision=1))  # read again, late
    follower.on_hold(Hold(1, ref(2)))
    assert load(follower) == ref(5)


def test_a_held_checkpoint_that_is_damaged_falls_back_to_an_older_one_not_to_what_was_rolled_back():
    follower = Follower("clicks")
    follower.on_published([ref(n) for n in range(5)])
    load(follower)
    follower.on_hold(Hold(1, ref(2)))
    follower.refuse(ref(2), "missing", 0)
    assert follower.wanted(0) == ref(1)


def test_memory_of_old_checkpoints_is_bounded():
    follower = Follower("clicks", known_max=3)
    for n in range(10):
        follower.on_published([ref(n)])
        follower.refuse(ref(n), "x", 0)
    assert sorted(r.number for r in follower.known.values()) == [7, 8, 9]
    assert len(follower.refused) == 3


@given(
    st.lists(
        st.tuples(st.sampled_from(["published", "hold", "load", "refuse"]), st.integers(0, 9)),
        max_size=40,
    )
)
def test_what_is_wanted_was_published_or_held_and_is_never_above_the_hold(events):
    follower, heard, revision = Follower("clicks"), set(), 0
    for now_ms, (event, number) in enumerate(events):
        if event == "published":
            follower.on_announcement(said("published", number))
            heard.add(number)
        elif event == "hold":
            revision += 1
            follower.on_hold(Hold(revision, ref(number) if number % 2 else None))
            heard |= {number} if number % 2 else set()
        wanted = follower.wanted(now_ms)
        if wanted is not None:
            assert wanted.number in heard
            assert follower.hold.ref is None or wanted.number <= follower.hold.ref.number
            assert wanted != follower.serving
            if event == "load":
                follower.loaded(wanted)
            elif event == "refuse":
                follower.refuse(wanted, "x", now_ms)
                assert follower.wanted(now_ms) != wanted


def test_deltas_apply_to_their_parent_or_from_a_base(make):
    base = make(0, parts=FULL)
    one = make(1, parts=DELTA, parent=base.sha256)
    two = make(2, parts=DELTA, parent=one.sha256)
    by_sha = {m.sha256: m for m in (base, one, two)}
    assert steps(two, one.sha256, by_sha.get) == (two,)
    assert steps(two, base.sha256, by_sha.get) == (one, two)
    assert steps(two, None, by_sha.get) == (base, one, two)
    assert steps(two, "another", by_sha.get) == (
        base,
        one,
        two,
    )  # X3: never a delta upon another parent
    assert steps(base, two.sha256, by_sha.get) == (base,)
    with pytest.raises(Damaged, match="00000001-c: its parent"):
        steps(two, None, {one.sha256: one}.get)


def test_announcements_survive_the_topic(make):
    original = announce("published", make(3), "file:///x", now_ms=5, reason="r")
    assert decode(original.encode()) == original
    assert original.ref == Ref(3, "00000003-c", make(3).sha256)
    with pytest.raises(ValueError, match="kind: 'gone'"):
        decode(b'{"kind":"gone"}')
    with pytest.raises(ValueError, match="checkpoints record"):
        decode(b'{"kind":"published","extra":1}')
