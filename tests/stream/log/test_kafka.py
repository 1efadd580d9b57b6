"""What only a broker shows: settings of topics, its death, and its return."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.admin import NewTopic

from everspun.audit import read_all
from everspun.launcher import Broker, BrokerError, start_broker
from everspun.launcher.broker import why_no_answer, why_not_embedded, why_not_kafka
from stream.config import StreamConfig
from stream.log.kafka import KafkaGroupReader, KafkaLog
from stream.log.kafka_admin import Probe, check_topics, create_topics, theirs
from stream.log.log import NotConnected, SendFailed, Unavailable
from stream.log.topics import topic_specs
from stream.monitoring import TimeLimit
from stream.record import Partition

pytestmark = pytest.mark.kafka
NOWHERE = "127.0.0.1:1"


def config(address: str, prefix: str = "", **changed: object) -> StreamConfig:
    changed = {"request_timeout_ms": 15_000, **changed}
    return StreamConfig(bootstrap_servers=address, topic_prefix=prefix, **changed)


def test_topics_are_created_once_and_pass_the_check(broker: Broker, topic_prefix: str):
    settings = config(broker.address, topic_prefix)
    assert len(check_topics(settings)) == len(topic_specs(settings))
    assert len(create_topics(settings)) == len(topic_specs(settings))
    assert create_topics(settings) == []
    assert check_topics(settings) == []
    assert KafkaLog(settings).partitions(settings.examples) == settings.partitions


def test_a_topic_made_otherwise_is_refused(broker: Broker, topic_prefix: str):
    settings = config(broker.address, topic_prefix)
    admin = KafkaAdminClient(bootstrap_servers=broker.address)
    wrong = NewTopic(
        settings.clicks, 2, 1, topic_configs={"retention.ms": "1000", "cleanup.policy": "compact"}
    )
    admin.create_topics([wrong], wait_for_metadata=True)
    admin.close()
    create_topics(settings)
    said = "\n".join(map(str, check_topics(settings)))
    for word in ("has 2 partitions, expected 4", "retention.ms = 1000", "cleanup.policy = compact"):
        assert word in said


def test_a_send_to_a_missing_partition_fails_and_ends_the_writer(broker: Broker, topic_prefix: str):
    """A topic was made anew with fewer of them."""
    settings = config(broker.address, topic_prefix)
    create_topics(settings)
    writer = KafkaLog(settings).writer()
    with pytest.raises(SendFailed, match="Unrecognized partition"):
        writer.append(Partition(settings.clicks, settings.partitions), b"1")
    with pytest.raises(SendFailed, match="Unrecognized partition"):
        writer.append(Partition(settings.clicks, 0), b"1")
    writer.close()


def test_a_send_to_a_missing_topic_fails_and_ends_the_writer(broker: Broker, topic_prefix: str):
    if broker.kind == "embedded":
        pytest.skip("the embedded broker makes a topic of every name it is asked for")
    writer = KafkaLog(config(broker.address, topic_prefix, request_timeout_ms=1000)).writer()
    with pytest.raises(SendFailed):
        writer.append(Partition(topic_prefix + "none", 0), b"1")
    with pytest.raises(SendFailed):
        writer.append(Partition(topic_prefix + "none", 0), b"2")
    writer.close()


def test_a_record_above_the_limit_fails_at_once(broker: Broker, topic_prefix: str):
    settings = config(broker.address, topic_prefix, record_bytes_max=1000)
    create_topics(settings)
    writer = KafkaLog(settings).writer()
    with pytest.raises(SendFailed, match="MessageSizeTooLarge"):
        writer.append(Partition(settings.clicks, 0), bytes(10_000))
    writer.close()


def test_a_partition_that_kafka_python_stumbles_over_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
):
    """3.0.12 raises a bare KeyError where a broker left a partition unanswered."""
    partition = Partition("a", 0)
    answers = [KeyError(partition), KeyError(partition), {theirs(partition): 7}]

    def ask(*_: object, **__: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, KeyError):
            raise answer
        return answer

    probe = Probe(config(NOWHERE, request_timeout_ms=2_000))
    monkeypatch.setattr(KafkaConsumer, "beginning_offsets", ask)
    monkeypatch.setattr(probe, "_new_consumer", lambda **_: object())
    assert probe.beginning_offsets([partition]) == {partition: 7}


def test_a_join_that_outlasts_a_poll_is_gone_on_with(broker: Broker, topic_prefix: str):
    """kafka-python 3.0.12 forgets one that it began because its metadata had changed."""
    settings = config(broker.address, topic_prefix, partitions=2)
    create_topics(settings)
    reader = KafkaLog(settings).group_reader(topic_prefix + "g")
    owned: list[Partition] = []

    def on_assigned(partitions: list[Partition]) -> None:
        for partition in partitions:
            reader.seek(partition, 0)
        owned.extend(partitions)

    reader.subscribe(settings.examples, on_assigned, lambda gone: owned.clear())
    limit = TimeLimit(60)
    while len(owned) < 2 and not limit.over:
        reader.poll(10, 100)
    coordinator = reader._consumer._coordinator
    with coordinator._lock:
        coordinator._assignment_snapshot = "other metadata"
    joined = coordinator._generation.generation_id
    while coordinator._generation.generation_id == joined and not limit.over:
        reader.poll(10, 1)  # too short for the round trips of a join
    while not coordinator._heartbeat_enabled and not limit.over:
        reader.poll(10, 1)
    assert coordinator._generation.generation_id > joined
    assert coordinator._heartbeat_enabled
    assert len(owned) == 2
    reader.close()


def test_without_a_broker_readers_wait_and_questions_are_refused():
    log = KafkaLog(config(NOWHERE, request_timeout_ms=1000))
    reader = log.reader()
    reader.assign([Partition("a", 0)])
    reader.seek(Partition("a", 0), 7)
    assert reader.poll(10, 600) == {}
    assert reader.position(Partition("a", 0)) == 7
    for question in (reader.end_offsets, reader.beginning_offsets):
        with pytest.raises(Unavailable):
            question([Partition("a", 0)])
    with pytest.raises(Unavailable):
        log.partitions("a")
    writer = log.writer()
    with pytest.raises(NotConnected, match=f"no broker at {NOWHERE}: ") as raised:
        writer.append(Partition("a", 0), b"1")
    assert str(raised.value).count("KafkaTimeoutError") == 1
    with pytest.raises(SendFailed, match="no broker at"):
        writer.poll()
    reader.close()


def test_a_broker_of_no_known_kind_or_address_is_refused(tmp_path: Path):
    with pytest.raises(BrokerError, match="allowed are"):
        start_broker("rabbit", tmp_path)
    with pytest.raises(BrokerError, match="does not answer"):
        start_broker(NOWHERE, tmp_path)


def test_a_stopped_broker_leaves_no_process_and_may_start_again(tmp_path: Path):
    if why_not_embedded() is not None:
        pytest.skip("no embedded broker here")
    broker = start_broker("embedded", tmp_path)
    for end in (broker.stop, broker.kill):
        pid = broker.pid
        assert pid is not None
        assert why_no_answer(broker.address) is None
        end()
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)
        assert why_no_answer(broker.address) is not None
        broker.restart()
    broker.stop()
    with pytest.raises(BrokerError, match="not started here"):
        Broker("address", "127.0.0.1:9").restart()


@pytest.fixture
def own_kafka(tmp_path: Path, broker_of_kind: Callable[[str], Broker]):
    """A broker that the test may kill."""
    if why_not_kafka() is not None:
        broker_of_kind("kafka")  # skips, or fails in CI
    broker = start_broker("kafka", tmp_path)
    yield broker
    broker.stop()


def test_a_killed_broker_keeps_its_log_and_everyone_goes_on(own_kafka: Broker):
    settings = config(own_kafka.address, partitions=1)
    create_topics(settings)
    partition = Partition(settings.clicks, 0)
    log = KafkaLog(settings)
    writer, reader = log.writer(), log.reader()
    reader.assign([partition])
    reader.seek(partition, 0)
    for i in range(20):
        writer.append(partition, str(i).encode())
    writer.flush(10_000)
    seen = [r.value for r in drain(reader, partition, 20)]

    own_kafka.kill()
    assert reader.poll(100, 300) == {}
    writer.append(partition, b"lost?")
    with pytest.raises(SendFailed):
        writer.flush(500)
    writer.close()

    own_kafka.restart()
    writer = log.writer()
    writer.append(partition, b"after")
    writer.flush(20_000)
    seen += [r.value for r in drain(reader, partition, 1)]
    assert seen[:20] == [str(i).encode() for i in range(20)]
    assert seen[-1] == b"after"
    assert set(seen[20:]) <= {b"lost?", b"after"}
    reader.close()
    writer.close()


def drain(reader, partition: Partition, count: int) -> list:
    """At least `count` records, up to the end of the partition."""
    records: list = []
    limit = TimeLimit(40)
    while (
        len(records) < count or records[-1].offset + 1 < reader.end_offsets([partition])[partition]
    ):
        assert not limit.over, f"{len(records)} of {count} records"
        records += reader.poll(100, 200).get(partition, [])
    return records


def test_a_broker_that_once_says_all_is_gone_is_asked_again(
    broker: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
):
    """As the embedded one does on a busy machine, rarely: a command must not see an empty log."""
    settings = config(broker.address, topic_prefix)
    create_topics(settings)
    partition = Partition(settings.verdicts, 0)
    writer = KafkaLog(settings).writer()
    writer.append(partition, b"kept", timestamp_ms=1_000)
    writer.flush(10_000)
    writer.close()
    right, lies = Probe.beginning_offsets, [1]

    def beginning_offsets(self: Probe, partitions: Iterable[Partition]) -> dict[Partition, int]:
        found = right(self, partitions)
        return {p: lies.pop() for p in found} if lies else found

    monkeypatch.setattr(Probe, "beginning_offsets", beginning_offsets)
    reader = KafkaLog(settings).reader()
    assert [record.value for record in read_all(reader, partition)] == [b"kept"]
    reader.close()


def test_a_join_that_ends_between_two_short_polls_is_taken(broker: Broker, topic_prefix: str):
    """The client's own thread joins; a reader that looks in for a millisecond now and then, as on
    a busy machine, must take what it was given and not ask again for ever."""
    settings = config(broker.address, topic_prefix, partitions=3, static_members=False)
    create_topics(settings)
    owned: set[Partition] = set()
    reader = KafkaLog(settings).group_reader(f"{topic_prefix}g")
    reader.subscribe(settings.examples, owned.update, owned.difference_update)
    limit = TimeLimit(30)
    while len(owned) < 3:
        assert not limit.over, owned
        reader.poll(10, 1)
        time.sleep(0.2)
    reader.close()


def test_a_named_member_that_comes_back_takes_its_place_and_troubles_nobody(
    broker: Broker, topic_prefix: str
):
    if broker.kind == "embedded":
        pytest.skip("the embedded broker does not know members by name")
    settings = config(broker.address, topic_prefix, partitions=3, session_timeout_ms=30_000)
    create_topics(settings)
    everything = {Partition(settings.examples, p) for p in range(3)}
    told: dict[str, list[tuple[str, set[Partition]]]] = {}
    owned: dict[str, set[Partition]] = {}

    def member(who: str, name: str) -> KafkaGroupReader:
        reader = KafkaLog(settings).group_reader(f"{topic_prefix}g", name)
        told[who], owned[who] = [], set()

        def assigned(new: list[Partition]) -> None:
            told[who].append(("assigned", set(new)))
            owned[who] |= set(new)
            for partition in new:
                reader.seek(partition, 0)

        def revoked(gone: list[Partition]) -> None:
            told[who].append(("revoked", set(gone)))
            owned[who] -= set(gone)

        reader.subscribe(settings.examples, assigned, revoked)
        return reader

    def poll_until(done: Callable[[], bool], *readers: KafkaGroupReader) -> None:
        limit = TimeLimit(120)
        while not done():
            assert not limit.over, told
            for reader in readers:
                reader.poll(10, 50)

    one, two = member("one", "a"), member("two", "b")
    poll_until(lambda: owned["one"] | owned["two"] == everything and all(owned.values()), one, two)
    before, kept, news = owned["one"], owned["two"], len(told["two"])
    assert not before & kept
    one.close()  # which leaves the group as little as a killed one does
    again = member("again", "a")
    poll_until(lambda: owned["again"] == before, again, two)
    assert (owned["two"], len(told["two"])) == (kept, news)
    again.close()
    two.close()
