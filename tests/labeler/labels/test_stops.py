"""L7: a stop is loud, says what to type, and what it says always lets the partition go on,
without a restart."""

import json
import logging

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import labeler.labels.emitter
from everspun.commands.system.status import stops
from everspun.status import Report
from labeler.config import LabelerConfig
from labeler.counting import Head
from labeler.fraud_config import FraudConfig
from labeler.io import SetAside, set_aside_headers, set_aside_key
from labeler.labels.runner import OVERRIDE_POLL_MS, Labelling
from labeler.process.metrics import LabelerMetrics
from stream import Partition, StreamConfig, offset_of
from stream.internal_topics import decode_examples, encode_examples
from stream.log import MemoryLog, topic_specs

ZERO = 1_600_000_000_000
STREAM = StreamConfig(
    partitions=1,
    replayed=True,
    window_ms=1_000,
    grace_ms=100,
    dedup_ms=500,
    flush_ms=1_000,
    signal_ms=100,
    heartbeat_ms=100,
    jump_max_ms=10_000,
    batch_rows_max=8,
    age_max_ms=5_000,
    skew_ms=100,
)
LABELER = LabelerConfig(await_verdicts=False, retry_ms=10)
VIEWS = Partition("impressions", 0)


def shop(clock: list[int]) -> MemoryLog:
    """Twenty views of a second, and heartbeats that close them."""
    log = MemoryLog(lambda: clock[0])
    for spec in topic_specs(STREAM):
        log.create(spec.name, spec.partitions)
    for n in range(20):
        view = {
            "id": str(n),
            "ts_ms": ZERO + n,
            "session": "s",
            "source": "u",
            "vendor": "v",
            "item": "i",
        }
        log.append(VIEWS, json.dumps(view).encode(), b"s", (), ZERO + n)
    for more in (3_000, 6_000):
        headers = (("control", b"heartbeat"), ("clock_ms", str(ZERO + more).encode()))
        for topic in ("impressions", "clicks"):
            log.append(Partition(topic, 0), None, None, headers, ZERO + more)
    return log


def report_of(metrics: LabelerMetrics) -> Report:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return Report(
        {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}
    )


def test_a_batch_that_cannot_be_made_frees_itself_record_by_record(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    clock = [ZERO]
    log = shop(clock)

    def raises_on_the_third(batch, compression=None):
        if (2 << 20) in batch.column("position").to_pylist():
            raise RuntimeError("boom")
        return encode_examples(batch, compression)

    monkeypatch.setattr(labeler.labels.emitter, "encode_examples", raises_on_the_third)
    labelling, metrics = Labelling(STREAM, LABELER, log), LabelerMetrics()
    head = Head(STREAM, LABELER, FraudConfig(), log)
    labelling.own([0])
    orders = 0
    with caplog.at_level(logging.ERROR, logger="labeler"):  # simulated labelers are silenced
        while True:
            for _ in range(60):
                clock[0] += 1
                labelling.run_once(clock[0], 0)
            stop = labelling.tasks[0].core.stopped
            if stop is None:
                break
            metrics.look(labelling, head, False)
            (line,) = stops(report_of(metrics))
            offset = offset_of(stop.position)
            assert f"impressions[0] stopped at offset {offset} since 20" in line
            assert "boom" in line
            assert line.endswith(f"everspun quarantine add impressions 0 {offset}")
            order = SetAside("impressions", 0, offset)
            log.append(
                Partition("quarantine", 0),
                b"",
                set_aside_key(order),
                set_aside_headers(order, "a word"),
            )
            clock[0] += OVERRIDE_POLL_MS
            orders += 1
            assert orders <= 3, "each word passes one record, and the third one is it"
    assert [r.levelname for r in caplog.records if "stopped:" in r.message] == ["ERROR"] * orders
    metrics.look(labelling, head, False)
    assert stops(report_of(metrics)) == []
    rows = [p >> 20 for r in log.records(Partition("examples", 0)) if r.value
            for p in decode_examples(r.value).column("position").to_pylist()]  # fmt: skip
    assert rows == list(range(3, 20))
    assert sum(r.header("set_aside") is None for r in log.records(Partition("quarantine", 0))) == 3


def test_a_stop_that_only_the_count_tells_of_is_said_too():
    assert (
        "2 partitions stopped"
        in stops(Report({("everspun_labeler_stopped_partitions", ()): 2.0}))[0]
    )
    assert stops(Report({("everspun_labeler_stopped_partitions", ()): 0.0})) == []
