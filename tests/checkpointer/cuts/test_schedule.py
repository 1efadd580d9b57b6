from checkpointer.cuts.schedule import Due, Schedule, barrier_reached
from paramserver import ChainProgress, Progress


def shard(*barriers, end=100, seen=1000, rows=None):
    rows = end - 99 if rows is None else rows
    return Progress(
        {f"label/{i}": ChainProgress(end, 0, b, rows) for i, b in enumerate(barriers)}, {}, 0, seen
    )


def at(make, barrier=0, end=100, seen=1000, created=0):
    return make(
        1,
        chains={"label/0": ChainProgress(end, 0, barrier, 1)},
        event_time_max_ms=seen,
        created_ms=created,
    )


def test_a_model_without_a_checkpoint_is_due_at_once():
    assert Schedule().due(0, [shard(0)], None) == Due("first")
    assert Schedule().due(0, [], None) is None


def test_a_barrier_is_due_when_every_shard_has_it_on_every_chain(make):
    head = make(1, chains={c: ChainProgress(100, 0, 1, 1) for c in ("label/0", "label/1")})
    schedule = Schedule()
    assert schedule.due(0, [shard(2, 2), shard(2, 1)], head) is None
    assert schedule.due(0, [shard(2, 2), shard(2, 3)], head) == Due("barrier", 2)
    assert barrier_reached([]) == 0


def test_an_abandoned_cut_stays_due_and_is_tried_again_later(make):
    schedule = Schedule(retry_ms=50)
    schedule.abandoned(1000)
    assert schedule.due(1049, [shard(1)], at(make)) is None
    assert schedule.due(1050, [shard(1)], at(make)) == Due("barrier", 1)


def test_wall_and_event_time_each_make_a_cut_due(make):
    assert Schedule(interval_ms=500).due(499, [shard(0, end=101)], at(make)) is None
    assert Schedule(interval_ms=500).due(500, [shard(0, end=101)], at(make)) == Due("interval")
    moved = shard(0, end=101, seen=1700)
    assert (
        Schedule(event_interval_ms=700).due(0, [moved, shard(0, end=101, seen=1699)], at(make))
        is None
    )
    assert Schedule(event_interval_ms=700).due(0, [moved, moved], at(make)) == Due("event_time")
    assert Schedule().due(10**9, [moved], at(make)) is None


def test_it_says_how_long_nothing_can_be_due_by_wall_time(make):
    schedule = Schedule(interval_ms=500, idle_interval_ms=900)
    ages = (0, 400, 499, 500, 10**9, -1)  # below 0 the clock was set back
    assert [schedule.left_ms(1_000 + age, at(make, created=1_000)) for age in ages] == [
        500,
        100,
        1,
        0,
        0,
        0,
    ]
    assert schedule.left_ms(0, None) == Schedule().left_ms(0, at(make)) == 0


def test_nothing_new_makes_nothing_due(make):
    assert Schedule(interval_ms=1).due(10**9, [shard(0)], at(make)) is None


def test_a_clock_set_back_stops_no_cuts(make):
    moved = shard(0, end=101)
    assert Schedule(interval_ms=500).due(-10_000, [moved], at(make)) == Due("interval")
    schedule = Schedule(interval_ms=500, retry_ms=50)
    schedule.abandoned(100_000)
    assert schedule.due(600, [moved], at(make)) == Due("interval")


def test_only_chains_that_answer_barriers_are_waited_for():
    chains = {
        "label/0": ChainProgress(5, 0, 3, 1),
        "late/0": ChainProgress(0, 0, 2),
        "retract/0": ChainProgress(0),
    }
    assert barrier_reached([Progress(chains, {})]) == 3
    assert barrier_reached([Progress(chains, {})], ("label", "late")) == 2


def test_without_a_row_nothing_is_due_by_time_but_now_and_then(make):
    """Traffic has stopped; chains go on over heartbeats."""
    schedule = Schedule(interval_ms=500, event_interval_ms=1, idle_interval_ms=90_000)
    moved = shard(0, end=100_000, seen=9_000, rows=1)
    assert schedule.due(89_999, [moved], at(make)) is None
    assert schedule.due(90_000, [moved], at(make)) == Due("idle")
    assert schedule.due(89_999, [shard(2, end=100_000, rows=1)], at(make)) == Due("barrier", 2)
    assert Schedule(interval_ms=500).due(10**12, [moved], at(make)) is None
    assert schedule.due(500, [moved, shard(0, end=100_000, rows=2)], at(make)) == Due("interval")


def test_cuts_that_fail_again_and_again_are_tried_less_often():
    schedule, now, pauses = Schedule(retry_ms=200, retry_max_ms=5_000), 0, []
    for _ in range(10):
        schedule.abandoned(now)
        pauses.append(schedule.not_before_ms - now)
    assert pauses == [200, 200, 200, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]
    assert not schedule.may_try(4_999)
    assert schedule.may_try(-20_000), "a clock that was set back"
    schedule.completed()
    schedule.abandoned(now)
    assert schedule.not_before_ms == 200
