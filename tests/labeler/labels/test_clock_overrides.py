"""Clocks that were ahead for long, both of them: labels stand, and go on by an operator's override
(T3)."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_shop import (
    CLICKS,
    IMPRESSIONS,
    LABELER,
    STREAM,
    ZERO,
    Clock,
    folded,
    memory_log,
    work,
)

from everspun.commands.data.clock import fault, inputs, say
from labeler.counting import Head, decode_signal
from labeler.fraud_config import FraudConfig
from labeler.labels.runner import OVERRIDE_POLL_MS, Labelling
from stream import Partition, Record, StreamConfig
from stream.decoding import arrival_clock
from stream.internal_topics import (
    ClockOverride,
    clock_overrides,
    override_headers,
    override_key,
    overrides_of,
)
from stream.log import MemoryLog
from stream.log.rows import MemoryStorage

LIVE = replace(
    STREAM,
    replayed=False,
    jump_max_ms=1_000,
    jump_confirm_ms=500,
    age_max_ms=10_000,
    heartbeat_ms=50,
    window_ms=5_000,
)
DAYS_MS = 2 * 86_400_000
SECONDS, WRONG_FROM_MS, WRONG_TO_MS = 18, ZERO + 4_000, ZERO + 8_000


class Shop:
    """Ten views a second, every third clicked; the log's clock, and that of heartbeats' writers
    unless `writers_right`, is `ahead_ms` ahead from WRONG_FROM_MS to WRONG_TO_MS."""

    def __init__(
        self, ahead_ms: int, clock: Clock, writers_right: bool = False, seconds: int = SECONDS
    ) -> None:
        self.log: MemoryLog = memory_log(LIVE, clock)
        self.ahead_ms, self.writers_right = ahead_ms, writers_right
        self.fill(ZERO, ZERO + seconds * 1_000)

    def fill(self, from_ms: int, to_ms: int) -> None:
        for now_ms in range(from_ms, to_ms, 50):
            stamp_ms = now_ms + (self.ahead_ms if WRONG_FROM_MS <= now_ms < WRONG_TO_MS else 0)
            writer_ms = now_ms if self.writers_right else stamp_ms
            beat = (("control", b"heartbeat"), ("clock_ms", str(writer_ms).encode()))
            self.log.append(IMPRESSIONS, None, None, beat, stamp_ms)
            self.log.append(CLICKS, None, None, beat, stamp_ms)
            n = (now_ms - ZERO) // 100
            if now_ms % 100 == 0:
                view = {
                    "id": str(n),
                    "ts_ms": now_ms,
                    "session": "s",
                    "source": "u",
                    "vendor": "v",
                    "item": "i",
                }
                self.log.append(IMPRESSIONS, json.dumps(view).encode(), b"s", (), stamp_ms)
            if now_ms % 300 == 0 and n >= 5:
                click = {"id": str(n - 5), "ts_ms": now_ms, "session": "s"}
                self.log.append(CLICKS, json.dumps(click).encode(), b"s", (), stamp_ms)

    def labels(self) -> dict[int, int]:
        """label by offset of the impression."""
        return {position >> 20: label for position, label in folded(self.log)[0]}

    def views(self, from_ms: int, to_ms: int) -> list[int]:
        """Offsets of the impressions of this time, by the sites' clocks."""
        found = []
        for record in self.log.records(IMPRESSIONS):
            if record.value and from_ms <= json.loads(record.value)["ts_ms"] < to_ms:
                found.append(record.offset)
        return found


def labelling_of(
    shop: Shop, pages: MemoryStorage | None = None, stream: StreamConfig = LIVE
) -> Labelling:
    labelling = Labelling(stream, LABELER, shop.log, pages=pages)
    labelling.own([0])
    return labelling


def give_override(shop: Shop, now_ms: int) -> list[ClockOverride]:
    assert fault(LIVE, None, None, shop.ahead_ms, now_ms) == ""
    return say(shop.log, LIVE, inputs(LIVE, None, None), shop.ahead_ms, "NTP was off", now_ms)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("ahead_ms", [20_000, 3_600_000, DAYS_MS])
