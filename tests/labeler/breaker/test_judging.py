"""The breaker over a log: early join, judge, and a labeler that waits for it, on virtual time
(L3, L8)."""

import functools
import json
import random
from dataclasses import replace

import pytest

from labeler.breaker.early_join import decode_tally, tally_stream
from labeler.breaker.process import early_join
from labeler.breaker.runner import Judging
from labeler.breaker_config import BreakerConfig
from labeler.config import LabelerConfig, label_config_hash
from labeler.labels import Labelling
from stream import Partition, StreamConfig
from stream.columns import Feature
from stream.internal_topics import BatchHeader, Verdict, Watermark, decode_examples, decode_verdict
from stream.log import MemoryLog, SendFailed, topic_specs

ZERO = 1_600_000_000_000
STREAM = StreamConfig(
    partitions=1,
    replayed=True,
    window_ms=8_000,
    grace_ms=100,
    dedup_ms=500,
    flush_ms=500,
    signal_ms=250,
    heartbeat_ms=100,
    jump_max_ms=10_000,
    batch_rows_max=64,
    age_max_ms=5_000,
    skew_ms=100,
    categorical_features=("place", "colour"),
)
#: The same shop, whose items are said in a catalogue to be at a place.
LOOKED_UP = replace(
    STREAM,
    categorical_features=("colour",),
    declared={
        "place": Feature(catalogue="items"),
        "price": Feature(kind="numeric", catalogue="items"),
    },
)
BREAKER = BreakerConfig(
    slices=("place",),
    join_window_ms=2_000,
    cell_ms=1_000,
    settle_ms=200,
    cells_max=3,
    history_ms=60_000,
    history_clicks_min=60,
    history_cells_min=8,
    expected_min=12.0,
    surprise=1e-4,
    recovered_cells=2,
)
LABELER = LabelerConfig(
    await_verdicts=False, await_breaker=True, retry_ms=10, fold_records_max=10_000
)
OUTAGE = (20_000, 26_000)


class Clock:
    def __init__(self):
        self.now_ms = ZERO

    def __call__(self):
        self.now_ms += 1
        return self.now_ms


def shop(seconds=45, fault="place", stream=STREAM):
    """A log of a busy shop, half of it abroad; for six seconds nobody abroad clicks, or clicks
    cannot be read."""
    rng, log = random.Random(3), MemoryLog(Clock())
    for spec in topic_specs(stream):
        log.create(spec.name, spec.partitions)
    if stream.catalogues:
        fill_items(log, seconds)
    events = [(ZERO + t, 0, None) for t in range(0, seconds * 1_000, 500)]
    for n in range(seconds * 60):
        now = ZERO + n * 1_000 // 60
        place = rng.choice(("home", "abroad"))
        view = {
            "id": str(n),
            "ts_ms": now,
            "session": "s",
            "source": f"u{n % 197}",
            "vendor": "v",
            "item": place,
        }
        said = {"colour": "red"} | ({} if stream.catalogues else {"place": place})
        events.append((now, 1, view | {"features": said}))
        at = now + rng.randrange(1, 1_500)
        out = OUTAGE[0] <= at - ZERO < OUTAGE[1]
        if rng.random() < 0.5 and not (out and fault == "place" and place == "abroad"):
            click = {"id": str(n), "ts_ms": at, "session": "s"}
            events.append((at, 2, {} if out and fault == "format" else click))
    for stamp, kind, body in sorted(events, key=lambda e: e[:2]):
        if kind:
            topic = STREAM.impressions if kind == 1 else STREAM.clicks
            log.append(Partition(topic, 0), json.dumps(body).encode(), b"s", (), stamp)
        else:
            beat(log, stamp)
    for more in (0, 9_000, 18_000, 27_000):
        beat(log, ZERO + seconds * 1_000 + more)
    return log


def fill_items(log, seconds):
    """Who is home and who abroad; and a record that is no row to whoever reads prices."""
    at = Partition(LOOKED_UP.catalogues["items"], 0)
    for key, row in (("home", '{"place": "home"}'), ("abroad", '{"place": "abroad"}'),
                     ("abroad", '{"place": "home", "price": "x"}')):  # fmt: skip
        log.append(at, row.encode(), key.encode(), (), ZERO - 500)
    for more in range(0, seconds * 1_000 + 28_000, 500):
        clock_ms = str(ZERO + more).encode()
        headers = (("control", b"heartbeat"), ("clock_ms", clock_ms))
        log.append(at, None, b"\0heartbeat", headers, ZERO + more)


def beat(log, stamp_ms):
    headers = (("control", b"heartbeat"), ("clock_ms", str(stamp_ms).encode()))
    for topic in (STREAM.impressions, STREAM.clicks):
        log.append(Partition(topic, 0), None, None, headers, stamp_ms)


def tallying(log, stream=STREAM):
    one = early_join(stream, LABELER, BREAKER, log)
    one.own([0])
    return one


def judging(log, stream=STREAM):
    one = Judging(tally_stream(stream, BREAKER), BREAKER, log, 10)
    one.own(True)
    return one


def labelling(log, stream=STREAM):
    one = Labelling(stream, LABELER, log)
    one.own([0])
    return one


def work(parts, clock=None, still_max=40):
    clock, still = clock or Clock(), 0
    while still < still_max:
        moved = [part.run_once(clock(), 0) for part in parts]
        still = 0 if any(moved) else still + 1


