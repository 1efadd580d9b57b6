"""The shops that the breaker is measured on, and how its word is counted."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.attacks.breaker import FIRST_MS, judge, stories
from bench.attacks.breaker_shop import SLICES, CellCounts, Shop, Story, history_cells, tally_rows
from everspun.replay import History
from labeler import BreakerConfig
from labeler.breaker import GROUPS

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
    # A label of an hour has closed by the time that a cell of an hour is judged: nothing here was
    # in time.
    assert judged.share_withheld(("", ""), FIRST + 36, FIRST + 40) == 0.0
    assert sum(judged.trips.values()) == 1


def test_stories_end_within_the_run():
    for story in stories(BreakerConfig(slices=SLICES), 5):
        assert 0 < story.first < story.last <= 5 * 288


def test_a_history_is_counted_cell_by_cell():
    history = History(
        "three",
        "",
        np.array([0, 10, 7_200_000]),
        ["a", "b", "c"],
        ["s"] * 3,
        ["x", "y", "x"],
        ["v", "w", "v"],
        ["i"] * 3,
        [0] * 3,
        [{}] * 3,
        np.array([1]),
        np.array([20]),
        np.zeros(3, np.bool_),
    )
    cells = list(history_cells(history, CONFIG, lambda h: np.array([0, 1, 0])))
    assert [cell.impressions.get(("", ""), 0) for cell in cells] == [2, 0, 1]
    assert [cell.raw for cell in cells] == [1, 0, 0]
    assert cells[0].impressions["vendor", "w"] == 1


def _stopping(config, rng, phase, delay_ms, pause, left):
    """Two days of even traffic, and in the afternoon of the second so much of it is `left` for some
    cells from a moment within one on; clicks come `delay_ms` after their impression on average, and
    in their own time."""
    slots, day, cell_ms = 20, config.day_cells, config.cell_ms
    rate = np.full((2 * day + 30) * slots, 1_500.0 / slots)
    stop = int((2 * day - 20 + phase) * slots)
    rate[stop : stop + pause * slots] *= left
    shown = rng.poisson(rate)
    later = np.minimum(rng.exponential(delay_ms, (400,)), 3_500_000) // (cell_ms // slots)
    lag, count = np.unique(later.astype(int), return_counts=True)
    clicks, early, came = rng.binomial(shown, 0.1), np.zeros_like(shown), np.zeros_like(shown)
    for by, some in zip(lag, rng.multinomial(clicks, count / count.sum()).T, strict=True):
        came[by:] += some[: len(some) - by]
        early += some if by * (cell_ms // slots) < config.join_window_ms else 0
    for n, (seen, found, raw) in enumerate(
        zip(*(c.reshape(-1, slots).sum(1) for c in (shown, early, came)), strict=True)
    ):
        counts = rng.multinomial(seen, [1 / GROUPS] * GROUPS)
        people = (("", ""), counts, rng.multivariate_hypergeometric(counts, min(found, seen)))
        number = FIRST_MS // cell_ms + n
        yield CellCounts(
            number, tally_rows([people], number * cell_ms), int(raw), 0, {("", ""): int(seen)}
        )


@settings(max_examples=settings.default.max_examples // 8)
@given(
    st.integers(0, 10**6),
    st.floats(0, 0.999),
    st.sampled_from([60_000, 240_000, 600_000, 1_200_000]),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.3]),
)
def test_clicks_that_outlive_a_stop_of_traffic_are_no_missing_impressions(
    seed, phase, delay_ms, pause, left
):
    config = BreakerConfig(slices=SLICES, cell_ms=900_000, cells_max=8)
    cells = _stopping(config, np.random.default_rng(seed), phase, delay_ms, pause, left)
    assert not set(judge(cells, config).trips) - {
        "impression_outage"
    }  # which withholds what is not there


def test_impressions_that_are_lost_while_clicks_go_on_are_found_within_the_reach_of_a_click():
    config = BreakerConfig(slices=SLICES, cell_ms=900_000, cells_max=8)
    cells = list(_stopping(config, np.random.default_rng(1), 0.3, 240_000, 1, 1.0))
    lost = FIRST_MS // config.cell_ms + 2 * config.day_cells - 20
    kept = [c if not lost <= c.number < lost + 10 else _fewer(c, 8) for c in cells]
    judged = judge(kept, config)
    assert judged.trips == {"clicks_without_impressions": 1}
    assert judged.said["", ""] <= lost + config.early_cells


def _fewer(cell, by):
    """One of `by` impressions, with its clicks; all clicks still come."""
    rng, columns = np.random.default_rng(cell.number), ("group", "impressions", "clicks")
    seen, clicked = np.zeros(GROUPS, np.int64), np.zeros(GROUPS, np.int64)
    for group, shown, found in zip(
        *(cell.rows.column(name).to_numpy() for name in columns), strict=True
    ):
        seen[group] = rng.binomial(shown - found, 1 / by)
        clicked[group] = rng.binomial(found, 1 / by)
    seen += clicked
    rows = tally_rows([(("", ""), seen, clicked)], cell.number * 900_000)
    return replace(cell, rows=rows, impressions={("", ""): int(seen.sum())})