def test_labels_stand_until_the_word_and_are_then_those_of_right_clocks(
    ahead_ms: int, restarts: bool
):
    clock, pages = Clock(), MemoryStorage()
    right, shop = Shop(0, clock), Shop(ahead_ms, clock)
    work(labelling_of(right), clock)
    labelling = labelling_of(shop, pages)
    work(labelling, clock)
    assert labelling.tasks[0].core.time_stands
    stood = shop.labels()
    assert max(stood) < shop.views(WRONG_FROM_MS, WRONG_TO_MS)[0]
    fell_ms = {one.fell_ms for one in labelling.tasks[0].core.clocks.values()}
    assert all(ahead_ms - 100 <= one <= ahead_ms for one in fell_ms), (
        "what status names is what clocks were ahead by"
    )

    give_override(shop, ZERO + SECONDS * 1_000)
    if restarts:
        labelling.close()
        labelling = labelling_of(shop, pages)
    clock.now_ms += OVERRIDE_POLL_MS
    work(labelling, clock)
    assert not labelling.tasks[0].core.time_stands
    expected, found = right.labels(), shop.labels()
    assert found.keys() == expected.keys(), (
        "no good event is quarantined, and labels are as far as without"
    )
    # What was labelled when the clocks jumped stays: its windows seemed to be over.
    assert {at: found[at] for at in found if at not in stood} == {
        at: expected[at] for at in found if at not in stood
    }


def test_a_labeler_that_runs_writes_what_one_that_starts_writes():
    """I7, also where time does not stand: heartbeats' writers were right, and carried it on."""
    written = []
    for restarts in (False, True):
        clock = Clock()
        shop = Shop(DAYS_MS, clock, writers_right=True, seconds=9)
        labelling = labelling_of(shop)
        work(labelling, clock)
        assert not labelling.tasks[0].core.time_stands
        shop.ahead_ms -= 300  # what is typed need not be exact
        give_override(shop, ZERO + 9_000)
        shop.ahead_ms += 300
        if restarts:
            labelling.close()
            labelling = labelling_of(shop)
        clock.now_ms += OVERRIDE_POLL_MS
        work(labelling, clock)
        shop.fill(ZERO + 9_000, ZERO + SECONDS * 1_000)
        work(labelling, clock)
        written.append([(r.value, r.headers) for r in shop.log.records(Partition("examples", 0))])
    assert len(written[0]) > 20
    assert written[0] == written[1]


def test_an_override_in_a_quarantine_that_was_made_anew_is_heard():
    clock = Clock()
    shop = Shop(DAYS_MS, clock)
    place = Partition(LIVE.quarantine, 0)
    for _ in range(50):
        shop.log.append(place, b"not an event")
    labelling = labelling_of(shop)
    work(labelling, clock)
    assert labelling.tasks[0].core.time_stands
    shop.log.delete(LIVE.quarantine)
    shop.log.create(LIVE.quarantine, LIVE.partitions)
    give_override(shop, ZERO + SECONDS * 1_000)
    assert shop.log.end(place) < 50
    clock.now_ms += OVERRIDE_POLL_MS
    work(labelling, clock)
    assert not labelling.tasks[0].core.time_stands


def test_a_chain_that_went_on_in_a_time_that_is_set_back_goes_on_behind_it():
    """Clocks that were ahead for longer than the window: what was labelled by then stays as it
    is."""
    clock, short = Clock(), replace(LIVE, window_ms=1_000)
    shop = Shop(DAYS_MS, clock)
    labelling = labelling_of(shop, stream=short)
    work(labelling, clock)
    stands = labelling.tasks[0].core.point
    assert stands.arrival_max_ms > ZERO + DAYS_MS
    give_override(shop, ZERO + SECONDS * 1_000)
    clock.now_ms += OVERRIDE_POLL_MS
    work(labelling, clock)
    point = labelling.tasks[0].core.point
    assert point.arrival_max_ms > ZERO + (SECONDS - 3) * 1_000
    behind = {at for at in shop.labels() if at >= stands.start >> 20}
    assert behind == set(shop.views(ZERO, ZERO + SECONDS * 1_000 - 1_150)) & set(
        range(stands.start >> 20, 10**6)
    )


def test_what_comes_behind_a_word_is_believed_as_ever():
    clock = Clock()
    shop = Shop(DAYS_MS, clock)
    overrides = give_override(shop, ZERO + SECONDS * 1_000)
    shop.ahead_ms = 0
    later = ZERO + SECONDS * 1_000
    shop.fill(later, later + 10_000)
    labelling = labelling_of(shop)
    work(labelling, clock)
    assert max(shop.labels()) > overrides[0].end
    assert labelling.tasks[0].core.point.arrival_max_ms > overrides[0].above_ms


