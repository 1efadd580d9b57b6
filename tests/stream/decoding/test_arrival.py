import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import stream.decoding.arrival as arrival_module
from stream.config import StreamConfig
from stream.decoding.arrival import (
    TIME_AHEAD,
    TIME_BEHIND,
    TIME_FINE,
    ArrivalClock,
    arrival_clock,
    event_time_reason,
    judge_event_times,
)
from stream.record import Record

JUMP, SKEW, CONFIRM = 100, 10, 30
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_800_000_000_000


def record(offset: int, stamp: int) -> Record:
    return Record(offset, stamp, b"k", b"v")


def heartbeat(offset: int, stamp: int, clock: int | None = None) -> Record:
    headers = (
        ("control", b"heartbeat"),
        ("clock_ms", str(stamp if clock is None else clock).encode()),
    )
    return Record(offset, stamp, None, None, headers)


def clock(maximum: int = 0) -> ArrivalClock:
    return ArrivalClock(JUMP, SKEW, maximum, confirm_ms=CONFIRM)


def test_arrival_is_the_running_maximum():
    given_out = clock(1000).admit([record(0, 1005), record(1, 1001), record(2, 1050), record(3, 5)])
    assert given_out.arrival_ms.tolist() == [1005, 1005, 1050, 1050]
    assert not given_out.refused


def test_the_first_stamp_waits_for_a_heartbeat():
    it = clock()
    assert it.admit([record(0, 5000), record(1, 5001)]).records == []
    assert it.held == 2
    assert it.maximum_ms == 0
    given_out = it.admit([heartbeat(2, 5002)])
    assert given_out.arrival_ms.tolist() == [5000, 5001, 5002]
    assert not given_out.refused
    assert it.held == 0


def test_a_first_stamp_that_its_heartbeat_contradicts_arrives_by_the_heartbeat():
    given_out = clock().admit([record(0, 9_000_000), heartbeat(1, 5000)])
    assert given_out.arrival_ms.tolist() == [5000, 5000]
    assert list(given_out.refused) == [0]


def test_the_first_stamp_is_believed_though_the_labelers_clock_is_slow():
    given_out = clock().admit([record(0, 5000), heartbeat(1, 5001, clock=4910)])
    assert given_out.arrival_ms.tolist() == [5000, 5001]
    assert not given_out.refused


def test_a_first_stamp_waits_while_the_two_clocks_are_far_apart():
    it = clock()
    assert it.admit([record(0, 9_000), heartbeat(1, 9_001, clock=5_001)]).records == []
    assert it.admit([heartbeat(2, 5_002)]).arrival_ms.tolist() == [5_001, 5_001, 5_002]


def test_a_jump_that_a_heartbeat_contradicts_moves_nothing():
    it = clock(1000)
    given_out = it.admit(
        [record(0, 1010), record(1, 9_000_000), record(2, 1020), heartbeat(3, 1030)]
    )
    assert given_out.arrival_ms.tolist() == [1010, 1010, 1020, 1030]
    assert list(given_out.refused) == [1]
    assert "9000000" in given_out.refused[1]
    assert "clock" in given_out.refused[1]
    assert it.maximum_ms == 1030


def test_a_true_gap_is_believed_once_it_has_gone_on():
    it = clock(1000)
    assert it.admit([record(0, 5000), heartbeat(1, 5001)]).records == []
    assert it.admit([record(2, 5020), heartbeat(3, 5029)]).records == []
    assert it.held == 4
    given_out = it.admit([heartbeat(4, 5030)])
    assert given_out.arrival_ms.tolist() == [5000, 5001, 5020, 5029, 5030]
    assert not given_out.refused


def test_on_a_replayed_topic_a_heartbeat_is_historys_own_time():
    """The last heartbeat of a replay stands a window behind the one before it, and nothing comes
    behind it."""
    it = arrival_clock(
        StreamConfig(replayed=True, jump_max_ms=JUMP, skew_ms=SKEW, heartbeat_ms=50), 1000
    )
    given_out = it.admit(
        [record(0, 9_000), heartbeat(1, 1050), record(2, 5_000), heartbeat(3, 5_001)]
    )
    assert given_out.arrival_ms.tolist() == [1000, 1050, 5_000, 5_001]
    assert list(given_out.refused) == [0]
    assert it.admit([heartbeat(4, 9_999_999)]).arrival_ms.tolist() == [9_999_999]


def test_a_liar_within_a_true_gap_is_found():
    given_out = clock(1000).admit(
        [record(0, 9_000), record(1, 5000), heartbeat(2, 5001), heartbeat(3, 5040)]
    )
    assert given_out.arrival_ms.tolist() == [1000, 5000, 5001, 5040]
    assert list(given_out.refused) == [0]


def test_a_jump_of_timestamps_alone_is_contradicted_by_the_writers_clock():
    """Another leader, two days ahead: the labeler's clock carries time on, and nobody waits."""
    given_out = clock(1000).admit(
        [record(0, 9_000), heartbeat(1, 9_001, clock=1050), heartbeat(2, 9_060, clock=1110)]
    )
    assert given_out.arrival_ms.tolist() == [1000, 1050, 1110]
    assert list(given_out.refused) == [0]


