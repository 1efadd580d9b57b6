"""Sums over evaluations: each once, in memory that does not grow with them."""

import json
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from everspun.audit import SeenRanges
from everspun.audit.seen_ranges import RANGES_MAX
from everspun.status import plots
from everspun.status.quality import Quality
from everspun.status.report import quality_rows

SAID = {
    "model": "shop",
    "chain": "label/0",
    "start": 0,
    "end": 100,
    "rows": 10,
    "log_loss_sum": 2.0,
    "prediction_sum": 3.0,
    "label_sum": 4.0,
    "ts_ms_max": 86_400_000,
    "bins": [[10, 3.0, 4.0], [0, 0, 0]],
    "staleness": [0, 2, 2],
}


def record(**changed: object) -> bytes:
    return json.dumps(SAID | changed).encode()


def test_a_repeat_and_another_models_evaluation_are_not_counted():
    quality = Quality("shop")
    assert quality.add(record())
    assert not quality.add(record())
    assert not quality.add(record(model="other", start=100, end=200))
    assert quality.add(record(start=100, end=200))
    assert (quality.rows, quality.log_loss, quality.calibration) == (20, 0.2, 0.75)
    assert quality.days == {1: [20, 4, 8, 0, 0, 0]}
    assert quality.bins == [[20, 6, 8], [0, 0, 0]]
    assert quality.staleness == {0: 2, 2: 4}
    for drawn in (
        plots.learning_curve(quality.days),
        plots.calibration(quality.bins),
        plots.staleness(quality.staleness),
    ):
        assert drawn.startswith("<svg")


def test_junk_is_no_evaluation_and_ends_nothing():
    quality = Quality("shop")
    for junk in (
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"3",
        b'{"model": "shop"}',
        b"[" * 100_000,
        record(rows="many"),
    ):
        assert not quality.add(junk)
    assert not quality.add(record(rows=float("nan")))
    assert not quality.add(record(start=None))
    assert quality.add(record(bins="x", staleness=7))
    assert quality.rows == 10


def test_memory_stays_whatever_is_counted():
    """Days, chains and ranges apart from each other, as a fault or a year would leave them."""
    quality = Quality("shop")
    values = [
        record(start=n * 1_048_576 + 7, end=n * 1_048_576 + 107, staleness=[n])
        for n in range(4_000)
    ]
    for value in values[:1_000]:
        quality.add(value)
    tracemalloc.start()
    for value in values[1_000:]:
        quality.add(value)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert quality.rows == 40_000
    assert held / 3_000 < 150  # a number and its count a value of staleness, up to STALENESS_MAX


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=60))
def test_a_chain_of_ranges_is_seen_as_a_set_of_its_places_would_see_it(
    ranges: list[tuple[int, int]],
):
    seen, places = SeenRanges(), set[int]()
    for start, length in ranges:
        assert seen.add("c", start, start + length) == (start not in places)
        if start not in places:
            ahead = [p for p in range(start, start + length) if p in places]
            places |= set(range(start, min([start + length, *ahead])))


def test_gaps_are_bounded_and_a_stream_without_them_is_one_range():
    seen = SeenRanges()
    for n in range(10 * RANGES_MAX):
        assert seen.add("gaps", 3 * n, 3 * n + 2)
        assert seen.add("none", n, n + 1)
    assert len(seen._starts["gaps"]) == RANGES_MAX
    assert len(seen._starts["none"]) == 1


def test_figures_of_nothing_are_a_dash():
    said = dict(quality_rows(Quality("shop")))
    assert said["progressive log loss"] == said["progressive calibration"] == "-"
    assert (
        dict(quality_rows(Quality("shop", rows=10, log_loss_sum=5.0)))["progressive log loss"]
        == "0.5000"
    )
