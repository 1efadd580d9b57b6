"""The process around the cores, over the log in memory: folds, failed sends, side records,
stops, heartbeats."""

import json
import random
import threading
from dataclasses import replace

import pytest
from labelled_shop import (
    CLICKS,
    EXAMPLES,
    IMPRESSIONS,
    LABELER,
    STREAM,
    ZERO,
    Clock,
    beat,
    fill,
    folded,
    memory_log,
    work,
)

from labeler.counting import Head, decode_signal
from labeler.counting.heartbeats import Heartbeats
from labeler.fraud_config import FraudConfig
from labeler.io import SetAside, set_aside_headers, set_aside_key
from labeler.labels.runner import Labelling
from labeler.process.metrics import LabelerMetrics
from labeler.process.process import Service
from stream import Chain, Fold, Partition
from stream.hashing import partition_of_key
from stream.internal_topics import BatchHeader, Verdict, Watermark, encode_verdict, input_name
from stream.log.memory import Fate
from stream.log.rows import MemoryStorage, RowsFailed


def test_every_impression_is_labelled_once_with_its_click():
    clock = Clock()
    log = memory_log(clock=clock)
    clicked = fill(log)
    labelling = Labelling(STREAM, LABELER, log)
    labelling.own([0])
    work(labelling, clock)
    rows, kinds = folded(log)
    assert set(kinds) == {Fold.EXTENDS}
    views = [r.offset for r in log.records(IMPRESSIONS) if r.value]
    assert [position >> 20 for position, _ in rows] == views
    assert {n for n, (_, label) in enumerate(rows) if label} == clicked
    assert sum(h.positives for h in labelling.take_acknowledged()) == len(clicked)


class Disk(MemoryStorage):
    """One that fails from its so many-th read or write on."""

    def __init__(self, works):
        super().__init__()
        self.left = works

    def write(self, keys, values):
        self.fail_at_last()
        super().write(keys, values)

    def get(self, keys):
        self.fail_at_last()
        return super().get(keys)

    def fail_at_last(self):
        self.left -= 1
        if self.left < 0:
            raise RowsFailed("no space left on device")


@pytest.mark.parametrize(("works", "restored"), [(1 << 30, True), (12, False)])
def test_a_restarted_labeler_takes_clicks_from_its_copy_and_goes_on_without_one_that_fails(
    works, restored
):
    """C4: clicks that spill, a restart in the midst, a disk that breaks: the same labels."""
    clock, disk = Clock(), Disk(works)
    log = memory_log(clock=clock)
    clicked = fill(log, seconds=20)
    settings = replace(
        LABELER, pending_clicks_bytes_max=200, click_page_rows=2, take_records_max=5, outbox_max=2
    )
    labellings = []
    for turns in (60, 1_000):
        labellings.append(Labelling(STREAM, settings, log, pages=disk))
        labellings[-1].own([0])
        for _ in range(turns):
            labellings[-1].run_once(clock(), 0)
    rows, kinds = folded(log)
    assert {n for n, (_, label) in enumerate(rows) if label} == clicked
    assert len(rows) == 200
    assert set(kinds) <= {Fold.EXTENDS, Fold.REPEAT}
    assert (labellings[1].totals.restored_clicks > 0) is restored
    assert any(one.totals.copy_failures for one in labellings) is not restored


@pytest.mark.parametrize("seed", range(8))
def test_failed_and_doubtful_sends_lose_and_double_nothing(seed):
    clock, rng = Clock(), random.Random(seed)
    straight = memory_log()
    fill(straight)
    calm = Labelling(STREAM, LABELER, straight)
    calm.own([0])
    work(calm, Clock())
    log = memory_log(clock=clock)
    fill(log)
    fates = [Fate.ACKNOWLEDGED] * 6 + [Fate.LOST, Fate.UNACKNOWLEDGED]
    log.on_append = lambda _: rng.choice(fates)
    labelling = Labelling(STREAM, LABELER, log)
    labelling.own([0])
    work(labelling, clock, 20_000, still_max=500)
    assert labelling.totals.refolds > 0
    assert folded(log)[0] == folded(straight)[0]
    assert Fold.DANGLES not in folded(log)[1]