def test_counting_goes_on_by_the_word_too():
    clock = Clock()
    right, shop = Shop(0, clock), Shop(DAYS_MS, clock)
    waits = replace(LABELER, await_verdicts=True)

    def counted(of: Shop) -> int:
        signals = [decode_signal(record) for record in of.log.records(Partition("signals", 0))]
        return [
            signal.bucket_end_ms
            for signal in signals
            if signal.input == "impressions/0" and signal.value
        ][-1]

    def count(of: Shop) -> Head:
        head = Head(LIVE, waits, FraudConfig(), of.log)
        head._heartbeats = None  # those of the shop tell the time
        head.own([0])
        work(head, clock)
        return head

    count(right)
    head = count(shop)
    assert max(one.reader.clock.ahead_ms for one in head.counts.values()) > LIVE.skew_ms
    records = len(shop.log.records(Partition("signals", 0)))
    give_override(shop, ZERO + SECONDS * 1_000)
    clock.now_ms += OVERRIDE_POLL_MS
    work(head, clock)
    assert max(one.reader.clock.ahead_ms for one in head.counts.values()) <= LIVE.skew_ms
    assert len(shop.log.records(Partition("signals", 0))) > records
    assert counted(shop) == counted(right)


def test_a_word_comes_back_as_it_was_given_and_junk_says_nothing():
    override = ClockOverride(7, "impressions", 2, ZERO, DAYS_MS)
    assert clock_overrides(
        [Record(0, 0, override_key(override), b"", override_headers(override, "why"))]
    ) == [override]
    told = []
    good = dict(override_headers(override, ""))
    for name in ("topic", "partition", "end", "above_ms", "by_ms"):
        for value in (None, b"", b"\xff", b"-1"):
            if (name, value) == ("topic", b"") or (name, value) == ("topic", b"-1"):
                continue  # a name of no topic says nothing of any
            headers = tuple(
                (k, value if k == name else v)
                for k, v in good.items()
                if k != name or value is not None
            )
            assert (
                clock_overrides(
                    [Record(0, 0, None, b"", headers)], lambda record, error: told.append(error)
                )
                == []
            )
    assert len(told) == 18


@pytest.mark.parametrize(
    ("topic", "partition", "by_ms", "overrides"),
    [
        ("verdicts", None, DAYS_MS, "topic verdicts: allowed are impressions, clicks"),
        ("clicks", 1, DAYS_MS, "partition 1: clicks has 0 to 0"),
        ("clicks", 0, 100, "--by-ms 100: expected more than stream.skew_ms"),
        ("clicks", 0, 10**18, f"--by-ms {10**18}: expected less than this host's clock"),
    ],
)
def test_what_is_typed_wrong_is_refused(
    topic: str, partition: int | None, by_ms: int, overrides: str
):
    assert overrides in fault(LIVE, topic, partition, by_ms, 2 * DAYS_MS)
    assert "replay" in fault(STREAM, "clicks", 0, DAYS_MS, 2 * DAYS_MS)


@given(
    steps=st.lists(st.integers(0, 40), min_size=20, max_size=60),
    wrong=st.tuples(st.integers(0, 19), st.integers(0, 59)),
    cuts=st.lists(st.integers(1, 20), max_size=8),
)
def test_arrivals_are_those_of_right_clocks(
    steps: list[int], wrong: tuple[int, int], cuts: list[int]
):
    """Whatever stretch of the log is wrong, and however it is polled."""
    at_ms = ZERO + np.cumsum(steps)
    first, end = min(wrong), max(wrong)

    def records(ahead_ms: int) -> list[Record]:
        found = []
        for n, now_ms in enumerate(at_ms.tolist()):
            stamp_ms = now_ms + (ahead_ms if first <= n < end else 0)
            beat = (("control", b"heartbeat"), ("clock_ms", str(stamp_ms).encode()))
            found.append(Record(n, stamp_ms, None, None, beat))
        return found

    override = ClockOverride(
        len(at_ms), "impressions", 0, int(at_ms[-1]) + LIVE.jump_max_ms, DAYS_MS
    )
    other = ClockOverride(len(at_ms), "impressions", 1, ZERO, 7)
    expected = arrival_clock(LIVE, ZERO).admit(records(0)).arrival_ms.tolist()
    clock = arrival_clock(LIVE, ZERO, overrides_of([override, other], "impressions", 0))
    found, left = list[int](), records(DAYS_MS)
    for cut in [*cuts, len(left)]:
        found += clock.admit(left[:cut]).arrival_ms.tolist()
        left = left[cut:]
    assert found == expected
