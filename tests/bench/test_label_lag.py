"""The lag from deadline to "in examples": its events, and its arithmetic."""

import json

import numpy as np
import pytest

from bench.labels.label_lag import Failed, Feed, Seen, lags, prepared
from stream import Partition, StreamConfig
from stream.log import MemoryLog

STREAM = StreamConfig(partitions=2)
WAIT_MS = 32_000


@pytest.mark.parametrize("form", ["json_page_views", "json_single"])
def test_the_events_come_by_arrival_with_ids_of_their_own(form: str) -> None:
    entries = prepared(STREAM, form, rate=400, seconds=10)
    arrivals = [entry.arrival_ms for entry in entries]
    assert arrivals == sorted(arrivals)
    shown = [json.loads(entry.value) for entry in entries if entry.topic == STREAM.impressions]
    ids = [row["id"] for one in shown for row in one.get("impressions", [one])]
    assert len(set(ids)) == len(ids) == 4_000
    assert entries[-1].topic == STREAM.impressions


def test_a_record_is_written_with_the_time_at_which_it_happens() -> None:
    log = MemoryLog(lambda: 0)
    log.create(STREAM.impressions, 2)
    log.create(STREAM.clicks, 2)
    entries = prepared(STREAM, "json_single", rate=40, seconds=1)
    begin_ms = 1_600_000_000_000  # past: all are due at once
    feed = Feed(log, entries, begin_ms)
    feed.join()
    assert feed.failure is None
    reader = log.reader()
    partitions = [Partition(STREAM.impressions, p) for p in range(2)]
    reader.assign(partitions)
    for at in partitions:
        reader.seek(at, 0)
    written = [record for records in reader.poll(100, 0).values() for record in records]
    times = [json.loads(record.value or b"")["ts_ms"] for record in written]
    assert len(times) == 40
    assert all(begin_ms <= ts_ms < begin_ms + 1_000 for ts_ms in times)


def test_the_lag_is_counted_from_the_deadline_and_not_for_the_first_seconds() -> None:
    early, late = np.full(50, 1_000), np.arange(5_000, 5_100)
    found = lags([Seen(90_000, early), Seen(38_100, late)], from_ms=5_000, wait_ms=WAIT_MS)
    assert found["measured"] == 100
    assert found["max_s"] == 1.1
    assert found["p50_s"] == pytest.approx(1.05, abs=0.002)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(Failed):
        lags([Seen(90_000, np.full(3, 1_000))], from_ms=5_000, wait_ms=WAIT_MS)