def test_a_record_waits_for_the_acknowledgement_of_the_one_before():
    """C5: and a send that is never acknowledged fails, and is folded again."""
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log)
    log.on_append = lambda _: Fate.PENDING
    labelling = Labelling(STREAM, replace(LABELER, send_timeout_ms=50), log)
    labelling.own([0])
    for _ in range(20):
        labelling.run_once(clock(), 0)
    assert len(log.records(EXAMPLES)) == 1
    for _ in range(5):  # of a single step nobody knows whether it is the clock's
        clock.now_ms += 1_000
        labelling.run_once(clock(), 0)
    assert labelling.totals.refolds == 1
    log.on_append = None
    clock.now_ms += 1_000
    work(labelling, clock)
    assert set(folded(log)[1]) == {Fold.EXTENDS}  # the doubtful one had arrived


def test_a_drained_labeler_leaves_nothing_on_its_way_and_begins_nothing():
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log)
    log.on_append = lambda _: Fate.PENDING
    labelling = Labelling(STREAM, LABELER, log)
    labelling.own([0])
    labelling.run_once(clock(), 0)
    assert not labelling.drain(clock())
    for line in labelling.tasks.values():
        line.outbox._sent.acknowledge()
    assert labelling.drain(clock())
    assert len(log.records(EXAMPLES)) == 1


def test_side_records_stand_before_the_range_that_counts_them():
    """C6, with the bytes and the reason; and what verdicts reject is written with rule and
    evidence."""
    clock = Clock()
    log = memory_log(clock=clock)
    order = []
    log.on_append = lambda at: order.append(at.topic) or Fate.ACKNOWLEDGED
    beat(log, ZERO)
    log.append(IMPRESSIONS, b"{oops", b"s", (("producer", b"web"),), ZERO + 10)
    view = {
        "id": "1",
        "ts_ms": ZERO + 20,
        "session": "s",
        "source": "bot",
        "vendor": "v",
        "item": "i",
    }
    log.append(IMPRESSIONS, json.dumps(view).encode(), b"s", (), ZERO + 20)
    beat(log, ZERO + 5_000)
    verdict = Verdict(
        "r/bot/0",
        "repeated_clicks",
        "reject",
        "bot",
        None,
        ZERO,
        ZERO + 1_000,
        "too many",
        {"n": 9.0},
    )
    log.append(Partition("verdicts", 0), encode_verdict(verdict))
    for topic in ("impressions", "clicks"):
        mark = Watermark(input_name(topic, 0), ZERO + 4_000, 0)
        log.append(Partition("verdicts", 0), encode_verdict(mark))
    labelling = Labelling(STREAM, replace(LABELER, await_verdicts=True), log)
    labelling.own([0])
    work(labelling, clock)
    assert order[:3] == ["quarantine", "rejected", "examples"]
    (bad,) = log.records(Partition("quarantine", 0))
    assert bad.value == b"{oops"
    assert bad.header("producer") == b"web"
    assert bad.header("position") == str(1 << 20).encode()
    (rejected,) = log.records(Partition("rejected", 0))
    body = json.loads(rejected.value)
    assert (body["rule"], body["evidence"], body["id"]) == ("repeated_clicks", {"n": 9.0}, ["1"])
    header = BatchHeader.from_headers(log.records(EXAMPLES)[0].headers)
    assert (header.rejected, header.quarantined, header.labelled) == (1, 1, 0)


