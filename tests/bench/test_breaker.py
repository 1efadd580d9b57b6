"""The shops that the breaker is measured on, and how its word is counted."""

import numpy as np

from bench.breaker import FIRST_MS, judge, stories
from bench.breaker_shop import SLICES, Shop, Story, history_cells
from everspun.history import History
from labeler.breaker_config import BreakerConfig
from labeler.tally import GROUPS

CONFIG = BreakerConfig(slices=SLICES, cell_ms=3_600_000, cells_max=4, history_cells_min=12)
FIRST = FIRST_MS // CONFIG.cell_ms


def test_a_shops_slices_add_up_and_its_evenings_are_busy():
    cells = list(Shop(20.0, 1, CONFIG).cells(FIRST, 1))
    assert [cell.number for cell in cells] == list(range(FIRST, FIRST + 24))
    for cell in cells:
        for feature in SLICES:
            counts = [n for (name, _), n in cell.impressions.items() if name == feature]
            assert sum(counts) == cell.impressions["", ""]
        assert cell.rows is not None
        assert set(cell.rows.column("group").to_pylist()) <= set(range(GROUPS))
    assert cells[12].impressions["", ""] > 5 * cells[0].impressions["", ""]


def test_an_outage_is_found_and_counted_where_its_labels_were_still_open():
    story = Story("all", ("", ""), 36, 40)
    judged = judge(Shop(200.0, 2, CONFIG, stories=(story,)).cells(FIRST, 2), CONFIG)
    assert judged.said["", ""] == FIRST + 36
    # A label of an hour has closed by the time that a cell of an hour is judged: nothing here was in time.
    assert judged.share_withheld(("", ""), FIRST + 36, FIRST + 40) == 0.0
    assert sum(judged.trips.values()) == 1


def test_stories_end_within_the_run():
    for story in stories(BreakerConfig(slices=SLICES), 5):
        assert 0 < story.first < story.last <= 5 * 288


def test_a_history_is_counted_cell_by_cell():
    history = History(
        "three", "", np.array([0, 10, 7_200_000]), ["a", "b", "c"], ["s"] * 3, ["x", "y", "x"], ["v", "w", "v"],
        ["i"] * 3, [0] * 3, [{}] * 3, np.array([1]), np.array([20]), np.zeros(3, np.bool_),
    )  # fmt: skip
    cells = list(history_cells(history, CONFIG, lambda h: np.array([0, 1, 0])))
    assert [cell.impressions.get(("", ""), 0) for cell in cells] == [2, 0, 1]
    assert [cell.raw for cell in cells] == [1, 0, 0]
    assert cells[0].impressions["vendor", "w"] == 1