def test_a_jump_of_the_writers_clock_alone_moves_nothing():
    given_out = clock(1000).admit(
        [heartbeat(0, 1001, clock=9_000), heartbeat(1, 1101, clock=9_100)]
    )
    assert given_out.arrival_ms.tolist() == [1001, 1101]
    assert not given_out.refused


def test_timestamps_that_stand_back_are_carried_on_by_the_writers_clock():
    given_out = clock(1000).admit([record(0, 700), heartbeat(1, 701, clock=1020), record(2, 702)])
    assert given_out.arrival_ms.tolist() == [1000, 1020, 1020]


def test_a_heartbeat_without_a_clock_judges_nothing():
    it = clock(1000)
    bare = Record(1, 9001, None, None, (("control", b"heartbeat"),))
    endless = Record(2, 9001, None, None, (("control", b"heartbeat"), ("clock_ms", b"9" * 5000)))
    assert it.admit([record(0, 9000), bare, endless]).records == []
    assert it.admit([heartbeat(3, 9030)]).arrival_ms.tolist() == [9000, 9001, 9001, 9030]


@pytest.mark.long
def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch):
    it = clock(1000)
    many = [record(i, 9_000 + i % 7) for i in range(arrival_module.HELD_MAX)]
    assert it.admit(many).records == []
    given_out = it.admit([record(len(many), 9_007)])
    assert len(given_out.records) == len(many) + 1
    assert given_out.arrival_ms[0] == 9_000
    assert it.held == 0


def test_it_tells_by_how_much_clocks_are_apart_and_how_far_time_is_ahead():
    it = clock(1000)
    assert (it.apart_ms, it.ahead_ms) == (0, 0)
    it.admit([heartbeat(0, 1050, clock=1045)])
    assert (it.apart_ms, it.ahead_ms) == (5, 0)
    it.admit([heartbeat(1, 800, clock=700)])
    assert (it.apart_ms, it.ahead_ms) == (100, 250)


stamps = st.lists(
    st.tuples(
        st.integers(1, 2000), st.sampled_from(["record", "heartbeat", "liar", "slow", "fast"])
    ),
    max_size=30,
)
CLOCKS = {"heartbeat": 0, "slow": -150, "fast": 250}


def build(history: list[tuple[int, str]]) -> list[Record]:
    made = []
    for i, (stamp, kind) in enumerate(history):
        said = 50 if kind == "liar" else max(1, stamp + CLOCKS.get(kind, 0))
        made.append(record(i, stamp) if kind == "record" else heartbeat(i, stamp, said))
    return made


@given(stamps, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30))
def test_polls_and_restarts_change_nothing(
    history: list[tuple[int, str]], cuts: list[int], crash: int
):
    records = build(history)
    whole = clock().admit(records)
    edges = sorted({0, len(records), *(c for c in cuts if c < len(records))})
    it, arrivals, refused, seen = clock(), [], set(), 0
    for start, end in itertools.pairwise(edges):
        part = it.admit(records[start:end])
        refused |= {seen + i for i in part.refused}
        arrivals += part.arrival_ms.tolist()
        seen += len(part.records)
    assert arrivals == whole.arrival_ms.tolist()
    assert refused == set(whole.refused)
    # A reader that restarts after what it gave out, with the maximum it had there, goes on alike.
    first = clock()
    done = len(first.admit(records[:crash]).records)
    second = clock(first.snapshot()).admit(records[done:])
    assert second.arrival_ms.tolist() == whole.arrival_ms.tolist()[done:]
    assert {i + done for i in second.refused} == {i for i in whole.refused if i >= done}


@given(stamps)
def test_a_reader_may_begin_at_any_record_that_was_given_out(history: list[tuple[int, str]]):
    records = build(history)
    whole = clock().admit(records)
    for begin in range(1, len(whole.records)):
        rest = clock(int(whole.arrival_ms[begin - 1])).admit(records[begin:])
        assert rest.arrival_ms.tolist() == whole.arrival_ms.tolist()[begin:]


@given(stamps)
def test_arrivals_never_fall_and_nothing_is_lost(history: list[tuple[int, str]]):
    it = clock()
    out = it.admit(build(history))
    assert (np.diff(out.arrival_ms) >= 0).all()
    assert [r.offset for r in out.records] == list(range(len(history) - it.held))


class Wrong(NamedTuple):
    """A clock that is wrong by `by_ms` from `from_ms` on, for `for_ms`; or a saw that falls back
    again and again."""

    by_ms: int
    from_ms: int
    for_ms: int

    def read(self, now_ms: int) -> int:
        if self.by_ms == SAW:
            return now_ms - 5_000 * max(
                0, (min(now_ms, self.from_ms + self.for_ms) - self.from_ms) // 10_000
            )
        return now_ms + self.by_ms * (self.from_ms <= now_ms < self.from_ms + self.for_ms)


