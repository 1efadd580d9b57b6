import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.arrival import TIME_AHEAD, TIME_BEHIND, TIME_FINE, ArrivalClock, event_time_reason, judge_event_times
from stream.record import Record

JUMP, SKEW = 100, 10


def record(offset: int, stamp: int) -> Record:
    return Record(offset, stamp, b"k", b"v")


def heartbeat(offset: int, stamp: int, clock: int | None = None) -> Record:
    headers = (("control", b"heartbeat"), ("clock_ms", str(stamp if clock is None else clock).encode()))
    return Record(offset, stamp, None, None, headers)


def clock(maximum: int = 0) -> ArrivalClock:
    return ArrivalClock(JUMP, SKEW, maximum)


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


def test_a_jump_that_the_heartbeat_does_not_support_is_refused_and_moves_nothing():
    it = clock(1000)
    given_out = it.admit([record(0, 1010), record(1, 9_000_000), record(2, 1020), heartbeat(3, 1030)])
    assert given_out.arrival_ms.tolist() == [1010, 1010, 1020, 1030]
    assert list(given_out.refused) == [1]
    assert "9000000" in given_out.refused[1]
    assert it.maximum_ms == 1030


def test_a_true_gap_is_believed_up_to_the_skew():
    for stamp, believed in ((5000 + SKEW, True), (5001 + SKEW, False)):
        given_out = clock(1000).admit([record(0, stamp), heartbeat(1, 5000)])
        assert (0 not in given_out.refused) == believed
        assert 1 not in given_out.refused


def test_a_heartbeat_judges_itself_by_its_own_clock():
    it = clock(1000)
    assert list(it.admit([heartbeat(0, 9000, clock=1100)]).refused) == [0]
    assert it.admit([heartbeat(1, 9000)]).arrival_ms.tolist() == [9000]


def test_a_heartbeat_without_a_clock_judges_nothing():
    it = clock(1000)
    bare = Record(1, 9001, None, None, (("control", b"heartbeat"),))
    assert it.admit([record(0, 9000), bare]).records == []
    assert it.admit([heartbeat(2, 9002)]).arrival_ms.tolist() == [9000, 9001, 9002]


stamps = st.lists(st.tuples(st.integers(1, 2000), st.sampled_from(["record", "heartbeat", "liar"])), max_size=30)


def build(history: list[tuple[int, str]]) -> list[Record]:
    made = []
    for i, (stamp, kind) in enumerate(history):
        made.append(record(i, stamp) if kind == "record" else heartbeat(i, stamp, stamp if kind == "heartbeat" else 50))
    return made


@given(stamps, st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30))
def test_polls_and_restarts_change_nothing(history: list[tuple[int, str]], cuts: list[int], crash: int):
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
def test_arrivals_never_fall_and_nothing_is_lost(history: list[tuple[int, str]]):
    it = clock()
    out = it.admit(build(history))
    assert (np.diff(out.arrival_ms) >= 0).all()
    assert [r.offset for r in out.records] == list(range(len(history) - it.held))


def test_event_times_are_judged_against_arrival():
    arrival = np.full(5, 10_000, np.int64)
    ts = np.array([10_000 + SKEW, 10_001 + SKEW, 10_000, 9_500, 9_499], np.int64)
    verdicts = judge_event_times(ts, arrival, SKEW, 500)
    assert verdicts.tolist() == [TIME_FINE, TIME_AHEAD, TIME_FINE, TIME_FINE, TIME_BEHIND]
    assert "11 ms ahead" in event_time_reason(TIME_AHEAD, 10_011, 10_000)
    assert "501 ms behind" in event_time_reason(TIME_BEHIND, 9_499, 10_000)