def test_a_record_that_makes_the_decoder_raise_stops_its_partition_until_it_is_set_aside(
    monkeypatch,
):
    """L7."""
    import labeler.join.intake as intake

    clock = Clock()
    log = memory_log(clock=clock)
    fill(log, seconds=2)
    poison = 12
    decode = intake.decode_impressions

    def raising(records, *rest):
        if any(r.offset == poison for r in records):
            raise RuntimeError("boom")
        return decode(records, *rest)

    monkeypatch.setattr(intake, "decode_impressions", raising)
    labelling = Labelling(STREAM, LABELER, log)
    labelling.own([0])
    work(labelling, clock)
    (line,) = labelling.tasks.values()
    assert line.core.waiting == "stopped"
    assert line.core.stopped.position == poison << 20
    assert "boom" in line.core.stopped.reason
    assert "everspun quarantine add impressions 0 12" in str(line.core.stopped)
    assert folded(log)[0][-1][0] >> 20 < poison
    order = SetAside("impressions", 0, poison)
    log.append(
        Partition("quarantine", 0),
        None,
        set_aside_key(order),
        set_aside_headers(order, "an operator's override"),
    )
    clock.now_ms += 10_000
    work(labelling, clock)
    assert labelling.tasks[0].core.stopped is None
    assert len(folded(log)[0]) == 19  # of 20
    _, quarantined = log.records(Partition("quarantine", 0))
    assert quarantined.value == log.records(IMPRESSIONS)[poison].value
    again = Labelling(STREAM, LABELER, log)
    again.own([0])
    work(again, clock)
    assert again.tasks[0].core.stopped is None, "a labeler that takes over finds the order"


def test_input_that_is_gone_stops_its_partition_and_only_that():
    """C7: nothing is skipped by itself."""
    stream = replace(STREAM, partitions=2)
    clock = Clock()
    log = memory_log(stream, clock)
    labelling = Labelling(stream, LABELER, log)
    beat(log, ZERO)
    beat(log, ZERO, 1)
    labelling.own([0, 1])
    labelling.run_once(clock(), 0)
    for n in range(50):
        beat(log, ZERO + n * 100)
        beat(log, ZERO + n * 100, 1)
    log.delete_below(IMPRESSIONS, 40)
    work(labelling, clock)
    assert labelling.tasks[0].core.stopped is not None
    assert "offsets 0 to 39 are still needed and gone" in labelling.tasks[0].core.stopped.reason
    assert labelling.tasks[1].core.stopped is None
    assert len(log.records(Partition("examples", 1))) > 10


@pytest.mark.parametrize(("ahead_ms", "end"), [(100, 10**6), (10**12, 1)], ids=["position", "time"])
def test_a_watermark_that_contradicts_the_log_counts_for_nothing(ahead_ms: int, end: int):
    """F3: it moves no label and stops no line, and the honest ones behind it count."""
    clock = Clock()
    log = memory_log(clock=clock)
    verdicts = Partition("verdicts", 0)
    fill(log, seconds=3)
    for topic in ("impressions", "clicks"):
        lie = Watermark(input_name(topic, 0), ZERO + ahead_ms, end << 20)
        log.append(verdicts, encode_verdict(lie), timestamp_ms=ZERO + 3_000)
    live = replace(
        STREAM, replayed=False
    )  # on replayed topics a time says nothing about its record's
    labelling = Labelling(live, replace(LABELER, await_verdicts=True), log)
    labelling.own([0])
    for _ in range(3):
        work(labelling, clock)
        clock.now_ms += 1_000
    assert labelling.passed_over.by_partition == {verdicts: 2}
    assert labelling.verdict_index is not None
    assert labelling.verdict_index.low_ms == 0
    assert not log.records(EXAMPLES)
    for topic in ("impressions", "clicks"):
        mark = Watermark(input_name(topic, 0), ZERO + 2_900, 1 << 20)
        log.append(verdicts, encode_verdict(mark), timestamp_ms=ZERO + 3_000)
    work(labelling, clock)
    assert labelling.tasks[0].core.stopped is None
    assert log.records(EXAMPLES)


