"""One contract for every log: in memory, the simulator's, the embedded broker, Apache Kafka."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from everspun.launcher import Broker
from stream.config import StreamConfig
from stream.log.kafka import KafkaLog
from stream.log.log import Log, OffsetOutOfRange, Reader, SendFailed
from stream.log.memory import MemoryLog
from stream.monitoring import TimeLimit
from stream.record import Partition, Record

sys.path.insert(0, str(Path(__file__).resolve().parent))
from simulated_log import SimulatedLog

NOW = 1_700_000_000_000
PATIENCE_S = 20.0

#: The embedded broker takes up to half a minute to hand partitions out anew, and a busy machine
#: longer.
REBALANCE_MAX_S = 150.0

#: Records here are years old: a broker that looks while a test runs would delete them.
LIMITS = {"max.message.bytes": "8000000", "retention.ms": "-1"}


@dataclass
class Setting:
    """A log under test, and what only its owner can do to it."""

    kind: str
    log: Log
    create: Callable[[str, int, bool], None]  # topic, partitions, stamped by the log
    delete_below: Callable[[Partition, int], None]
    #: Records in a transaction, which `end("commit")` or `end("abort")` ends; None where there are
    #: none.
    transaction: (
        Callable[[Partition, list[bytes]], AbstractContextManager[Callable[[str], None]]] | None
    ) = None


def memory() -> Setting:
    log = MemoryLog(lambda: NOW)
    return Setting("memory", log, log.create, log.delete_below)


def simulated() -> Setting:
    """The simulator's log, whose virtual time passes while somebody waits for it."""
    log = SimulatedLog(1)
    return Setting("simulated", log, log.create, log.delete_below)


def kafka(broker: Broker, prefix: str) -> Setting:
    config = StreamConfig(
        bootstrap_servers=broker.address, topic_prefix=prefix, request_timeout_ms=5000
    )

    def admin(act: Callable[[KafkaAdminClient], object]) -> None:
        client = KafkaAdminClient(bootstrap_servers=broker.address)
        try:
            act(client)
        finally:
            client.close()

    def create(topic: str, partitions: int, append_time: bool = False) -> None:
        settings = {"message.timestamp.type": "LogAppendTime" if append_time else "CreateTime"}
        new = NewTopic(topic, partitions, 1, topic_configs={**settings, **LIMITS})
        admin(lambda client: client.create_topics([new], wait_for_metadata=True))

    def delete_below(partition: Partition, offset: int) -> None:
        admin(lambda client: client.delete_records({TopicPartition(*partition): offset}))

    @contextmanager
    def transaction(partition: Partition, values: list[bytes]) -> Iterator[Callable[[str], None]]:
        producer = KafkaProducer(
            bootstrap_servers=broker.address, transactional_id=f"{partition.topic}-{time.time_ns()}"
        )
        producer.init_transactions()
        producer.begin_transaction()
        for value in values:
            producer.send(partition.topic, value, partition=partition.partition)
        producer.flush()
        yield (
            lambda how: (
                producer.commit_transaction() if how == "commit" else producer.abort_transaction()
            )
        )
        producer.close()

    kind = "embedded" if broker.kind == "embedded" else "kafka"
    return Setting(
        kind, KafkaLog(config), create, delete_below, None if kind == "embedded" else transaction
    )


kinds = [
    "memory",
    "simulated",
    pytest.param("embedded", marks=pytest.mark.kafka),
    pytest.param("kafka", marks=pytest.mark.kafka),
]


@pytest.fixture(params=kinds)
def setting(
    request: pytest.FixtureRequest, broker_of_kind: Callable[[str], Broker], topic_prefix: str
) -> Setting:
    own = {"memory": memory, "simulated": simulated}.get(request.param)
    return kafka(broker_of_kind(request.param), topic_prefix) if own is None else own()


@pytest.fixture
def topic(setting: Setting, topic_prefix: str) -> str:
    setting.create(topic_prefix + "a", 3, False)
    return topic_prefix + "a"


@pytest.fixture
def reader(setting: Setting) -> Iterator[Reader]:
    one = setting.log.reader()
    yield one
    one.close()


def fill(setting: Setting, partition: Partition, count: int, batch: int = 10) -> None:
    """Records `0`, `1`, ... in batches."""
    writer = setting.log.writer()
    for i in range(count):
        writer.append(partition, str(i).encode(), timestamp_ms=NOW + i)
        if i % batch == batch - 1:
            writer.flush(5000)
    writer.flush(5000)
    writer.close()


def read(reader: Reader, count: int, at_most: int = 1000) -> list[Record]:
    """Poll until `count` records came, of any partition."""
    records: list[Record] = []
    limit = TimeLimit(PATIENCE_S)
    while len(records) < count and not limit.over:
        for some in reader.poll(at_most, 200).values():
            records += some
    assert len(records) >= count, f"only {len(records)} of {count} records within {PATIENCE_S} s"
    return records


