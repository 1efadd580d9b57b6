"""Counters of a labeler's process over real brokers: live, and taken over in the middle."""

import json
import threading
import time

import pytest

from everspun.launcher import Broker, TimeLimit
from labeler.config import LabelerConfig
from labeler.fraud_config import FraudConfig
from labeler.process.metrics import LabelerMetrics
from labeler.process.process import Service
from stream import Partition, StreamConfig
from stream.columns import Feature
from stream.hashing import partition_of_key
from stream.internal_topics import decode_examples
from stream.log import KafkaLog, create_topics

pytestmark = pytest.mark.kafka
SHOWN, DEADLINE_S, BUCKET_MS = 120, 60.0, 200


def now_ms():
    return time.time_ns() // 1_000_000


def started(stream, log):
    stop, settings = threading.Event(), LabelerConfig(await_verdicts=False)
    service = Service(stream, settings, FraudConfig(), log, LabelerMetrics(), now_ms)
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    return stop, thread


@pytest.mark.timeout(240)
def test_what_is_joined_equals_a_recount_of_examples_over_a_handover(
    broker: Broker, topic_prefix: str
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
        declared={"shows": Feature(kind="counter", of="item", half_life_ms=0, gives="shows")},
        counts_bucket_ms=BUCKET_MS,
        counts_slices=3,
    )
    create_topics(stream)
    log = KafkaLog(stream)
    stop, thread = started(stream, log)
    writer, reader, rows = log.writer(), log.reader(), {}
    examples = [Partition(stream.examples, p) for p in range(2)]
    reader.assign(examples)
    for at in examples:
        reader.seek(at, 0)
    for n in range(SHOWN):
        session, ts = f"s{n % 9}", now_ms()
        view = {"id": str(n), "ts_ms": ts, "session": session, "source": "u", "vendor": "v"}
        view["item"] = f"i{n % 3}"
        at = Partition(stream.impressions, partition_of_key(session.encode(), 2))
        writer.append(at, json.dumps(view).encode(), session.encode(), (), ts)
        time.sleep(0.04)
    writer.flush(10_000)
    limit, handed_over = TimeLimit(DEADLINE_S), False
    while len(rows) < SHOWN and not limit.over:
        for at, records in reader.poll(1_000, 200).items():
            for record in records:
                for row in decode_examples(record.value).to_pylist() if record.value else ():
                    rows[at.partition, row["position"]] = row
        if len(rows) > SHOWN // 3 and not handed_over:
            handed_over = True
            stop.set()
            thread.join(30)
            stop, thread = started(stream, log)
    stop.set()
    thread.join(30)
    writer.close()
    reader.close()
    assert len(rows) == SHOWN
    given = 0
    for row in rows.values():
        until = (row["arrival_ms"] - stream.wait_ms) // BUCKET_MS * BUCKET_MS
        known = [r for r in rows.values() if r["item"] == row["item"] and r["arrival_ms"] < until]
        assert row["f_shows"] == len(known)
        given += len(known) > 0
    assert given > SHOWN // 4