@pytest.mark.long
@pytest.mark.parametrize("partitions", [1, 2])
def test_verdicts_of_an_outage_are_read_as_labels_come_to_them(monkeypatch, partitions):
    """An index that is full is read on only while a partition waits for it: never so much at once,
    and all is labelled."""
    monkeypatch.setattr("labeler.labels.verdict_index.ENTRIES_MAX", 60)
    stream, clock = replace(STREAM, poll_records_max=20, partitions=partitions), Clock()
    log = memory_log(stream, clock)
    fill(
        log,
        seconds=30,
        session=next(s for s in "abcdefgh" if partition_of_key(s.encode(), partitions) == 0),
    )
    for p in range(1, partitions):
        for at in range(0, 35_000, 500):
            beat(log, ZERO + at, p)
    inputs = [
        input_name(topic, p) for topic in ("impressions", "clicks") for p in range(partitions)
    ]
    for at in range(0, 40_000, 20):
        for name in inputs:
            log.append(
                Partition("verdicts", 0),
                encode_verdict(Watermark(name, ZERO + at, 1)),
                None,
                (),
                ZERO + at,
            )
    labelling, held = Labelling(stream, replace(LABELER, await_verdicts=True), log), []
    labelling.own(list(range(partitions)))
    for _ in range(3_000):
        labelling.run_once(clock(), 0)
        held.append(len(labelling.verdict_index._step_offsets))
    rows, _ = folded(log)
    assert len(rows) == 300
    assert max(held) < 500  # of 2,000, 400 of which stand behind the last label
    assert labelling.verdict_index.low_ms > ZERO + 31_000


def test_heartbeats_are_refused_on_replayed_topics_and_due_on_live_ones():
    """T2."""
    with pytest.raises(ValueError, match="only the replayer"):
        Heartbeats(STREAM)
    beats = Heartbeats(replace(STREAM, replayed=False))
    assert len(beats.due([0, 1], 1_000)) == 4
    assert beats.due([0, 1], 1_099) == []
    assert beats.due([1, 2], 1_099) == [Partition("impressions", 2), Partition("clicks", 2)]
    assert Partition("clicks", 1) in beats.due([1, 2], 1_100)
    assert len(beats.due([1], 500)) == 2, "a clock that was set back must not silence a partition"


def test_the_head_counts_every_bucket_once_over_restarts_and_failures():
    stream = replace(STREAM, replayed=True)
    clock = Clock()
    log = memory_log(stream, clock)
    fill(log)
    rng = random.Random(3)
    log.on_append = lambda _: rng.choice([Fate.ACKNOWLEDGED] * 5 + [Fate.LOST, Fate.UNACKNOWLEDGED])
    for _ in range(4):
        head = Head(stream, replace(LABELER, await_verdicts=True), FraudConfig(), log)
        head.own([0])
        for _ in range(40):
            head.run_once(clock(), 0)
        head.close()
        log.on_append = log.on_append if rng.random() < 0.5 else None
    chains, counted = {}, dict.fromkeys(("impressions/0", "clicks/0"), 0)
    for record in log.records(Partition("signals", 0)):
        signal = decode_signal(record)
        kind, _ = chains.setdefault(signal.input, Chain()).fold(signal.start, signal.end)
        assert kind is not Fold.DANGLES
        if kind is Fold.EXTENDS and signal.rows is not None:
            counted[signal.input] += sum(signal.rows.column("count").to_pylist())
    want = {
        f"{at.topic}/0": sum(bool(r.value) for r in log.records(at)) for at in (IMPRESSIONS, CLICKS)
    }
    assert counted == want
    assert all(r.is_heartbeat or r.value for r in log.records(IMPRESSIONS))


def test_two_services_share_the_partitions_and_hand_them_over():
    """Threads and all: the first one leaves, the second one goes on; every impression is
    labelled once."""
    stream = replace(STREAM, partitions=1)
    log = memory_log(stream)
    fill(log, seconds=6)
    reached = threading.Event()
    log.on_append = lambda at: (
        (reached.set() if len(log.records(EXAMPLES)) > 5 else None) or Fate.ACKNOWLEDGED
    )
    labeler = replace(LABELER, poll_ms=2, outbox_max=1)
    for _ in range(2):
        stop = threading.Event()
        metrics = LabelerMetrics()
        service = Service(stream, labeler, FraudConfig(), log, metrics, Clock())
        thread = threading.Thread(target=service.run, args=(stop,))
        thread.start()
        assert reached.wait(10)
        reached.clear()
        if _ == 1:
            for _ in range(500):
                if len(folded(log)[0]) == 60:
                    break
                stop.wait(0.01)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
    rows, kinds = folded(log)
    assert len(rows) == len({p for p, _ in rows}) == 60
    assert Fold.DANGLES not in kinds
