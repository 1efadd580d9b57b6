"""What `bench.growth` says of memory that it was given."""

import pytest

from bench.failures.growth import growth


def test_memory_that_stands_has_not_grown_though_it_swings():
    times = [5.0 * n for n in range(96)]
    found = growth(times, [100.0 + n % 2 for n in range(96)])
    assert found["growth_percent"] == 0.0
    assert found["mib"] == pytest.approx(100.5)


def test_memory_that_grows_is_told_in_percent_of_its_mean_and_by_the_hour():
    times = [36.0 * n for n in range(100)]  # an hour
    found = growth(times, [200.0 + n * 0.1 for n in range(100)])
    assert found["growth_percent"] == pytest.approx(100 * 7.5 / 204.95, abs=0.1)
    assert found["slope_percent_per_hour"] == pytest.approx(100 * 10 / 204.95, abs=0.1)
