"""The Faust app on a real broker: killed in the middle, on its own disk or without it, it says
what the core says."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from everspun.launcher import Broker
from labeler.counting import SIGNAL_SCHEMA, Signal
from labeler.fraud.app import check
from labeler.fraud.filter import FraudFilter, run_step
from labeler.fraud.tables import dict_tables
from labeler.fraud_config import FraudConfig
from stream import Partition, StreamConfig
from stream.internal_topics import Verdict, Watermark, decode_verdict
from stream.log import KafkaLog, create_topics
from stream.monitoring import TimeLimit

MINUTE = 60_000
T0 = 1_000 * 60 * MINUTE
FRAUD = FraudConfig(rate_prior_views=20, rate_prior=0.5, flood_known_views_min=20)
#: So long without a new record, in seconds, and it has failed: a loaded machine is slow, not stuck.
DEADLINE_S = 90.0

PROCESS = """
import pathlib, sys
from everspun.roles.stop_signals import stop_on_signals
from labeler.fraud import app
from labeler.fraud_config import FraudConfig
from stream.config import StreamConfig
from stream.log.kafka import KafkaLog
stop = stop_on_signals()
stream = StreamConfig(bootstrap_servers=sys.argv[1], topic_prefix=sys.argv[2], partitions=1)
fraud = FraudConfig(rate_prior_views=20, rate_prior=0.5, flood_known_views_min=20)
app.run(KafkaLog(stream), stream, fraud, pathlib.Path(sys.argv[3]), 0, stop)
"""


def signals(stream: StreamConfig) -> list[Signal]:
    """An hour of honest people, then one of a clicker and of a flooder, then two quiet ones."""
    views, clicks = f"{stream.impressions}/0", f"{stream.clicks}/0"
    made = []
    for n in range(0, 240, 3):
        at, start = T0 + n * MINUTE, n
        honest = [(f"u{k}", f"v{k % 4}", 2) for k in range(16)] if n < 60 else []
        bad = [("clicker", "v1", 10), ("flooder", "v2", 20)] if 60 <= n < 120 else []
        seen = {views: honest + bad, clicks: [(s, v, 1) for s, v, _ in honest] + bad[:1]}
        for name, events in seen.items():
            table = [
                [s, v, at // FRAUD.cell_ms * FRAUD.cell_ms, k, at, at, -1, 0, -1]
                for s, v, k in events
            ]
            columns = zip(*table, strict=True) if table else [[] for _ in SIGNAL_SCHEMA]
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, SIGNAL_SCHEMA, strict=True)
            ]
            rows = pa.RecordBatch.from_arrays(arrays, schema=SIGNAL_SCHEMA) if table else None
            made.append(Signal(name, start, start + 3, at, at + 3 * MINUTE, at, 0, rows))
    return made


def start(broker: Broker, stream: StreamConfig, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROCESS, broker.address, stream.topic_prefix, str(folder)]
    log = (folder.parent / f"{folder.name}.log").open("ab")
    return subprocess.Popen(
        command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": os.getcwd()}
    )


def append(log: KafkaLog, to: Partition, value: bytes) -> None:
    writer = log.writer()
    writer.append(to, value, b"s", ())
    writer.flush(10_000)
    writer.close()


def feed(log: KafkaLog, stream: StreamConfig, some: list[Signal]) -> None:
    writer = log.writer()
    for one in some:
        writer.append(Partition(stream.signals, 0), one.value, one.key, one.headers)
    writer.flush(10_000)
    writer.close()


def wait_for(log: KafkaLog, stream: StreamConfig, watermark_ms: int) -> list[Verdict | Watermark]:
    """All of `verdicts`, once both inputs have this watermark."""
    reader, partition = log.reader(), Partition(stream.verdicts, 0)
    reader.assign([partition])
    reader.seek(partition, 0)
    read: list[Verdict | Watermark] = []
    limit = TimeLimit(DEADLINE_S)
    while not limit.over:
        for record in reader.poll(1_000, 500).get(partition, []):
            assert record.value is not None
            limit = TimeLimit(DEADLINE_S)
            read.append(decode_verdict(record.value))
        low = {r.input for r in read if isinstance(r, Watermark) and r.watermark_ms >= watermark_ms}
        if len(low) == 2:
            reader.close()
            return read
    raise AssertionError(
        f"no watermark {watermark_ms}, nothing new for {DEADLINE_S} s; read {len(read)} records"
    )


def expected(stream: StreamConfig) -> set[str]:
    sent: list[Verdict | Watermark] = []
    names = [f"{stream.impressions}/0"], [f"{stream.clicks}/0"]
    run_step(FraudFilter(FRAUD, *names, dict_tables()), enumerate(signals(stream)), sent.extend)
    return {one.id for one in sent if isinstance(one, Verdict)}


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "disk"),
    [
        ("kafka", "its own disk"),
        ("kafka", "a new disk"),
        ("embedded", "a new disk"),
        pytest.param("embedded", "its own disk", marks=pytest.mark.slow),
    ],
)
def test_killed_and_started_again(
    broker_of_kind: Callable[[str], Broker], topic_prefix: str, tmp_path: Path, kind: str, disk: str
):
    broker = broker_of_kind(kind)
    stream = StreamConfig(bootstrap_servers=broker.address, topic_prefix=topic_prefix, partitions=1)
    create_topics(stream)
    log, all_signals = KafkaLog(stream), signals(stream)
    for topic in (
        stream.impressions,
        stream.clicks,
    ):  # a signal may not claim more than its input's log holds (F3)
        append(log, Partition(topic, 0), b"{}")
    half = len(all_signals) // 2 + 20  # within the hour after the attack began
    feed(log, stream, all_signals[:half])
    process = start(broker, stream, tmp_path / "first")
    try:
        before = wait_for(log, stream, all_signals[half - 1].bucket_end_ms)
        process.send_signal(signal.SIGKILL)
        process.wait()
        feed(log, stream, all_signals[half:])
        process = start(
            broker, stream, tmp_path / ("first" if disk == "its own disk" else "second")
        )
        after = wait_for(log, stream, all_signals[-1].bucket_end_ms)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert after[: len(before)] == before
    assert {one.id for one in after if isinstance(one, Verdict)} == expected(stream)
    for name in (f"{stream.impressions}/0", f"{stream.clicks}/0"):
        marks = [
            one.watermark_ms for one in after if isinstance(one, Watermark) and one.input == name
        ]
        assert marks == sorted(marks)


def test_what_it_cannot_serve_is_refused():
    with pytest.raises(ValueError, match=r"cell_ms \+ fraud\.settle_ms = 300000 \+ 300000"):
        check(StreamConfig(window_ms=60_000), FraudConfig())
    check(StreamConfig(), FraudConfig())
