"""Limits of waiting grow with the machine's load, and not where it has none."""

import pytest

from stream.monitoring.time_limit import TimeLimit, processes_per_core


@pytest.mark.parametrize(("busy", "lasts_s"), [(1.0, 10), (4.0, 40)])
def test_a_busy_machine_is_given_more_time(busy: float, lasts_s: int):
    now_s = [5.0]
    limit = TimeLimit(10.0, lambda: busy, lambda: now_s[0])
    for passed in range(lasts_s):
        assert limit.left_s == lasts_s - passed
        assert not limit.over
        now_s[0] += 1.0
    assert limit.over


def test_what_was_waited_before_it_became_busy_counts_as_it_was():
    now_s, busy = [0.0], [1.0]
    limit = TimeLimit(10.0, lambda: busy[0], lambda: now_s[0])
    now_s[0] = 9.0
    assert limit.left_s == 1.0
    busy[0] = 5.0
    assert limit.left_s == 5.0


def test_a_machine_with_cores_to_spare_gives_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 9.0, 9.0))
    assert processes_per_core() == 1.0
    monkeypatch.setattr("os.getloadavg", lambda: (20.0, 0.0, 0.0))
    assert processes_per_core() == 5.0
