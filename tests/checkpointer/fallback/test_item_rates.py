"""Shows and clicks by item, fading, within bounds."""

import numpy as np
import pyarrow as pa
import pytest

from checkpointer.fallback.item_answers import ItemAnswers
from checkpointer.fallback.item_rates import STRENGTH, ItemRates

DAY_MS = 86_400_000
T0 = 1_700_000_000_000


def add(rates: ItemRates, items: list[str], clicked: list[int], at_ms: int = T0) -> None:
    shows = np.ones(len(items))
    rates.add(pa.array(items), shows, np.array(clicked, np.float64), at_ms)


def rates_of(**changed: int) -> ItemRates:
    return ItemRates(0.1, **({"items_max": 100, "half_life_ms": DAY_MS} | changed))


def test_a_rate_is_smoothed_towards_the_prior():
    rates = rates_of()
    add(rates, ["a"] * 80 + ["b"], [1] * 40 + [0] * 40 + [1])
    found = rates.rates(["a", "b", "never shown", None])
    expected = [(40 + 0.1 * STRENGTH) / (80 + STRENGTH), (1 + 0.1 * STRENGTH) / (1 + STRENGTH)]
    assert found.tolist() == pytest.approx([*expected, 0.1, 0.1])


def test_what_was_shown_long_ago_counts_less():
    """A show of a half-life ago counts half, whatever else was added, and in whatever order."""
    for order in ((0, 1), (1, 0)):
        rates = rates_of()
        for at in order:
            add(rates, ["a"] * 100, [1 - at] * 100, T0 + at * DAY_MS)
        wanted = (50 + 0.1 * STRENGTH) / (150 + STRENGTH)
        assert rates.rates(["a"])[0] == pytest.approx(wanted)


def test_weights_stay_finite_over_years_and_a_clock_that_is_off_wipes_nothing():
    rates = rates_of()
    for day in range(0, 2_000, 50):
        add(rates, ["a"] * 100, [1] * 50 + [0] * 50, T0 + day * DAY_MS)
    assert rates.rates(["a"])[0] == pytest.approx((50 + 0.1 * STRENGTH) / (100 + STRENGTH))
    add(rates, ["b"], [0], 9 * T0)
    add(rates, ["a"] * 100, [1] * 50 + [0] * 50, T0 + 1_950 * DAY_MS)
    assert rates.rates(["a"])[0] == pytest.approx((100 + 0.1 * STRENGTH) / (200 + STRENGTH))


def test_the_half_that_was_shown_the_most_stays():
    rates = rates_of(items_max=10)
    add(rates, [f"often-{i % 5}" for i in range(50)], [1] * 50)
    for i in range(100):
        add(rates, [f"once-{i}"], [1])
        assert len(rates) <= 10
    assert (rates.rates([f"often-{i}" for i in range(5)]) > 0.3).all()


def test_many_items_are_added_at_once_and_a_dictionary_may_name_one_twice():
    rates = rates_of(items_max=100_000)
    add(rates, [f"i-{i}" for i in range(5_000)], [1] * 5_000)
    assert (rates.rates([f"i-{i}" for i in range(5_000)]) > 0.1).all()
    twice = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["x", "x"]))
    rates.add(twice, np.ones(2), np.ones(2), T0)
    assert rates.rates(["x"])[0] == pytest.approx((2 + 0.1 * STRENGTH) / (2 + STRENGTH))
    rates.add(pa.array([], pa.string()), np.zeros(0), np.zeros(0), T0)


def test_answers_are_remembered_by_item_and_the_oldest_forgotten():
    answers = ItemAnswers(0.1, items_max=8)
    assert answers.rates(["a", None, ""]).tolist() == [0.1, 0.1, 0.1]
    answers.add(["a", None, "b"], [0.5, 0.9, 0.2], "v1")
    answers.add(["a"], [0.7], "v2")
    assert answers.rates(["a", "b", "c"]).tolist() == pytest.approx([0.54, 0.2, 0.1])
    assert answers.version == "v2"
    for i in range(100):
        answers.add([f"x{i}", "a"], [0.3, 0.54], "v3")
        assert len(answers) <= 8
    assert answers.rates(["a", "b", "x99"]).tolist() == pytest.approx([0.54, 0.1, 0.3])
