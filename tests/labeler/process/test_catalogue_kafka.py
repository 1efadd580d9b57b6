"""A catalogue of a labeler's process and of a replica over real brokers: live, and taken over in
the middle (A1 to A5)."""

import json
import threading
import time
from dataclasses import replace

import pyarrow as pa
import pytest

from checkpointer.tables import CatalogueFollower
from everspun.launcher import Broker
from labeler.config import LabelerConfig
from labeler.fraud_config import FraudConfig
from labeler.process.metrics import LabelerMetrics
from labeler.process.process import Service
from stream import Partition, StreamConfig
from stream.columns import Feature
from stream.hashing import partition_of_key
from stream.internal_topics import decode_examples
from stream.log import KafkaLog, check_topics, create_topics
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.kafka
SHOWN, DEADLINE_S = 100, 60.0
STREAM = StreamConfig(
    partitions=2,
    window_ms=1_000,
    grace_ms=500,
    dedup_ms=1_000,
    flush_ms=200,
    heartbeat_ms=200,
    signal_ms=100,
    skew_ms=5_000,
    declared={"title": Feature(kind="text", catalogue="items")},
)


def now_ms():
    return time.time_ns() // 1_000_000


def started(stream, log, dir):
    stop = threading.Event()
    settings = LabelerConfig(await_verdicts=False, catalogue_bytes_max=200)
    service = Service(stream, settings, FraudConfig(), log, LabelerMetrics(), now_ms, None, dir)
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    return stop, thread


def shop(stream, writer, items):
    """Shows items, and writes a row of one of them now and then."""
    for n in range(SHOWN):
        if n % 10 == 0:
            key = f"i{n // 10 % 3}".encode()
            value = None if n == 60 else json.dumps({"title": f"t{n}"}).encode()
            writer.append(items, value, key, (), now_ms())
        session, ts = f"s{n % 9}", now_ms()
        view = {"id": str(n), "ts_ms": ts, "session": session, "source": "u", "vendor": "v"}
        view["item"] = f"i{n % 3}"
        at = Partition(stream.impressions, partition_of_key(session.encode(), 2))
        writer.append(at, json.dumps(view).encode(), session.encode(), (), ts)
        time.sleep(0.04)
    writer.flush(10_000)


@pytest.mark.timeout(240)
def test_rows_are_given_as_of_arrival_over_a_handover_and_served(
    broker: Broker, topic_prefix: str, tmp_path
):
    stream = replace(STREAM, bootstrap_servers=broker.address, topic_prefix=topic_prefix)
    create_topics(stream)
    assert not check_topics(stream)
    log = KafkaLog(stream)
    follower = CatalogueFollower(stream, log, 200, tmp_path / "replica")
    follower.start()
    stop, thread = started(stream, log, tmp_path / "labeler-0")
    writer, reader, rows = log.writer(), log.reader(), {}
    items = Partition(stream.catalogues["items"], 0)
    examples = [Partition(stream.examples, p) for p in range(2)]
    reader.assign([*examples, items])
    for at in (*examples, items):
        reader.seek(at, 0)
    shop(stream, writer, items)
    limit, handed_over, written = TimeLimit(DEADLINE_S), False, []
    while len(rows) < SHOWN and not limit.over:
        for at, records in reader.poll(1_000, 200).items():
            for record in records:
                if at == items:
                    written += [] if record.is_heartbeat else [record]
                    continue
                for row in decode_examples(record.value).to_pylist() if record.value else ():
                    rows[at.partition, row["position"]] = row
        if len(rows) > SHOWN // 3 and not handed_over:
            handed_over = True
            stop.set()
            thread.join(30)
            stop, thread = started(stream, log, tmp_path / "labeler-0")
    stop.set()
    thread.join(30)
    table = pa.table({"item": ["i0", "i1", "i2", "nobody"], "f_title": [""] * 4})
    served = follower.filled(table).column("f_title").to_pylist()
    age_s = follower.age_s(now_ms())
    follower.close()
    writer.close()
    reader.close()
    assert len(rows) == SHOWN
    assert len(written) == SHOWN // 10
    given = 0
    for row in rows.values():
        found = [r for r in written if r.key == row["item"].encode()]
        by_then = [r for r in found if r.timestamp_ms <= row["arrival_ms"]]
        value = by_then[-1].value if by_then else None
        assert row["f_title"] == (json.loads(value)["title"] if value else "")
        given += bool(row["f_title"])
    assert given > SHOWN // 3
    assert served == ["t90", "t70", "t80", ""]
    assert age_s is not None
    assert age_s < DEADLINE_S
