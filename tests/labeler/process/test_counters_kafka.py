"""Counters of a labeler's process over real brokers: live, and taken over in the middle."""

import time

import pytest
from live_labeler import Running, examples_from_the_beginning, short_times, show

from everspun.launcher import Broker
from stream.columns import Feature
from stream.internal_topics import decode_examples
from stream.log import KafkaLog, create_topics
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.kafka
SHOWN, DEADLINE_S, BUCKET_MS = 120, 60.0, 200
SHOWS = Feature(kind="counter", of="item", half_life_ms=0, gives="shows")


@pytest.mark.timeout(240)
def test_what_is_joined_equals_a_recount_of_examples_over_a_handover(
    broker: Broker, topic_prefix: str
):
    stream = short_times(
        broker,
        topic_prefix,
        declared={"shows": SHOWS},
        counts_bucket_ms=BUCKET_MS,
        counts_slices=3,
    )
    create_topics(stream)
    log = KafkaLog(stream)
    first = running = Running(stream, log)
    writer, reader, rows = log.writer(), examples_from_the_beginning(log, stream), {}
    for n in range(SHOWN):
        show(writer, stream, n, item=f"i{n % 3}")
        time.sleep(0.04)
    writer.flush(10_000)
    limit = TimeLimit(DEADLINE_S)
    while len(rows) < SHOWN and not limit.over:
        for at, records in reader.poll(1_000, 200).items():
            for record in records:
                for row in decode_examples(record.value).to_pylist() if record.value else ():
                    rows[at.partition, row["position"]] = row
        if len(rows) > SHOWN // 3 and running is first:
            first.end()
            running = Running(stream, log)
    running.end()
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