SAW = 1  # falls back by five seconds each ten
BYS = st.sampled_from([MINUTE, HOUR, 2 * DAY, -MINUTE, -HOUR, -2 * DAY, SAW])
BEGINS = st.integers(-5_000, 200_000)


@given(
    st.sampled_from(["broker", "labeler", "both"]),
    BYS,
    BEGINS,
    st.integers(1, 300),
    st.integers(1_300, 7_000),
    st.sampled_from([MINUTE, 20_000]),
)
@settings(max_examples=settings.default.max_examples)
@example("both", 2 * DAY, 60_000, 1, 1_000, MINUTE)
@example("both", 2 * DAY, 60_000, 50, 1_300, 20_000)
@example("broker", SAW, 0, 300, 1_000, MINUTE)
@example("labeler", -90_000, -5_000, 300, 900, MINUTE)
@example("broker", HOUR, 0, 121, 1_300, MINUTE)
@example("broker", 2 * DAY, -5_000, 300, 1_300, MINUTE)
def test_whatever_one_clock_shows_no_good_event_is_refused_and_time_goes_on(
    whose: str, by_ms: int, begins_ms: int, for_s: int, between_ms: int, skew_ms: int
):
    """Producers are right. One other clock is wrong for up to five minutes; or the host of both,
    for a moment, which may be longer than `skew_ms` where they are ahead."""
    if whose == "both":
        for_s = min(for_s, 50)
        begins_ms = max(begins_ms, 10_000)
    if whose != "both" or by_ms < HOUR:  # behind by more than clocks may differ is not told apart
        skew_ms = MINUTE
    wrong = Wrong(by_ms, NOW + begins_ms, 1_000 * for_s)
    broker = wrong.read if whose in ("broker", "both") else lambda now_ms: now_ms
    labeler = wrong.read if whose in ("labeler", "both") else lambda now_ms: now_ms
    steps = sorted({*range(NOW, NOW + 650_000, between_ms), *range(NOW + 17, NOW + 650_000, 1_000)})
    records, true_ms = [], []
    for offset, now_ms in enumerate(steps):
        beats = (now_ms - NOW) % 1_000 == 17
        stamp_ms = broker(now_ms)
        records.append(
            heartbeat(offset, stamp_ms, labeler(now_ms)) if beats else record(offset, stamp_ms)
        )
        true_ms.append(now_ms)
    it = ArrivalClock(600_000, skew_ms, confirm_ms=MINUTE)
    out = it.admit(records)
    known, true = len(out.records), np.array(true_ms)
    events = ~out.records.heartbeat
    judged = judge_event_times(true[:known], out.arrival_ms, skew_ms, DAY, out.records.timestamp_ms)
    assert (judged[events] == TIME_FINE).all()
    # Within skew_ms + 60 s of the end of the fault time is right again, to within what clocks may
    # differ by.
    end_ms = max(wrong.from_ms + wrong.for_ms, NOW) + 2 * MINUTE
    settled = true[:known] >= end_ms
    away_ms = np.abs(out.arrival_ms - true[:known])
    limit_ms = 5_000 * (for_s // 10) + 1_000 if by_ms == SAW else 1_000
    assert (away_ms[settled] <= min(limit_ms, MINUTE)).all()
    assert known == len(records)


def test_event_times_are_judged_against_arrival():
    arrival = np.full(5, 10_000, np.int64)
    ts = np.array([10_000 + SKEW, 10_001 + SKEW, 10_000, 9_500, 9_499], np.int64)
    verdicts = judge_event_times(ts, arrival, SKEW, 500)
    assert verdicts.tolist() == [TIME_FINE, TIME_AHEAD, TIME_FINE, TIME_FINE, TIME_BEHIND]
    assert "11 ms ahead" in event_time_reason(TIME_AHEAD, 10_011, 10_000)
    assert "501 ms behind" in event_time_reason(TIME_BEHIND, 9_499, 10_000)


def test_a_record_whose_timestamp_stands_back_gets_the_benefit_of_the_doubt():
    arrival, stamp = np.full(4, 10_000, np.int64), np.full(4, 9_000, np.int64)
    ts = np.array([10_500, 10_501, 8_500, 8_499], np.int64)
    assert judge_event_times(ts, arrival, SKEW, 500, stamp).tolist() == [
        TIME_FINE,
        TIME_AHEAD,
        TIME_FINE,
        TIME_BEHIND,
    ]


def test_so_does_one_whose_timestamp_jumped_and_was_not_believed():
    arrival, stamp = np.full(4, 10_000, np.int64), np.full(4, 10_000 + DAY, np.int64)
    ts = np.array([10_500, 10_501, 9_500, 9_499], np.int64)
    assert judge_event_times(ts, arrival, SKEW, 500, stamp).tolist() == [
        TIME_FINE,
        TIME_AHEAD,
        TIME_FINE,
        TIME_BEHIND,
    ]
