"""Input that is gone (C7): a stop that names its command, and labels behind the operator's
override."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_shop import (
    CLICKS,
    EXAMPLES,
    IMPRESSIONS,
    LABELER,
    STREAM,
    ZERO,
    Clock,
    fill,
    fill_later,
    folded,
    headers,
    memory_log,
    started,
    total,
    work,
)  # fmt: skip

from everspun.commands.data import say
from everspun.commands.data.lost import fault, still_there
from everspun.commands.data.quarantine import not_there
from everspun.commands.system.topics import begin_where_inputs_begin
from labeler.counting import Head, decode_signal
from labeler.fraud_config import FraudConfig
from labeler.labels.lost_range import LostRange, lost_headers, lost_key, lost_ranges
from labeler.labels.runner import Labelling
from stream import OFFSET_MAX, Chain, Fold, Partition, Record
from stream.internal_topics import (
    BatchHeader,
    Verdict,
    Watermark,
    decode_examples,
    encode_verdict,
    input_name,
)
from stream.log import MemoryLog, topic_specs
from stream.log.rows import MemoryStorage

QUARANTINE = Partition("quarantine", 0)


def apply_stop_command(log, clock, labelling, stop, stream=STREAM):
    """Type the command that an alarm names."""
    word = stop.command.split()
    assert word[:2] == ["everspun", "lost"]
    lost = LostRange(word[2], *map(int, word[3:6]))
    assert fault(stream, lost) == still_there(log, lost) == ""
    say(log, stream, lost, "retention was too short", clock())
    clock.now_ms += 10_000
    work(labelling, clock)
    return lost


def test_a_word_comes_back_as_it_was_given_and_junk_says_nothing():
    lost = LostRange("impressions", 2, 5, 9)
    record = Record(0, 0, lost_key(lost), b"", lost_headers(lost, "why"))
    assert lost_ranges([record]) == [lost]
    before = LostRange("clicks", 0, 0, 7, True)
    assert lost_ranges([Record(0, 0, None, b"", lost_headers(before, "x"))]) == [before]
    junk = [
        (("lost", b"1"),),
        (("lost", b"1"), ("topic", b"\xff"), ("partition", b"0"), ("from", b"0"), ("to", b"1")),
    ]
    junk += [(("lost", b"1"), ("topic", b"a"), ("partition", b"0"), ("from", b"9"), ("to", b"1"))]
    assert lost_ranges(Record(0, 0, None, b"", one) for one in junk) == []


@pytest.mark.parametrize("before", [0, 1])
def test_impressions_that_are_gone_are_passed_over_on_the_word_that_the_alarm_names(before):
    """Also where nothing was labelled yet."""
    clock = Clock()
    log = memory_log(clock=clock)
    if before:
        fill(log, seconds=1)
        started(log, clock).close()
    labelled = total(log, "labelled")
    resumes = headers(log)[-1].end >> 20 if before else 0
    views = log.end(IMPRESSIONS)
    fill_later(log, 3)
    log.delete_below(IMPRESSIONS, views + 9)
    kept = sum(bool(r.value) for r in log.records(IMPRESSIONS))
    labelling = started(log, clock)
    assert "needed and gone" in str(labelling.tasks[0].core.stopped)
    assert total(log, "labelled") == labelled, "nothing is skipped by itself"
    apply_stop_command(log, clock, labelling, labelling.tasks[0].core.stopped)
    assert labelling.tasks[0].core.stopped is None
    assert total(log, "labelled") == labelled + kept
    assert total(log, "lost_offsets") == views + 9 - resumes
    assert total(log, "lost") == 0
    again = started(log, clock)
    assert again.tasks[0].core.stopped is None, "a labeler that takes over finds the word"
    assert folded(log)[0] == sorted(folded(log)[0])


def test_what_was_gone_when_the_topics_were_made_is_where_labels_begin():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=2)
    for at in (IMPRESSIONS, CLICKS):
        log.delete_below(at, 3)
    begin_where_inputs_begin(log, STREAM, ["examples", "quarantine"], clock())
    assert len(log.records(QUARANTINE)) == 2
    labelling = started(log, clock)
    assert labelling.tasks[0].core.stopped is None
    assert headers(log)[0].start == 3 << 20
    assert (
        total(log, "lost_offsets") == total(log, "lost") == total(log, "clicks_lost_offsets") == 0
    )


def moved_at(log):
    """The first stamp of `clicks` that is believed (T3)."""
    records = log.records(CLICKS)
    for n, record in enumerate(records):
        clock_ms = next(int(r.header("clock_ms")) for r in records[n:] if r.is_heartbeat)
        if record.timestamp_ms <= clock_ms + STREAM.skew_ms:
            return record.timestamp_ms
    raise AssertionError("no time")


def clicks_oracle(log, gap_from_ms, gap_to_ms):
    """Positions of impressions that a click which arrived then might have counted for."""
    found = set()
    top = 0
    for record in log.records(IMPRESSIONS):
        top = max(top, record.timestamp_ms)
        may = top - STREAM.early_ms <= gap_to_ms and top + STREAM.wait_ms >= gap_from_ms
        if record.value and may:
            found.add(record.offset << 20)
    return found


@settings(max_examples=settings.default.max_examples // 8)
@given(st.integers(0, 1 << 30), st.integers(1, 30), st.integers(0, 3), st.booleans())
def test_impressions_that_a_click_which_is_gone_might_have_counted_for_are_lost(
    seed, gone, restarts, copies
):
    """Whatever was read before, wherever it is started again: exactly those, clicked or not; all
    others have the label that they would have had."""
    clock, rng = Clock(), random.Random(seed)
    whole, log = memory_log(clock=Clock()), memory_log(clock=clock)
    for one in (whole, log):
        fill(one, seconds=4, seed=seed)
    started(whole, Clock()).close()
    true = dict(folded(whole)[0])
    gone = min(gone, log.end(CLICKS) - 2)
    log.delete_below(CLICKS, gone)
    pages = MemoryStorage() if copies else None
    slow = replace(LABELER, outbox_max=1, take_records_max=4, clicks_copy=copies)
    labelling = started(log, clock, labeler=slow, pages=pages)
    apply_stop_command(
        log, clock, labelling, labelling.tasks[0].core.stopped
    ) if not restarts else None
    for _ in range(restarts):
        stop = labelling.tasks[0].core.stopped
        if stop is not None:
            lost = LostRange(*stop.gone)
            say(log, STREAM, lost, "gone", clock())
        labelling = Labelling(STREAM, slow, log, pages=pages)
        labelling.own([0])
        for _ in range(rng.randrange(1, 30)):
            labelling.run_once(clock(), 0)
    clock.now_ms += 10_000
    labelling = Labelling(STREAM, slow, log, pages=pages)
    labelling.own([0])
    work(labelling, clock)
    assert labelling.tasks[0].core.stopped is None
    lost = clicks_oracle(log, 0, moved_at(log))
    rows = dict(folded(log)[0])
    assert rows == {at: label for at, label in true.items() if at not in lost}
    assert total(log, "lost") == len(lost)
    assert total(log, "clicks_lost_offsets") in (
        0,
        gone,
    )  # counted once what they may have counted for is past


@settings(max_examples=settings.default.max_examples // 8)
@given(st.integers(0, 1 << 30), st.integers(1, 8), st.integers(1, 12))
def test_clicks_gone_in_the_midst_cost_only_what_they_might_have_labelled(seed, before, gone):
    """A labeler that stopped reading in the midst, and one that takes over from it, lose the
    same."""
    clock, rng = Clock(), random.Random(seed)
    log = memory_log(clock=clock)
    fill(log, seconds=6, seed=seed)
    true = {}
    whole = memory_log(clock=Clock())
    fill(whole, seconds=6, seed=seed)
    started(whole, Clock()).close()
    true = dict(folded(whole)[0])
    small = replace(LABELER, outbox_max=1, take_records_max=1, feed_records_max=1)
    labelling = Labelling(replace(STREAM, poll_records_max=1), small, log)
    labelling.own([0])
    for _ in range(rng.randrange(20, 200)):
        labelling.run_once(clock(), 0)
    if not headers(log):
        return
    resumed = headers(log)[-1].clicks_offset
    first = min(resumed + before, log.end(CLICKS) - 4)
    to = min(first + gone, log.end(CLICKS) - 3)
    log.delete_below(CLICKS, to)
    labelling.close()
    labelling = started(log, clock)
    stop = labelling.tasks[0].core.stopped
    if stop is None:
        assert resumed >= to
        return
    point = headers(log)[-1]
    apply_stop_command(log, clock, labelling, stop)
    lost = clicks_oracle(log, point.clicks_arrival_max_ms, log.records(CLICKS)[0].timestamp_ms)
    lost = {at for at in lost if at >= point.end}
    rows = dict(folded(log)[0])
    assert rows == {at: label for at, label in true.items() if at not in lost}
    assert total(log, "lost") == len(lost)


def test_an_input_gone_below_both_topics_is_named_one_after_the_other():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=4)
    log.delete_below(IMPRESSIONS, 10)
    log.delete_below(CLICKS, 2)
    labelling = started(log, clock)
    stops = labelling.tasks[0].core.stops
    assert {stop.topic for stop in stops} == {"impressions", "clicks"}
    for stop in stops:
        apply_stop_command(log, clock, labelling, stop)
    assert labelling.tasks[0].core.stopped is None
    assert total(log, "lost") + total(log, "labelled") == sum(
        bool(r.value) for r in log.records(IMPRESSIONS)
    )


def test_where_verdicts_are_gone_what_they_decide_on_is_lost():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=4)
    at = Partition("verdicts", 0)
    names = [input_name(topic, 0) for topic in ("impressions", "clicks")]

    def watermarks(ms):
        for name in names:
            log.append(at, encode_verdict(Watermark(name, ms, 0)), timestamp_ms=ms)

    labeler = replace(LABELER, await_verdicts=True)
    first_ms, last_ms = ZERO + 1_500, ZERO + 3_000
    watermarks(first_ms)
    labelling = started(log, clock, labeler=labeler)
    before = total(log, "labelled")
    assert before
    log.append(
        at, encode_verdict(Verdict("a", "r", "reject", None, "v", ZERO, ZERO + 2_000, "fraud"))
    )
    watermarks(last_ms)
    watermarks(ZERO + 20_000)
    log.delete_below(at, 5)
    work(labelling, clock)
    stop = labelling.tasks[0].core.stopped
    assert (stop.topic, stop.gone.end) == ("verdicts", 5)
    apply_stop_command(log, clock, labelling, stop)
    assert labelling.tasks[0].core.stopped is None
    assert total(log, "rejected") == 0
    arrivals = [r.timestamp_ms for r in log.records(IMPRESSIONS) if r.value]
    # the rest of the watermarks behind the gap rise to ZERO + 20 s at the end: all deadlines before
    # are open
    assert total(log, "lost") == sum(a + STREAM.wait_ms >= first_ms for a in arrivals)
    assert total(log, "labelled") + total(log, "lost") == len(arrivals)


def test_a_log_that_lost_its_tail_stops_its_partition_and_goes_on_where_it_was_read_to():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=2)
    labelling = started(log, clock)
    end = log.end(IMPRESSIONS)
    del log.records(IMPRESSIONS)[-3:]
    work(labelling, clock)
    stop = labelling.tasks[0].core.stopped
    assert "lost its tail" in stop.reason
    apply_stop_command(log, clock, labelling, stop)
    assert labelling.tasks[0].core.stopped is not None, (
        "what comes below is given offsets that were read"
    )
    fill_later(log, 2)
    clock.now_ms += 10_000
    work(labelling, clock)
    assert labelling.tasks[0].core.stopped is None
    kept = [r for r in log.records(IMPRESSIONS) if r.offset >= end and r.value]
    assert [at >> 20 for at, _ in folded(log)[0]][-len(kept) :] == [r.offset for r in kept]


def test_counting_passes_over_what_is_gone_and_counts_it_as_unknown():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=2)
    head = Head(STREAM, replace(LABELER, await_verdicts=True), FraudConfig(), log)
    head.own([0])
    head.run_once(clock(), 0)
    there = log.end(IMPRESSIONS)
    fill_later(log, 2)
    log.delete_below(IMPRESSIONS, there + 5)
    for _ in range(40):
        head.run_once(clock(), 0)
    assert not head.totals.stopped
    assert head.totals.passed_over == 5
    signals = [decode_signal(r) for r in log.records(Partition("signals", 0))]
    mine = [s for s in signals if s.input == "impressions/0"]
    assert sum(s.unknown for s in mine) == 5
    assert all(a.end == b.start for a, b in pairwise(mine))


@pytest.mark.parametrize("restarts", [False, True])
def test_counting_of_a_log_that_lost_its_tail_goes_on_once_the_log_has_grown_past_it(restarts):
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=2)

    def counting():
        head = Head(STREAM, replace(LABELER, await_verdicts=True), FraudConfig(), log)
        head.own([0])
        return head

    def run_once(head, times=40):
        for _ in range(times):
            clock.now_ms += 100
            head.run_once(clock(), 0)

    def counted():
        mine = [
            s
            for r in log.records(Partition("signals", 0))
            if (s := decode_signal(r)).input == "impressions/0"
        ]
        chain = Chain()
        return [
            kind for s in mine if (kind := chain.fold(s.start, s.end)[0]) is not Fold.REPEAT
        ], chain.end or 0

    head = counting()
    run_once(head)
    end = log.end(IMPRESSIONS)
    del log.records(IMPRESSIONS)[-10:]
    run_once(head)
    assert "outside" in head.totals.stopped["impressions/0"]
    assert list(head.totals.stopped) == ["impressions/0"], "the other input goes on"
    if restarts:
        head.close()
        head = counting()
    fill_later(log, 4)
    assert log.end(IMPRESSIONS) > end
    run_once(head)
    assert not head.totals.stopped
    kinds, reached = counted()
    assert set(kinds) == {Fold.EXTENDS}
    assert reached > end << 20


def test_a_range_that_is_not_what_is_gone_is_refused_with_what_to_type():
    log = MemoryLog(Clock())
    for spec in topic_specs(STREAM):
        log.create(spec.name, spec.partitions)
    fill(log, seconds=1)
    log.delete_below(IMPRESSIONS, 6)
    assert "run: everspun lost impressions 0 0 6" in still_there(
        log, LostRange("impressions", 0, 0, 9)
    )
    assert "run: everspun lost impressions 0 0 6" in still_there(
        log, LostRange("impressions", 0, 0, 4)
    )
    assert "--force" in still_there(log, LostRange("impressions", 0, 7, 9))
    assert still_there(log, LostRange("impressions", 0, 0, 6)) == ""
    assert "allowed are" in fault(STREAM, LostRange("examples", 0, 0, 1))
    assert "has 0 to 0" in fault(STREAM, LostRange("clicks", 1, 0, 1))
    assert "FROM < TO" in fault(STREAM, LostRange("clicks", 0, 2, 2))
    assert f"TO <= {OFFSET_MAX}" in fault(STREAM, LostRange("clicks", 0, 2, OFFSET_MAX + 1))
    assert fault(STREAM, LostRange("clicks", 0, 2, OFFSET_MAX)) == ""


def test_no_record_to_come_is_set_aside():
    log = MemoryLog(Clock())
    for spec in topic_specs(STREAM):
        log.create(spec.name, spec.partitions)
    assert "offset 0 of impressions[0]: the log has none yet" in not_there(log, IMPRESSIONS, 0)
    fill(log, seconds=1)
    end = log.reader().end_offsets([IMPRESSIONS])[IMPRESSIONS]
    assert not_there(log, IMPRESSIONS, end - 1) == ""
    assert f"the log has 0 to {end - 1}" in not_there(log, IMPRESSIONS, end)


def test_rows_of_examples_never_hold_what_is_lost():
    """`decode_examples` of every record agrees with its header."""
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=3)
    log.delete_below(CLICKS, 3)
    labelling = started(log, clock)
    apply_stop_command(log, clock, labelling, labelling.tasks[0].core.stopped)
    for record in log.records(EXAMPLES):
        header = BatchHeader.from_headers(record.headers)
        rows = decode_examples(record.value).num_rows if record.value else 0
        assert rows == header.labelled
    views = sum(bool(r.value) for r in log.records(IMPRESSIONS))
    assert sum(header.impressions for header in headers(log)) == views
