"""What became of one event, from what stands in the log and in the store."""

import json
import logging
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from checkpointer.store import Announcement
from everspun.trace import search
from everspun.trace.journey import EventRecords, event_trace
from everspun.trace.search import EventPlace, NotThere, find, published_of
from everspun.trace.spans import NotSent, send, trace_id
from labeler.labels import Labelling
from stream import Partition
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import MemoryLog

sys.path.insert(0, str(Path(__file__).parents[2] / "labeler" / "labels"))
import labelled_shop
from labelled_shop import EXAMPLES, IMPRESSIONS, LABELER, STREAM, ZERO, Clock

CHAIN, EVALUATIONS, MODEL = "label/0", Partition("evaluations", 0), "films"
WINDOW_MS = STREAM.window_ms + STREAM.grace_ms


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    """A shop whose events are labelled; `NEAR` is small, so that places are found by halving."""
    monkeypatch.setattr(search, "NEAR", 2)
    clock = Clock()
    log = labelled_shop.memory_log(clock=clock)
    labelled_shop.fill(log, seconds=20)
    labelling = Labelling(STREAM, LABELER, log)
    labelling.own([0])
    labelled_shop.work(labelling, clock)
    assert log.end(EXAMPLES) > 20
    return log


def traced(log: MemoryLog, offset: int) -> EventRecords:
    return find(log.reader(), STREAM, MODEL, EventPlace(0, offset), EVALUATIONS)


def scored(log: MemoryLog, header: BatchHeader, model: str = MODEL) -> None:
    said = {"model": model, "chain": header.chain, "start": header.start, "end": header.end}
    said |= {"rows": 4, "log_loss_sum": 2.0, "learner": "learner-1", "version": 7}
    log.append(EVALUATIONS, json.dumps(said).encode(), None, (), ZERO + 90_000)


def test_the_label_of_every_event_is_found(log: MemoryLog):
    truth, where = {}, {}
    for record in log.records(EXAMPLES):
        if record.value:
            rows = decode_examples(record.value)
            labels = rows.column("label").to_pylist()
            for place, label in zip(rows.column("position").to_pylist(), labels, strict=True):
                truth[place >> 20], where[place >> 20] = label, record.offset
    assert len(truth) > 100
    for offset, label in truth.items():
        found = traced(log, offset)
        assert found.row == (label, 1.0)
        assert found.examples_offset == where[offset]


def test_an_event_is_followed_to_what_is_served(log: MemoryLog):
    offset = 40
    found = traced(log, offset)
    trace = event_trace(found, CHAIN, WINDOW_MS, ZERO + 100_000)
    assert [step.name for step in trace.steps] == ["window", "label"]
    assert "a learner" in trace.waits_for

    header = found.header
    assert header is not None
    for n, record in enumerate(log.records(EXAMPLES)):
        if n % 2 or record.offset == found.examples_offset:  # what had no rows is not scored
            scored(log, BatchHeader.from_headers(record.headers), "another")
            scored(log, BatchHeader.from_headers(record.headers))
    log.append(EVALUATIONS, b"not json")
    found = traced(log, offset)
    assert found.evaluation is not None
    assert found.evaluation["start"] == header.start
    trace = event_trace(found, CHAIN, WINDOW_MS, ZERO + 100_000)
    assert trace.steps[-1].detail["log_loss"] == 0.5
    assert "checkpoint" in trace.waits_for

    checkpoints = Partition(STREAM.checkpoints, 0)
    for number, end in ((1, header.start), (2, header.end), (3, header.end + 1)):
        said = Announcement(
            "published", MODEL, number, f"c{number}", "", "0" * 64, vector={CHAIN: end}
        )
        log.append(checkpoints, said.encode(), None, (), ZERO + 95_000 + number)
    log.append(checkpoints, b"{}")
    published = published_of(log.reader(), checkpoints.topic, MODEL, CHAIN, found.position)
    assert published is not None
    assert (published[0].name, published[1]) == ("c2", ZERO + 95_002)


def test_what_is_not_labelled_yet_says_how_long_it_waits(log: MemoryLog):
    end = log.end(IMPRESSIONS)
    view = {"id": "new", "ts_ms": ZERO + 99_000, "session": "s", "source": "u", "item": "i"}
    log.append(IMPRESSIONS, json.dumps(view).encode(), b"s", (), ZERO + 99_000)
    found = traced(log, end)
    assert found.header is None
    early = event_trace(found, CHAIN, WINDOW_MS, ZERO + 99_100)
    assert early.waits_for == "its window, for 1 s"
    assert early.steps[0].ended_ms == ZERO + 99_100
    late = event_trace(found, CHAIN, WINDOW_MS, ZERO + 300_000)
    assert "a labeler" in late.waits_for


def test_an_event_that_is_no_row_says_which_classes_its_range_has(log: MemoryLog):
    found = replace(traced(log, 40), row=None)
    assert found.header is not None
    found = replace(found, header=replace(found.header, rejected=3))
    trace = event_trace(found, CHAIN, WINDOW_MS, ZERO + 100_000)
    assert trace.steps[-1].detail["row"] == "none"
    assert trace.steps[-1].detail["range_rejected"] == 3
    assert trace.waits_for == ""


def test_an_offset_that_is_not_there_is_named_with_those_that_are(log: MemoryLog):
    end = log.end(IMPRESSIONS)
    with pytest.raises(NotThere, match=f"offsets 0 to {end - 1}"):
        traced(log, end)
    log.delete_below(IMPRESSIONS, 10)
    with pytest.raises(NotThere, match="offsets 10 to"):
        traced(log, 3)


def test_what_is_no_event_is_said_to_be_none(log: MemoryLog):
    end = log.end(IMPRESSIONS)
    labelled_shop.beat(log, ZERO + 99_000)
    with pytest.raises(NotThere, match=f"offset {end} is a heartbeat"):
        traced(log, end)
    with pytest.raises(NotThere, match="--row 1: the record at offset 40 has 1 impressions"):
        find(log.reader(), STREAM, MODEL, EventPlace(0, 40, 1), EVALUATIONS)


class DeadCollector(SpanExporter):
    """Takes nothing, and says why in its log alone."""

    def export(self, spans):
        logger = logging.getLogger("opentelemetry.exporter.otlp")
        logger.warning("Transient error: connection refused.")
        logger.error("Failed.")
        return SpanExportResult.FAILURE


def test_spans_that_nobody_takes_are_not_sent(log: MemoryLog, caplog: pytest.LogCaptureFixture):
    trace = event_trace(traced(log, 40), CHAIN, WINDOW_MS, ZERO + 100_000)
    with pytest.raises(NotSent, match="connection refused"):
        send(trace, MODEL, DeadCollector())
    assert not caplog.records, "it is told once"


def test_spans_of_one_range_are_one_trace_whoever_sends_them(log: MemoryLog):
    exporter, rng = InMemorySpanExporter(), random.Random(1)
    found = traced(log, 40 + rng.randrange(1))
    trace = event_trace(found, CHAIN, WINDOW_MS, ZERO + 100_000)
    assert send(trace, MODEL, exporter) == send(trace, MODEL, exporter) == 2
    spans = exporter.get_finished_spans()
    assert {span.context.trace_id for span in spans} == {trace_id(MODEL, CHAIN, trace.start)}
    assert trace_id("other", CHAIN, trace.start) != trace_id(MODEL, CHAIN, trace.start)
    window = next(span for span in spans if span.name == "window")
    assert window.resource.attributes["service.name"] == "everspun-labeler"
    assert window.end_time - window.start_time == WINDOW_MS * 1_000_000
