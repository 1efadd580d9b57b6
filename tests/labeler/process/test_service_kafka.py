"""The labeler's process over real brokers: live, with its own heartbeats, stopped in the middle
and taken over."""

import json
import threading
import time
from pathlib import Path

import pytest
from labeler_oracle import expected

from everspun.launcher import Broker, TimeLimit
from labeler.config import LabelerConfig
from labeler.fraud_config import FraudConfig
from labeler.process.metrics import LabelerMetrics
from labeler.process.process import Service
from stream import Chain, Fold, Partition, StreamConfig
from stream.hashing import partition_of_key
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import KafkaLog, create_topics

pytestmark = pytest.mark.kafka
SHOWN, DEADLINE_S = 60, 60.0


def now_ms():
    return time.time_ns() // 1_000_000


class Running:
    """One labeler on threads of its own."""

    def __init__(self, stream, log, dir):
        self.stop = threading.Event()
        settings = LabelerConfig(
            await_verdicts=False, click_page_rows=4, pending_clicks_bytes_max=500
        )
        service = Service(stream, settings, FraudConfig(), log, LabelerMetrics(), now_ms, dir=dir)
        self.thread = threading.Thread(target=service.run, args=(self.stop,))
        self.thread.start()

    def end(self):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def labelled(reader, chains, found):
    """Fold what is new in `examples` into `found`: position -> label."""
    for at, records in reader.poll(1_000, 200).items():
        for record in records:
            header = BatchHeader.from_headers(record.headers)
            kind, before = chains.setdefault(at.partition, Chain()).fold(header.start, header.end)
            assert kind is not Fold.DANGLES
            if kind is Fold.EXTENDS and record.value:
                batch = decode_examples(record.value)
                for position, label in zip(
                    *(batch.column(n).to_pylist() for n in ("position", "label")), strict=True
                ):
                    if position >= before:
                        assert (at.partition, position) not in found
                        found[at.partition, position] = label


def by_the_rules(reader, stream, p):
    """What the oracle makes of the logs as the broker stamped them: how fast this machine was
    decides, not the test."""
    logs = []
    for topic in (stream.impressions, stream.clicks):
        at = Partition(topic, p)
        end, records = reader.end_offsets([at])[at], []
        reader.assign([at])
        reader.seek(at, 0)
        while reader.position(at) < end:
            records += reader.poll(1_000, 200).get(at, [])
        logs.append(records)
    batches = expected(*logs, None, stream, ())
    return {(p, position): label for batch in batches for position, label, _ in batch["rows"]}


@pytest.mark.timeout(180)
def test_live_events_are_labelled_once_over_a_handover(
    broker: Broker, topic_prefix: str, tmp_path: Path
):
    stream = StreamConfig(
        bootstrap_servers=broker.address,
        topic_prefix=topic_prefix,
        partitions=2,
        window_ms=1_000,
        grace_ms=500,
        dedup_ms=1_000,
        flush_ms=200,
        heartbeat_ms=200,
        signal_ms=100,
        skew_ms=5_000,
        batch_rows_max=7,
    )
    create_topics(stream)
    log = KafkaLog(stream)
    first = Running(stream, log, tmp_path)
    writer, reader, chains, found = log.writer(), log.reader(), {}, {}
    examples = [Partition(stream.examples, p) for p in range(2)]
    reader.assign(examples)
    for at in examples:
        reader.seek(at, 0)
    for n in range(SHOWN):
        session, ts = f"s{n % 9}", now_ms()
        p = partition_of_key(session.encode(), 2)
        view = {
            "id": str(n),
            "ts_ms": ts,
            "session": session,
            "source": "u",
            "vendor": "v",
            "item": "i",
        }
        writer.append(
            Partition(stream.impressions, p), json.dumps(view).encode(), session.encode(), (), ts
        )
        if n % 3 == 0:
            click = {"id": str(n), "ts_ms": ts + 5, "session": session}
            writer.append(
                Partition(stream.clicks, p), json.dumps(click).encode(), session.encode(), (), ts
            )
        time.sleep(0.01)
    writer.flush(10_000)
    running, limit = first, TimeLimit(DEADLINE_S)
    while len(found) < SHOWN and not limit.over:
        labelled(reader, chains, found)
        if found and running is first:
            first.end()
            running = Running(stream, log, tmp_path)
    running.end()
    writer.close()
    assert len(found) == SHOWN
    assert found == {
        at: label for p in range(2) for at, label in by_the_rules(reader, stream, p).items()
    }
    reader.close()