def start(reader: Reader, *partitions: Partition) -> None:
    reader.assign(partitions)
    for partition in partitions:
        reader.seek(partition, 0)


def values(records: list[Record]) -> list[int]:
    return [int(r.value or b"-1") for r in records]


def test_a_record_comes_back_as_it_was_sent(setting: Setting, topic: str, reader: Reader):
    writer = setting.log.writer()
    headers = (("b", b"2"), ("a", b"\x00\xff"), ("b", b"1"))
    first = writer.append(Partition(topic, 1), b"value", b"key", headers, NOW - 5)
    writer.append(Partition(topic, 1), None, None, (("control", b"heartbeat"),), NOW - 9)
    writer.append(Partition(topic, 1), b"", b"key", (), NOW)
    writer.flush(5000)
    assert first.done
    assert first.offset == 0
    start(reader, Partition(topic, 1))
    one, two, three = read(reader, 3)
    assert one == Record(0, NOW - 5, b"key", b"value", headers)
    assert two == Record(1, NOW - 9, None, None, (("control", b"heartbeat"),))
    assert two.is_heartbeat
    assert (three.offset, three.value, three.key) == (2, b"", b"key")


def test_records_come_in_order_and_no_more_than_asked(setting: Setting, topic: str, reader: Reader):
    fill(setting, Partition(topic, 0), 57)
    start(reader, Partition(topic, 0))
    given = []
    while len(given) < 57:
        polled = reader.poll(10, 1000)
        assert sum(map(len, polled.values())) <= 10
        for records in polled.values():
            given += records
            assert reader.position(Partition(topic, 0)) == records[-1].offset + 1
    assert values(given) == list(range(57))
    assert [r.offset for r in given] == list(range(57))


def test_seeking_drops_what_was_fetched(setting: Setting, topic: str, reader: Reader):
    partition = Partition(topic, 0)
    fill(setting, partition, 40)
    start(reader, partition)
    read(reader, 5, at_most=5)
    reader.seek(partition, 33)
    assert values(read(reader, 7)) == list(range(33, 40))
    reader.seek(partition, 2)
    assert values(read(reader, 3, at_most=3)) == [2, 3, 4]
    assert reader.position(partition) == 5


def test_a_new_partition_gives_nothing_before_it_was_sought(
    setting: Setting, topic: str, reader: Reader
):
    zero, one = Partition(topic, 0), Partition(topic, 1)
    fill(setting, zero, 4)
    fill(setting, one, 4)
    start(reader, zero)
    read(reader, 2, at_most=2)
    reader.assign([zero, one])
    assert set(reader.poll(2, 500)) <= {zero}
    assert reader.position(zero) in (2, 4)
    with pytest.raises(ValueError, match="never sought"):
        reader.position(one)
    reader.seek(one, 3)
    reader.seek(zero, 3)
    assert sorted(values(read(reader, 2))) == [3, 3]
    with pytest.raises(ValueError, match="not assigned"):
        reader.seek(Partition(topic, 2), 0)


def test_a_paused_partition_waits_where_it_stands(setting: Setting, topic: str, reader: Reader):
    zero, one = Partition(topic, 0), Partition(topic, 1)
    fill(setting, zero, 6)
    fill(setting, one, 6)
    start(reader, zero, one)
    reader.pause([zero])
    records = read(reader, 6)
    assert len(records) == 6
    assert reader.position(zero) == 0
    assert reader.poll(10, 200) == {}
    reader.resume([zero])
    assert values(read(reader, 6)) == list(range(6))


def test_where_a_partition_begins_and_ends(setting: Setting, topic: str, reader: Reader):
    zero, one = Partition(topic, 0), Partition(topic, 1)
    assert reader.end_offsets([zero, one]) == {zero: 0, one: 0}
    fill(setting, zero, 23, batch=10)
    assert reader.end_offsets([zero, one]) == {zero: 23, one: 0}
    fill(setting, zero, 9, batch=9)
    fill(setting, one, 1)
    assert reader.end_offsets([zero, one]) == {zero: 32, one: 1}
    assert reader.beginning_offsets([zero, one]) == {zero: 0, one: 0}
    assert reader.end_offsets([]) == {}


def test_a_position_above_the_end_is_an_error(setting: Setting, topic: str, reader: Reader):
    partition = Partition(topic, 0)
    fill(setting, partition, 5)
    start(reader, partition)
    reader.seek(partition, 5)
    assert reader.poll(10, 300) == {}
    reader.seek(partition, 99)
    with pytest.raises(OffsetOutOfRange, match=r"offset 99 is outside \[0, 5\]") as caught:
        read(reader, 1)
    assert (caught.value.partition, caught.value.first, caught.value.end) == (partition, 0, 5)


def test_a_position_below_retention_is_an_error(setting: Setting, topic: str, reader: Reader):
    if setting.kind == "embedded":
        pytest.skip("the embedded broker deletes nothing")
    partition = Partition(topic, 0)
    fill(setting, partition, 20)
    setting.delete_below(partition, 12)
    start(reader, partition)
    with pytest.raises(OffsetOutOfRange, match=r"offset 0 is outside \[12, 20\]"):
        read(reader, 1)
    assert reader.beginning_offsets([partition]) == {partition: 12}
    reader.seek(partition, 12)
    assert values(read(reader, 8)) == list(range(12, 20))


