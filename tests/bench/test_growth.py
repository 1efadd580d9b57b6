"""What `bench.growth` says of memory that it was given."""

import pytest

from bench.failures.growth import Look, growth


def test_memory_that_stands_has_not_grown_though_it_swings():
    found = growth([Look(5.0 * n, 100.0 + n % 2, 0.0) for n in range(96)])
    assert found["growth_percent"] == 0.0
    assert found["mib"] == pytest.approx(100.5)


def test_memory_that_grows_is_told_in_percent_of_its_mean_and_by_the_hour():
    hour = [Look(36.0 * n, 200.0 + n * 0.1, 0.0) for n in range(100)]
    found = growth(hour)
    assert found["growth_percent"] == pytest.approx(100 * 7.5 / 204.95, abs=0.1)
    assert found["slope_percent_per_hour"] == pytest.approx(100 * 10 / 204.95, abs=0.1)


def test_cpu_that_grows_while_memory_stands_is_told():
    looks, cpu_s = [], 0.0
    for n in range(80):
        looks.append(Look(10.0 * n, 100.0, cpu_s))
        cpu_s += 1.0 if n < 40 else 3.0
    found = growth(looks)
    assert (found["cpu_percent_from"], found["cpu_percent_to"]) == (10.0, 30.0)