def said(log):
    records = [decode_verdict(r.value) for r in log.records(Partition(STREAM.verdicts, 0))]
    return [r for r in records if isinstance(r, Verdict)], [
        r for r in records if isinstance(r, Watermark)
    ]


def examples(log):
    headers, rows = [], []
    for record in log.records(Partition(STREAM.examples, 0)):
        headers.append(BatchHeader.from_headers(record.headers))
        if record.value:
            batch = decode_examples(record.value)
            columns = [batch.column(name).to_pylist() for name in ("ts_ms", "label", "f_place")]
            rows += zip(*columns, strict=True)
    return headers, rows


@pytest.mark.parametrize("stream", [STREAM, LOOKED_UP])
def test_tallies_count_every_impression_once_with_its_early_clicks(stream):
    log = shop(12, "none", stream)
    work([tallying(log, stream)])
    counts = {}
    for record in log.records(Partition(STREAM.tallies, 0)):
        header = BatchHeader.from_headers(record.headers)
        assert header.end >= header.start
        for row in decode_tally(record.value).to_pylist() if record.value else ():
            total = counts.setdefault((row["feature"], row["value"]), [0, 0])
            total[0] += row["impressions"]
            total[1] += row["clicks"]
    views = [json.loads(r.value) for r in log.records(Partition(STREAM.impressions, 0)) if r.value]
    clicks = {
        json.loads(r.value)["id"] for r in log.records(Partition(STREAM.clicks, 0)) if r.value
    }
    for place in ("home", "abroad"):
        here = [v["id"] for v in views if v["item"] == place]
        assert counts["place", place] == [len(here), len(clicks & set(here))]
    assert counts["", ""] == [len(views), len(clicks)]
    assert not log.records(Partition(STREAM.quarantine, 0)), "side records are the labeler's"


@pytest.mark.long
def test_labels_wait_for_the_breaker_and_a_healthy_log_loses_nothing():
    log = shop(fault="none")
    label = labelling(log)
    work([label])
    assert examples(log)[0] == []
    assert label.waiting == "verdicts"
    work([tallying(log), judging(log), label])
    headers, rows = examples(log)
    assert said(log)[0] == []
    assert len(rows) == 45 * 60 == sum(header.impressions for header in headers)


@pytest.mark.long
@pytest.mark.parametrize("stream", [STREAM, LOOKED_UP])
def test_an_outage_of_one_slice_is_withheld_before_it_is_labelled(stream):
    log = shop(stream=stream)
    work([tallying(log, stream), judging(log, stream), labelling(log, stream)])
    verdicts, watermarks = said(log)
    assert {(v.feature, v.value) for v in verdicts} == {("place", "abroad")}
    headers, rows = examples(log)
    assert sum(h.withheld for h in headers) > 150
    missed = [
        ts
        for ts, _, place in rows
        if place == "abroad" and OUTAGE[0] <= ts - ZERO < OUTAGE[1] - 1_500
    ]
    assert missed == []
    assert {place for ts, _, place in rows if OUTAGE[0] <= ts - ZERO < OUTAGE[1]} == {"home"}
    assert any(ts - ZERO > OUTAGE[1] + 4_000 and place == "abroad" for ts, _, place in rows), (
        "never recovered"
    )
    assert [w.watermark_ms for w in watermarks] == sorted(w.watermark_ms for w in watermarks)


@pytest.mark.long
def test_clicks_that_cannot_be_read_withhold_everything():
    log = shop(fault="format")
    work([tallying(log), judging(log), labelling(log)])
    verdicts, _ = said(log)
    assert {(v.source, v.vendor, v.feature) for v in verdicts} == {(None, None, None)}
    assert not [1 for ts, _, _ in examples(log)[1] if OUTAGE[0] <= ts - ZERO < OUTAGE[1]]


@functools.cache
def calm():
    """The shop whose every part lives through it."""
    log = shop()
    work([tallying(log), judging(log), labelling(log)])
    return log


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_whoever_dies_when_the_same_verdicts_stand_there_in_the_end(seed):
    stormy, clock, rng = shop(), Clock(), random.Random(seed)
    makers = [tallying, judging, labelling]
    parts = [make(stormy) for make in makers]
    for _ in range(60):
        for _ in range(rng.randrange(1, 12)):
            rng.choice(parts).run_once(clock(), 0)
        dies = rng.randrange(3)
        parts[dies].close()
        parts[dies] = makers[dies](stormy)
    work(parts, clock)
    verdicts = {v.id: v for v in said(calm())[0]}
    assert verdicts
    assert {v.id: v for v in said(stormy)[0]} == verdicts
    assert examples(stormy)[1] == examples(calm())[1]


@pytest.mark.long
def test_a_failed_send_begins_again_from_what_the_log_holds(monkeypatch):
    log, clock = shop(), Clock()
    work([tallying(log)])
    one, whole = judging(log), log.writer

    class Broken:
        def append(self, *_, **__):
            raise SendFailed("broken on purpose")

        def close(self):
            pass

    monkeypatch.setattr(log, "writer", Broken)
    one.run_once(clock(), 0)
    assert one.totals.restarts == 1
    assert said(log) == ([], [])
    monkeypatch.setattr(log, "writer", whole)
    work([one, labelling(log)], clock)
    assert said(log)[0]


def test_labels_of_another_breaker_setting_have_another_config_hash():
    assert label_config_hash(STREAM, LABELER) != label_config_hash(
        STREAM, replace(LABELER, await_breaker=False)
    )
