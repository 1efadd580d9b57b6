"""kafka-python's private places: touched in our own processes alone, and done without."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol import parser

from everspun.launcher import Broker
from stream.config import StreamConfig
from stream.log import kafka as kafka_log
from stream.log.kafka import KafkaLog
from stream.log.kafka_admin import create_topics
from stream.log.kafka_fetch_columns import columns_of, read_in_columns
from stream.log.kafka_socket_patch import missing_places
from stream.record import Partition, Record

#: Everything in every module and class of kafka-python and of selectors, before and after.
SITE = """
import pkgutil, selectors, sys
import kafka.net.transport, kafka.protocol.parser, kafka.consumer.fetcher, kafka.producer.sender

THEIRS = ("kafka", "selectors")

def everything():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in THEIRS:
            for key, value in list(vars(module).items()):
                found[name, key] = value
                if isinstance(value, type) and value.__module__.split(".")[0] in THEIRS:
                    where = value.__module__, value.__qualname__
                    found |= {(*where, k): v for k, v in vars(value).items()}
    return found

before = everything()
assert len(before) > 1_000
from stream.config import StreamConfig
from stream.hashing.keys import Pseudonymiser
from stream.log.kafka import KafkaLog
from stream.producer import EventProducer, ProducerConfig
import stream.log.kafka_socket_patch, stream.log.kafka_fetch_columns, stream.log.kafka_admin
config = StreamConfig(bootstrap_servers="127.0.0.1:1")
log = KafkaLog(config)
reader, writer = log.reader(), log.writer()
producer = EventProducer(log, config, str)
writer.close()
after = everything()
changed = [place for place, value in before.items() if after.get(place) is not value]
assert not [p for p in changed if p[-1] not in ("__abstractmethods__", "_abc_impl")], changed
"""


@pytest.mark.long
def test_the_producer_library_changes_nothing_in_a_sites_process():
    run = subprocess.run([sys.executable, "-c", SITE], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_places_that_are_not_there_are_named():
    assert missing_places(KafkaTCPTransport, parser) == []
    assert missing_places(None, None) == [
        "KafkaTCPTransport._sock_recv",
        "protocol.parser.KafkaBytes",
        "KafkaProtocol",
    ]


def test_a_fetcher_without_a_hook_keeps_its_own_way(caplog: pytest.LogCaptureFixture):
    for fetcher in (None, SimpleNamespace()):
        consumer = SimpleNamespace(_fetcher=fetcher)
        assert read_in_columns(consumer, 1_000) is consumer
    assert "object of every record" in caplog.text


def test_records_of_the_librarys_own_are_taken():
    theirs = [
        SimpleNamespace(offset=5, timestamp=7, key=b"", value=None, headers=[("control", b"x")]),
        SimpleNamespace(offset=9, timestamp=8, key=b"k", value=b"v", headers=[]),
    ]
    ours = columns_of(theirs)
    assert list(ours) == [
        Record(5, 7, None, None, (("control", b"x"),)),
        Record(9, 8, b"k", b"v", ()),
    ]
    assert list(columns_of([ours])) == list(ours)


@pytest.mark.kafka
def test_a_log_is_read_in_the_librarys_own_way(
    broker_of_kind: Callable[[str], Broker], topic_prefix: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kafka_log, "read_in_columns", lambda consumer, _: consumer)
    config = StreamConfig(
        bootstrap_servers=broker_of_kind("embedded").address, topic_prefix=topic_prefix
    )
    create_topics(config)
    log, at = KafkaLog(config), Partition(config.clicks, 1)
    writer = log.writer()
    for n in range(30):
        writer.append(at, str(n).encode(), b"k" if n % 2 else None, (("n", b"1"),), 1_000 + n)
    writer.flush(10_000)
    reader = log.reader()
    reader.assign([at])
    reader.seek(at, 3)
    read: list[Record] = []
    for _ in range(100):
        for records in reader.poll(7, 200).values():
            assert len(records) <= 7
            read += records
            assert reader.position(at) == read[-1].offset + 1
        if len(read) == 27:
            break
    reader.close()
    writer.close()
    assert [(r.offset, r.value, r.key) for r in read] == [
        (n, str(n).encode(), b"k" if n % 2 else None) for n in range(3, 30)
    ]
