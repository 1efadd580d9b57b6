"""Avro in Kafka, its schema in a registry over HTTP: read as labelers read, and checked by hand."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from registered_events import IMPRESSION, avro, impression
from small_registry import SmallRegistry

from everspun.__main__ import main
from everspun.launcher import Broker
from stream.config import StreamConfig
from stream.decoding import decode_impressions
from stream.log import KafkaLog, create_topics
from stream.monitoring import TimeLimit
from stream.record import Partition
from stream.registry.client import RegistryClient, log_with_schemas
from stream.registry.config import RegistryConfig

pytestmark = pytest.mark.kafka


def test_events_in_avro_are_read_and_checked(
    broker_of_kind: Callable[[str], Broker],
    topic_prefix: str,
    registry: SmallRegistry,
    tmp_path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    stream = StreamConfig(
        bootstrap_servers=broker_of_kind("embedded").address, topic_prefix=topic_prefix,
        partitions=1, categorical_features=("user",),
    )  # fmt: skip
    create_topics(stream)
    at, id = Partition(stream.impressions, 0), registry.register("impressions-value", IMPRESSION)
    log, now_ms = KafkaLog(stream), int(time.time() * 1_000)
    writer = log.writer()
    for value in (
        avro(IMPRESSION, impression(id="a", ts_ms=now_ms, features={"user": "ann"}), id),
        avro(IMPRESSION, impression(id="b", ts_ms=now_ms), id),
        avro(IMPRESSION, impression(id="", ts_ms=now_ms), id),
        avro(IMPRESSION, impression(), 99),
    ):
        writer.append(at, value, b"s")
    writer.flush(20_000)
    writer.close()

    registry.fault = "500"
    client = RegistryClient(RegistryConfig(url=registry.url, retry_max_ms=100, unknown_ms=0))
    reader = log_with_schemas(log, stream, client).reader()
    reader.assign([at])
    reader.seek(at, 0)
    given = []
    limit = TimeLimit(60)
    while client.away() is None:
        assert not reader.poll(100, 100)
        assert not limit.over
    registry.fault = ""
    while sum(map(len, given)) < 4:
        given += reader.poll(100, 100).values()
        assert not limit.over
    found = [decode_impressions(r, 0, np.full(len(r), now_ms), stream) for r in given]
    assert [one for rows, _ in found for one in rows.table["id"].to_pylist()] == ["a", "b"]
    assert [one.field for _, bad in found for one in bad] == ["id", "value"]
    reader.close()
    client.close()

    config = tmp_path / "everspun.toml"
    config.write_text(
        f'[stream]\nbootstrap_servers = "{stream.bootstrap_servers}"\npartitions = 1\n'
        f'topic_prefix = "{topic_prefix}"\ncategorical_features = ["user"]\n'
        f'[registry]\nurl = "{registry.url}"\nunknown_ms = 0\n'
    )
    monkeypatch.setenv("COLUMNS", "200")  # a reason stands in one line
    assert main(["events", "check", "impressions", "--config", str(config)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "2 good events, 2 bad records" in out
    assert "the registry does not know" in out
    registry.fault = "500"
    assert main(["events", "check", "impressions", "--config", str(config)]) == 2
    assert "answers 500" in " ".join(capsys.readouterr().err.split())
