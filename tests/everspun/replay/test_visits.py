"""What an impression carries of what its person saw before is what a site would know then."""

import dataclasses

import numpy as np

from everspun.replay.history import History
from everspun.replay.visits import with_visits


def history(shown: list[tuple[int, str, str]], clicks: list[tuple[int, int]]) -> History:
    """`shown`: (ts_ms, source, item); `clicks`: (ts_ms, which was clicked)."""
    count = len(shown)
    return History(
        name="h",
        note="",
        ts_ms=np.array([one[0] for one in shown], np.int64),
        ids=[f"e{i}" for i in range(count)],
        sessions=[one[1] for one in shown],
        sources=[one[1] for one in shown],
        vendors=[""] * count,
        items=[one[2] for one in shown],
        shown_at=[-1] * count,
        features=[],
        click_impression=np.array([one[1] for one in clicks], np.int64),
        click_ts_ms=np.array([one[0] for one in clicks], np.int64),
        planted=np.zeros(count, np.bool_),
    )


SHOWN = [(10, "u", "a"), (10, "u", "b"), (10, "w", "a"), (20, "u", "c"), (30, "u", "a")]


def carried(name: str, clicks: list[tuple[int, int]], most: int = 20) -> list:
    found = with_visits(history(SHOWN, clicks), most)
    return [one[name] for one in found.features]


def test_what_was_shown_before_stands_newest_first_and_a_page_view_does_not_see_itself():
    assert carried("seen", []) == [[], [], [], ["b", "a"], ["c", "b", "a"]]
    assert carried("seen", [], most=2) == [[], [], [], ["b", "a"], ["c", "b"]]


def test_a_click_is_known_from_its_time_on():
    assert carried("clicked", [(15, 0), (20, 1), (31, 3)]) == [[], [], [], ["b", "a"], ["b", "a"]]
    assert carried("clicked", [(21, 1)]) == [[], [], [], [], ["b"]]


def test_the_share_is_of_what_is_among_the_last_seen():
    assert carried("clicked_share", [(15, 0), (20, 1), (31, 3)]) == [0.5] * 3 + [0.75, 0.6]
    assert carried("clicked_share", [(15, 0), (31, 3)], most=2)[3:] == [0.5, 0.25]


def test_nothing_is_known_of_others():
    assert carried("clicked", [(11, 2)]) == [[]] * 5


def test_features_of_the_history_stay():
    plain = history(SHOWN, [])
    given = dataclasses.replace(plain, features=[{"year": i} for i in range(5)])
    assert [one["year"] for one in with_visits(given, 3).features] == list(range(5))
    assert "seen" not in given.features[0]