def test_a_log_that_stamps_ignores_the_writers_time(
    setting: Setting, topic_prefix: str, reader: Reader
):
    if setting.kind == "embedded":
        pytest.skip("the embedded broker has no LogAppendTime")
    setting.create(topic_prefix + "live", 1, True)
    writer = setting.log.writer()
    writer.append(Partition(topic_prefix + "live", 0), b"1", timestamp_ms=5)
    writer.flush(5000)
    start(reader, Partition(topic_prefix + "live", 0))
    assert read(reader, 1)[0].timestamp_ms >= NOW


def test_a_closed_writer_is_of_no_use(setting: Setting, topic: str):
    writer = setting.log.writer()
    writer.append(Partition(topic, 0), b"1")
    writer.flush(5000)
    writer.close()
    for use in (
        lambda: writer.append(Partition(topic, 0), b"2"),
        writer.poll,
        lambda: writer.flush(100),
    ):
        with pytest.raises(SendFailed, match="closed"):
            use()


def test_a_large_record_passes(setting: Setting, topic: str, reader: Reader):
    writer = setting.log.writer()
    large = bytes(range(256)) * 15_000
    writer.append(Partition(topic, 0), large, b"k")
    writer.append(Partition(topic, 0), b"after", b"k")
    writer.flush(5000)
    start(reader, Partition(topic, 0))
    assert [r.value for r in read(reader, 2)] == [large, b"after"]


def test_topics_are_counted(setting: Setting, topic: str, topic_prefix: str):
    assert setting.log.partitions(topic) == 3
    assert setting.log.partitions(topic_prefix + "none") == 0


@pytest.mark.timeout(600)
def test_a_group_shares_partitions_and_takes_over(setting: Setting, topic: str):
    if setting.kind == "simulated":
        pytest.skip("groups are asked of the simulated broker itself")
    for p in range(3):
        fill(setting, Partition(topic, p), 5)
    owned: dict[str, set[Partition]] = {"one": set(), "two": set()}
    readers = {}
    for name in owned:
        reader = readers[name] = setting.log.group_reader(f"group-{topic}")

        def assigned(new: list[Partition], name: str = name, reader: Reader = reader) -> None:
            owned[name] |= set(new)
            for partition in new:
                reader.seek(partition, 2)

        def revoked(gone: list[Partition], name: str = name) -> None:
            owned[name] -= set(gone)

        reader.subscribe(topic, assigned, revoked)
    everything = {Partition(topic, p) for p in range(3)}
    seen: dict[str, list[Record]] = {"one": [], "two": []}

    def poll_until(done: Callable[[], bool], *names: str) -> None:
        limit = TimeLimit(REBALANCE_MAX_S)
        while not done():
            assert not limit.over, owned
            for name in names:
                for records in readers[name].poll(100, 200).values():
                    seen[name] += records

    poll_until(lambda: owned["one"] == everything and len(seen["one"]) >= 9, "one")
    assert sorted(values(seen["one"])) == sorted(list(range(2, 5)) * 3)
    poll_until(
        lambda: bool(owned["two"]) and owned["one"] == everything - owned["two"], "one", "two"
    )
    kept = len(seen["one"])
    readers["one"].close()
    seen["two"].clear()
    poll_until(lambda: owned["two"] == everything, "two")
    assert len(seen["one"]) == kept
    poll_until(lambda: len(seen["two"]) >= 3, "two")
    assert set(values(seen["two"])) <= {2, 3, 4}
    readers["two"].close()


def test_aborted_records_are_not_read_and_positions_pass_markers(
    setting: Setting, topic: str, reader: Reader
):
    """T6: committed is what a transaction wrote once it ended well; an open one holds what
    stands behind it."""
    if setting.transaction is None:
        pytest.skip("no transactions there")
    at = Partition(topic, 0)
    with setting.transaction(at, [b"1", b"2"]) as end:
        end("commit")
    with setting.transaction(at, [b"-1", b"-2"]) as end:
        fill(setting, at, 1)
        end("abort")
    assert reader.end_offsets([at]) == {at: 7}, "two markers"
    start(reader, at)
    assert values(read(reader, 3)) == [1, 2, 0]
    limit = TimeLimit(PATIENCE_S)
    while reader.position(at) < 7 and not limit.over:
        assert reader.poll(10, 100) == {}
    assert reader.position(at) == 7
    with setting.transaction(at, [b"8"]) as end:
        fill(setting, at, 1)
        assert reader.end_offsets([at]) == {at: 7}, "an open transaction holds its partition"
        assert reader.poll(10, 300) == {}
        end("commit")
    assert values(read(reader, 2)) == [8, 0]
    reader.seek(at, 3)
    assert values(read(reader, 3)) == [0, 8, 0]
