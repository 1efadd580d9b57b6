"""Counting readers: buckets that are a function of the log, however it was polled and wherever a
reader began."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.counting.reader import CountingPoint, CountingReader, SignalEnds
from labeler.counting.signals import Signal, decode_signal
from labeler.fraud_config import FraudConfig
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Record, StreamConfig, position
from stream.hashing import hash_pair, partition_of_key, session_of

T0 = 1_700_000_000_000
STREAM = StreamConfig(partitions=1, signal_ms=500)
FRAUD = FraudConfig(signal_rows_max=4)


def heartbeat(offset: int, at_ms: int) -> Record:
    headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))
    return Record(offset, at_ms, None, None, headers)


def view(offset: int, at_ms: int, source: str = "u1", vendor: str = "v1") -> Record:
    event = {
        "id": f"i{offset}",
        "ts_ms": at_ms,
        "session": "s",
        "source": source,
        "vendor": vendor,
        "item": "x",
    }
    return Record(offset, at_ms, b"s", json.dumps({**event, "features": {}}).encode())


def click(offset: int, at_ms: int, source: str = "u1", vendor: str = "v1") -> Record:
    event = {"id": f"i{offset}", "ts_ms": at_ms, "session": "s", "source": source, "vendor": vendor}
    return Record(offset, at_ms, b"s", json.dumps(event).encode())


def reader(topic: str = "impressions", at: CountingPoint | None = None) -> CountingReader:
    return CountingReader(STREAM, FRAUD, topic, 0, at or CountingPoint(0, 0))


def columns(signal: Signal) -> dict[str, list[object]]:
    assert signal.rows is not None
    return signal.rows.to_pydict()  # type: ignore[no-any-return]


def test_a_bucket_closes_at_the_first_record_of_a_later_one():
    one = reader()
    assert (
        one.on_records([heartbeat(0, T0), view(1, T0 + 10), view(2, T0 + 499, vendor="v2")]) == []
    )
    [signal] = one.on_records([heartbeat(3, T0 + 1_700)])
    assert (signal.start, signal.end) == (0, position(3))
    assert (signal.bucket_start_ms, signal.bucket_end_ms) == (
        T0,
        T0 + 1_500,
    )  # nothing arrived between the two
    assert signal.arrival_max_ms == T0 + 499
    assert columns(signal)["vendor"] == ["v1", "v2"]
    assert columns(signal)["count"] == [1, 1]
    assert one.offset == 3


def test_counts_gaps_and_cells_of_event_time():
    one = reader("clicks")
    records = [
        heartbeat(0, T0),
        click(1, T0 + 5),
        click(2, T0 + 205),
        click(3, T0 + 100, source="u2"),
    ]
    [signal] = one.on_records([*records, heartbeat(4, T0 + 500)])
    assert signal.input == "clicks/0"
    assert columns(signal) == {
        "source": ["u1", "u2"],
        "vendor": ["v1", "v1"],
        "cell_ms": [T0 // FRAUD.cell_ms * FRAUD.cell_ms] * 2,
        "count": [2, 1],
        "first_ts_ms": [T0 + 5, T0 + 100],
        "last_ts_ms": [T0 + 205, T0 + 100],
        "gap_ms_min": [200, -1],
        "gaps_fast": [1, 0],
        "ids": [id_bit("i1") | id_bit("i2"), id_bit("i3")],
        "session": session_of(hash_pair(pa.array(["s"] * 2), pa.array(["i1", "i3"]))).tolist(),
    }


def id_bit(id: str) -> int:
    bit = 1 << int(hash_pair(pa.array(["s"]), pa.array([id]))[0] >> np.uint64(42) & np.uint64(63))
    return bit - (1 << 64) if bit >> 63 else bit


def test_what_cannot_be_read_counts_as_unknown_and_is_passed():
    one = reader()
    bad = [
        Record(1, T0, b"s", b"{"),
        view(2, T0),
        view(3, T0)._replace(value=view(3, T0 + 10_000_000).value),
    ]
    [signal] = one.on_records([heartbeat(0, T0), *bad, heartbeat(4, T0 + 500)])
    assert signal.unknown == 2  # broken JSON, and an event time far ahead of its arrival (T3)
    assert columns(signal)["count"] == [1]


def test_a_large_bucket_comes_in_parts_whose_watermark_is_its_start():
    one = reader()
    signals = one.on_records(
        [heartbeat(0, T0), *(view(o, T0 + o) for o in range(1, 11)), heartbeat(11, T0 + 600)]
    )
    assert [sum(columns(s)["count"]) for s in signals] == [4, 4, 2]  # type: ignore[call-overload]
    assert [s.bucket_end_ms for s in signals] == [T0, T0, T0 + 500]
    assert [s.start for s in signals[1:]] == [s.end for s in signals[:-1]]


def test_empty_buckets_come_as_one():
    one = reader()
    [signal] = one.on_records([heartbeat(o, T0 + 500 * o) for o in range(10)])
    assert (signal.rows, signal.bucket_end_ms, signal.end) == (None, T0 + 4_500, position(9))


def test_a_signal_survives_the_log():
    one = reader()
    for signal in one.on_records(
        [heartbeat(0, T0), view(1, T0), heartbeat(2, T0 + 500), heartbeat(3, T0 + 1_000)]
    ):
        assert decode_signal(Record(7, 0, signal.key, signal.value, signal.headers)) == signal
    with pytest.raises(ValueError, match="header chain"):
        decode_signal(Record(7, 0, b"x", b"", ()))
    with pytest.raises(ValueError, match="no Arrow stream"):
        decode_signal(Record(7, 0, signal.key, b"junk", signal.headers))


def test_ends_are_folded_and_late_writers_do_no_harm():
    ends = SignalEnds()
    assert ends.resume_point("impressions/0", 5) == CountingPoint(position(5), 0)
    first = Signal("impressions/0", 10, 20, 0, 500, 400, 0, None)
    later = Signal("impressions/0", 20, 30, 500, 1_000, 900, 0, None)
    for signal in (first, later, first, Signal("impressions/0", 40, 50, 0, 500, 7, 0, None)):
        ends.on_signal(signal)
    assert ends.resume_point("impressions/0", 0) == CountingPoint(30, 900)
    assert ends.dangling == 1


steps = st.lists(
    st.tuples(st.integers(0, 900), st.sampled_from(["view", "view", "beat", "bad"])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=settings.default.max_examples * 60 // 100, deadline=None)
@given(steps=steps, cuts=st.lists(st.integers(0, 30), max_size=6), crash=st.integers(0, 30))
def test_signals_are_a_function_of_the_log(
    steps: list[tuple[int, str]], cuts: list[int], crash: int
):
    at, log = T0, [heartbeat(0, T0)]
    for forward, kind in steps:
        at += forward
        offset = len(log)
        log.append(
            {"view": view(offset, at, f"u{offset % 3}"), "beat": heartbeat(offset, at)}.get(kind)
            or Record(offset, at, b"s", b"?")
        )
    log.append(heartbeat(len(log), at + 500))
    whole = reader().on_records(log)
    assert whole[0].start == 0
    assert all(a.end == b.start for a, b in pairwise(whole))

    one, polled = reader(), []
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        polled += one.on_records(log[low:high])
    assert active(polled) == active(whole)
    assert polled[-1].end == whole[-1].end

    ends = SignalEnds()
    kept = whole[: crash % (len(whole) + 1)]
    for signal in kept:
        ends.on_signal(signal)
    again = reader(at=ends.resume_point("impressions/0", 0))
    assert active([*kept, *again.on_records(log[again.offset :])]) == active(whole)


def active(signals: list[Signal]) -> list[Signal]:
    """Without the empty ones, which may be cut anywhere."""
    return [signal for signal in signals if signal.rows is not None or signal.unknown]


def test_the_partition_of_these_tests_is_right():
    assert partition_of_key(b"s", STREAM.partitions) == 0
