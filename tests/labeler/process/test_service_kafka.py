"""The labeler's process over real brokers: live, with its own heartbeats, stopped in the middle
and taken over."""

import json
import time
from pathlib import Path

import pytest
from labeler_oracle import expected
from live_labeler import PARTITIONS, Running, examples_from_the_beginning, short_times, show

from everspun.launcher import Broker
from stream import Chain, Fold, Partition
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import KafkaLog, create_topics
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.kafka
SHOWN, DEADLINE_S = 60, 60.0
#: So little at once that clicks are read by pages and the rest waits on the log.
SETTINGS = {"click_page_rows": 4, "pending_clicks_bytes_max": 500}


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
    stream = short_times(broker, topic_prefix, batch_rows_max=7)
    create_topics(stream)
    log = KafkaLog(stream)
    first = running = Running(stream, log, tmp_path, **SETTINGS)
    writer, reader, chains, found = (
        log.writer(),
        examples_from_the_beginning(log, stream),
        {},
        {},
    )
    for n in range(SHOWN):
        p, session, ts_ms = show(writer, stream, n)
        if n % 3 == 0:
            click = json.dumps({"id": str(n), "ts_ms": ts_ms + 5, "session": session}).encode()
            writer.append(Partition(stream.clicks, p), click, session.encode(), (), ts_ms)
        time.sleep(0.01)
    writer.flush(10_000)
    limit = TimeLimit(DEADLINE_S)
    while len(found) < SHOWN and not limit.over:
        labelled(reader, chains, found)
        if found and running is first:
            first.end()
            running = Running(stream, log, tmp_path, **SETTINGS)
    running.end()
    writer.close()
    assert len(found) == SHOWN
    assert found == {
        at: label
        for p in range(PARTITIONS)
        for at, label in by_the_rules(reader, stream, p).items()
    }
    reader.close()
