"""What `everspun status` says of a stage that is behind."""

import pytest

from everspun.status.catch_up import behind, near_retention
from everspun.status.table import Stage, StatusSnapshot
from stream import StreamConfig

STREAM = StreamConfig(window_ms=3_600_000, grace_ms=300_000)
NOW = 1_800_000_000_000
HOUR = 3_600_000


def look(now_ms: int, **reached_ms: int) -> StatusSnapshot:
    names = ("fraud", "labeler", "learner", "shard", "checkpointer", "replica")
    return StatusSnapshot(
        now_ms, {name: Stage(name, data_time_ms=reached_ms.get(name, 0)) for name in names}
    )


def test_a_stage_that_waits_for_its_window_is_not_behind():
    before = look(NOW - 2_000, labeler=NOW - 2_000 - STREAM.wait_ms, fraud=NOW - 2_500)
    assert behind(STREAM, before, look(NOW, labeler=NOW - STREAM.wait_ms, fraud=NOW - 500)) == []


@pytest.mark.parametrize(
    ("passed_s", "ends_in_s"), [(22.0, 360.0), (4.0, 3_600.0), (2.0, None), (0.0, None)]
)
def test_the_end_of_a_catch_up_is_what_it_gains(passed_s: float, ends_in_s: float | None):
    """An hour behind; in two seconds it passes so many seconds of arrivals."""
    reached = NOW - STREAM.wait_ms - HOUR
    (found,) = behind(
        STREAM,
        look(NOW - 2_000, labeler=int(reached - passed_s * 1_000)),
        look(NOW, labeler=reached),
    )
    assert found.stage == "labeler"
    assert found.behind_s == 3_600
    assert found.ends_in_s == (None if ends_in_s is None else pytest.approx(ends_in_s))
    assert "behind by 1.0 h" in str(found)


def test_half_of_retention_is_an_alarm():
    kept_ms = STREAM.wait_ms + STREAM.outage_max_ms
    fine, late = NOW - kept_ms // 2 + 1_000, NOW - kept_ms // 2 - 1_000
    assert near_retention(STREAM, look(NOW, labeler=fine)) == []
    (line,) = near_retention(STREAM, look(NOW, labeler=late))
    assert line.startswith("labeler reads impressions of 12.5 h ago, and the topic keeps 1.0 d")
    assert near_retention(StreamConfig(replayed=True), look(NOW, labeler=late)) == []
