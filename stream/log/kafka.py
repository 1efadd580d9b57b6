"""The log over Apache Kafka or another broker that speaks its protocol (kafka-python).

What the brokers do not share is not relied on: the end of a partition is read off a fetch, because
the embedded broker's ListOffsets is short of it; time look-ups and committed offsets are not used
at all.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import (
    IllegalStateError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from stream.config import StreamConfig
from stream.log.fetch_wait import FetchWait
from stream.log.kafka_admin import (
    CLOSE_TIMEOUT_MS,
    Probe,
    check_right,
    connect,
    consumer_settings,
    describe_topics,
    theirs,
)
from stream.log.kafka_fetch_columns import columns_of, read_in_columns
from stream.log.kafka_writer import KafkaWriter
from stream.log.log import LogError, OffsetOutOfRange, OnPartitions, Unavailable
from stream.monitoring import got_on
from stream.record import Partition, Record

log = logging.getLogger(__name__)

POLL_INTERVAL_MAX_MS = 120_000
HEARTBEAT_WAIT_S = 0.02
RANGE_WAIT_MS = 100


class KafkaLog:
    """Where readers and writers of one cluster come from. Nothing connects before it is used."""

    def __init__(self, config: StreamConfig):
        self._config = config

    def reader(self) -> "KafkaReader":
        return KafkaReader(self._config)

    def group_reader(self, group: str, member: str = "") -> "KafkaGroupReader":
        return KafkaGroupReader(self._config, group, member)

    def writer(self) -> "KafkaWriter":
        return KafkaWriter(self._config)

    def partitions(self, topic: str) -> int:
        found = describe_topics(self._config, [topic])
        return found[topic].partitions if topic in found else 0


# --- reading
# --------------------------------------------------------------------------------------------------


class KafkaReader:
    """See `stream.log.log.Reader`."""

    def __init__(self, config: StreamConfig):
        self._config = config
        self._consumer: KafkaConsumer | None = None
        self._probe = Probe(config)
        self._assigned: list[Partition] = []
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._fetch_wait = FetchWait(time.monotonic())
        self._closed = False

    def assign(self, partitions: Iterable[Partition]) -> None:
        self._assigned = list(dict.fromkeys(partitions))
        self._positions = {p: at for p, at in self._positions.items() if p in self._assigned}
        self._paused &= set(self._assigned)
        self._tell_assignment()

    def seek(self, partition: Partition, offset: int) -> None:
        if partition not in self._assigned:
            raise ValueError(
                f"{partition.topic}[{partition.partition}]: not assigned to this reader"
            )
        is_new = partition not in self._positions
        self._positions[partition] = offset
        self._fetch_wait.moved(time.monotonic())
        if is_new:
            self._tell_assignment()  # which seeks it
        elif self._consumer is not None:
            self._consumer.seek(theirs(partition), offset)

    def position(self, partition: Partition) -> int:
        if partition not in self._positions:
            raise ValueError(f"{partition.topic}[{partition.partition}]: was never sought")
        return self._positions[partition]

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        consumer = self._connected(timeout_ms)
        if consumer is None:
            return {}
        _unpark(consumer)
        _set_fetch_wait(consumer, self._fetch_wait.wait_ms(time.monotonic()))
        try:
            fetched = consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
            if not fetched:
                check_right(consumer)
                self._check_not_beyond(consumer)
        except OffsetOutOfRangeError as error:
            if found := self._out_of_range(error):
                raise found from error
            log.warning("the broker said what it takes back: %s", error)
            return {}
        except LogTruncationError as error:
            raise self._out_of_range(error) or LogError(f"poll: {error}") from error
        except NoOffsetForPartitionError:
            return {}  # between an assignment and the seek that follows it
        except (KafkaError, Unavailable) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                raise LogError(f"poll: {error}") from error
            log.warning("waiting for the broker: %s", error)
            time.sleep(min(timeout_ms, self._config.reconnect_max_ms) / 1000)
            return {}
        return self._taken(fetched)

    def _check_not_beyond(self, consumer: KafkaConsumer) -> None:
        """The embedded broker answers a fetch above the end with nothing, so after it lost its log
        a reader would wait for ever. A high watermark below the position may be older than the last
        seek: the probe decides."""
        for tp in consumer.assignment():
            partition = Partition(*tp)
            try:
                high = consumer.highwater(tp)
            except IllegalStateError:
                continue  # the group took it just now
            if (
                high is None
                or partition in self._paused
                or high >= self._positions.get(partition, 0)
            ):
                continue
            if error := self._range_error(partition):
                raise error

    def _taken(self, fetched: dict[Any, list[Any]]) -> dict[Partition, Sequence[Record]]:
        given: dict[Partition, Sequence[Record]] = {}
        if fetched:
            got_on()
            self._fetch_wait.moved(time.monotonic())
        for (topic, number), records in fetched.items():
            partition = Partition(topic, number)
            if records and partition in self._positions:
                given[partition] = columns = columns_of(records)
                self._positions[partition] = int(columns.offset[-1]) + 1
        self._pass_markers()
        return given

    def _pass_markers(self) -> None:
        """Markers of transactions and what was aborted are no records, and reading goes on
        behind them (T6)."""
        assert self._consumer is not None
        standing = getattr(self._consumer, "_subscription", None)
        for tp, state in list(getattr(standing, "assignment", {}).items()):
            partition, at = Partition(*tp), getattr(state, "position", None)
            if at is not None and self._positions.get(partition, at.offset) < at.offset:
                self._positions[partition] = at.offset

    def pause(self, partitions: Iterable[Partition]) -> None:
        new = {p for p in partitions if p in self._assigned} - self._paused
        self._paused |= new
        self._each(new, KafkaConsumer.pause)

    def resume(self, partitions: Iterable[Partition]) -> None:
        gone = set(partitions) & self._paused
        self._paused -= gone
        self._each(gone, KafkaConsumer.resume)

    def _each(self, partitions: set[Partition], act: Callable[..., None]) -> None:
        known = [theirs(p) for p in partitions if p in self._positions]
        if self._consumer is not None and known:
            self._fetch_wait.moved(time.monotonic())
            act(self._consumer, *known)

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._probe.beginning_offsets(partitions)

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._probe.end_offsets(partitions)

    def topic_id(self, topic: str) -> str:
        for consumer in (self._consumer, self._probe.consumer):
            found = None if consumer is None else consumer._cluster.topic_id(topic)
            if found is not None and found.int:
                return str(found)
        return ""

    def close(self) -> None:
        self._closed = True
        self._probe.close()
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)
            self._consumer = None

    def _connected(self, timeout_ms: int) -> KafkaConsumer | None:
        """The consumer, or None (after at most about `timeout_ms`) while there is no broker."""
        if self._closed:
            raise LogError("this reader is closed")
        if self._consumer is None:
            self._consumer = connect(self._new_consumer, timeout_ms)
            if self._consumer is not None:
                self._subscribe()
        return self._consumer

    def _new_consumer(self, **changed: Any) -> KafkaConsumer:
        consumer = KafkaConsumer(**{**consumer_settings(self._config), **changed})
        return read_in_columns(consumer, self._config.decoded_bytes_max)

    def _subscribe(self) -> None:
        self._tell_assignment()

    def _tell_assignment(self) -> None:
        """The consumer is assigned what was sought: it would look up a position for anything
        else."""
        if self._consumer is None:
            return
        self._fetch_wait.moved(time.monotonic())
        before = self._consumer.assignment()
        wanted = [theirs(p) for p in self._assigned if p in self._positions]
        self._consumer.assign(wanted)
        for tp in wanted:
            if tp not in before:
                self._consumer.seek(tp, self._positions[Partition(*tp)])
                if Partition(*tp) in self._paused:
                    self._consumer.pause(tp)

    def _out_of_range(self, error: KafkaError) -> OffsetOutOfRange | None:
        named = error.args[0] if error.args and isinstance(error.args[0], dict) else self._positions
        for topic, number in named:
            if found := self._range_error(Partition(topic, number)):
                return found
        return None

    def _range_error(self, partition: Partition) -> OffsetOutOfRange | None:
        """The error if this partition's position is outside what is there. It is asked twice: on a
        busy machine the embedded broker once named the end as the first offset of a log that it
        had whole. Raises Unavailable."""
        offset = self._positions.get(partition)
        first = end = 0
        for wait_ms in (0, RANGE_WAIT_MS):
            time.sleep(wait_ms / 1000)
            first = self.beginning_offsets([partition])[partition]
            end = self.end_offsets([partition])[partition]
            if offset is None or first <= offset <= end:
                return None
        assert offset is not None
        return OffsetOutOfRange(partition, offset, first, end)


class KafkaGroupReader(KafkaReader):
    """See `stream.log.log.GroupReader`. The client learns of a change on its own thread; it is
    told here, in `poll`."""

    def __init__(self, config: StreamConfig, group: str, member: str = ""):
        super().__init__(config)
        self._group, self._member = group, member
        self._topic = ""
        self._on_assigned: OnPartitions | None = None
        self._on_revoked: OnPartitions | None = None
        self._listener: _Listener | None = None

    def subscribe(self, topic: str, on_assigned: OnPartitions, on_revoked: OnPartitions) -> None:
        self._topic, self._on_assigned, self._on_revoked = topic, on_assigned, on_revoked

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        fetched = super().poll(max_records, timeout_ms)
        changed = self._told()
        # Records that were fetched before the change and belong to another now are not given.
        return (
            {p: records for p, records in fetched.items() if p in self._positions}
            if changed
            else fetched
        )

    def _told(self) -> bool:
        """Pass on what the client learned since the last poll. True if anything changed."""
        if self._listener is None or not self._listener.news:
            return False
        assert self._on_assigned is not None
        assert self._on_revoked is not None
        lost = {
            p for kind, partitions in self._listener.take() if kind == "lost" for p in partitions
        }
        owned = [Partition(*tp) for tp in sorted(self._listener.owned)]
        gone = [p for p in self._assigned if p not in owned or p in lost]
        new = [p for p in owned if p not in self._assigned or p in lost]
        self._assigned = [p for p in self._assigned if p not in gone]
        self._positions = {p: at for p, at in self._positions.items() if p not in gone}
        self._paused -= set(gone)
        if gone:
            self._on_revoked(gone)
        self._assigned += new
        if new:
            self._on_assigned(new)
        self._tell_assignment()
        return True

    def seek(self, partition: Partition, offset: int) -> None:
        if partition not in self._assigned:
            raise ValueError(
                f"{partition.topic}[{partition.partition}]: not assigned to this reader"
            )
        self._positions[partition] = offset
        self._fetch_wait.moved(time.monotonic())
        if self._consumer is not None and theirs(partition) in self._consumer.assignment():
            self._consumer.seek(theirs(partition), offset)
            if partition not in self._paused:
                self._consumer.resume(theirs(partition))

    def _new_consumer(self, **changed: Any) -> KafkaConsumer:
        session_ms = self._config.session_timeout_ms
        consumer = super()._new_consumer(
            group_id=self._group,
            group_instance_id=(self._config.static_members and self._member) or None,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 3,
            max_poll_interval_ms=max(POLL_INTERVAL_MAX_MS, session_ms),
            partition_assignment_strategy=(StickyPartitionAssignor,),
            **changed,
        )
        _wait_while_heartbeat_is_due(consumer)
        _finish_joining(consumer)
        _take_ended_join(consumer)
        return consumer

    def _subscribe(self) -> None:
        assert self._consumer is not None
        if self._topic:
            self._listener = _Listener(self._consumer)
            self._consumer.subscribe([self._topic], listener=self._listener)

    def _tell_assignment(self) -> None:
        """A partition kept over a rebalance goes on where it stood."""
        if self._consumer is None:
            return
        for tp in self._consumer.assignment():
            partition = Partition(*tp)
            if partition in self._positions:
                self.seek(partition, self._positions[partition])


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what the group gives and takes, on the client's own thread. A new partition stays
    paused until sought."""

    def __init__(self, consumer: KafkaConsumer):
        self._consumer = consumer
        self.owned: set[TopicPartition] = set()
        self.news: deque[tuple[str, list[Partition]]] = deque()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.owned |= set(assigned)
        for tp in assigned:
            self._consumer.pause(tp)
            self._consumer.seek(tp, 0)
        self.news.append(("assigned", [Partition(*tp) for tp in assigned]))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.owned -= set(revoked)
        self.news.append(("revoked", [Partition(*tp) for tp in revoked]))

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.owned -= set(lost)
        self.news.append(("lost", [Partition(*tp) for tp in lost]))

    def take(self) -> list[tuple[str, list[Partition]]]:
        return [self.news.popleft() for _ in range(len(self.news))]


# --- four faults of kafka-python 3.0, where it still has the places to mend them ----------------


def _wait_while_heartbeat_is_due(consumer: KafkaConsumer) -> None:
    """kafka-python 3.0 polls in a circle, without waiting, as long as a heartbeat is due and its
    own thread has not sent it, which the circle delays. With a floor under the time that it thinks
    it has left, it waits for records."""
    coordinator: Any = getattr(consumer, "_coordinator", None)
    due_s = getattr(coordinator, "time_to_next_heartbeat", None)
    if due_s is not None:
        coordinator.time_to_next_heartbeat = lambda: max(due_s(), HEARTBEAT_WAIT_S)


def _finish_joining(consumer: KafkaConsumer) -> None:
    """kafka-python 3.0 forgets a join that it began for changed metadata and that outlasts one
    `poll`: nothing says any more that a join is needed, no heartbeat is sent, and the member waits
    for ever, without partitions."""
    coordinator: Any = getattr(consumer, "_coordinator", None)
    needed = getattr(coordinator, "need_rejoin", None)
    if needed is not None and hasattr(coordinator, "rejoining"):
        coordinator.need_rejoin = lambda: coordinator.rejoining or needed()


def _take_ended_join(consumer: KafkaConsumer) -> None:
    """kafka-python 3.0 joins on a thread of its own, and takes a join that ended between two calls
    of `poll` for none: it asks again. On a busy machine each may end so, and the member asks for
    ever. What an ended one was given is kept here until it is taken or its generation is over."""
    coordinator: Any = getattr(consumer, "_coordinator", None)
    join = getattr(coordinator, "_do_join_and_sync_async", None)
    complete = getattr(coordinator, "_on_join_complete_async", None)
    if join is None or complete is None or not hasattr(coordinator, "_generation"):
        return
    ended: list[tuple[Any, bytes]] = []  # at most one: its generation and its assignment

    async def join_once() -> bytes:
        if ended and ended[0][0] == coordinator._generation:
            return ended[0][1]
        assignment: bytes = await join()
        ended[:] = [(coordinator._generation, assignment)]
        return assignment

    async def complete_and_forget(*given: Any) -> None:
        ended.clear()
        await complete(*given)

    coordinator._do_join_and_sync_async = join_once
    coordinator._on_join_complete_async = complete_and_forget


def _set_fetch_wait(consumer: KafkaConsumer, wait_ms: int) -> None:
    """Of its next fetches; kafka-python looks it up for each."""
    settings: Any = getattr(getattr(consumer, "_fetcher", None), "config", None)
    if settings is not None:
        settings["fetch_max_wait_ms"] = wait_ms


def _unpark(consumer: KafkaConsumer) -> None:
    """kafka-python 3.0 parks what it fetched of a paused partition, and takes it back on resume
    only while the place for the partition in line is None. A drained one stays in that place:
    without this a resumed partition can wait for ever."""
    fetcher: Any = getattr(consumer, "_fetcher", None)
    in_line = getattr(fetcher, "_next_partition_records", None)
    if in_line is not None and not in_line:
        fetcher._next_partition_records = None
