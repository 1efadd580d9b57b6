"""Connections to a cluster: the settings of all clients (T6), where partitions begin and end, and
topics looked at and created."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, NewTopic
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from stream.config import StreamConfig
from stream.log.fetch_wait import FETCH_WAIT_MS
from stream.log.kafka_fetch_columns import read_in_columns
from stream.log.kafka_socket_patch import PlainSelector
from stream.log.log import LogError, Unavailable
from stream.log.security import client_security, why_refused
from stream.log.topics import ExistingTopic, Problem, check_topic, topic_specs
from stream.record import Partition

T = TypeVar("T")
AdminClient: TypeAlias = KafkaAdminClient
log = logging.getLogger(__name__)

PROBE_WAIT_MS = 10
FETCH_BYTES_MAX = 33_554_432  # fetched and not yet given, by one reader
METADATA_AGE_MAX_MS = 30_000
CLOSE_TIMEOUT_MS = 2_000
#: A question about offsets is asked again after so long, until the request's time is over.
ASK_MS = 3_000
#: Between two attempts to describe topics.
DESCRIBE_WAIT_MS = 300


def client_settings(config: StreamConfig) -> dict[str, Any]:
    """Keyword arguments of every client of kafka-python: brokers, times in ms, security."""
    return {
        "bootstrap_servers": config.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": config.request_timeout_ms,
        "request_timeout_ms": config.request_timeout_ms,
        "reconnect_backoff_ms": 50,
        "reconnect_backoff_max_ms": config.reconnect_max_ms,
        "metadata_max_age_ms": METADATA_AGE_MAX_MS,
        "selector": PlainSelector,
        **client_security(config),
    }


def consumer_settings(config: StreamConfig) -> dict[str, Any]:
    """T6."""
    return {
        **client_settings(config),
        "auto_offset_reset": "none",
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        "fetch_max_bytes": max(FETCH_BYTES_MAX, 2 * config.record_bytes_max),
        "max_partition_fetch_bytes": config.fetch_bytes_max,
        "metrics_enabled": False,
    }


def connect(new: Callable[..., T], timeout_ms: int) -> T | None:
    """A new client, or None when there is no broker within the time."""
    began = time.monotonic()
    try:
        return new(bootstrap_timeout_ms=max(timeout_ms, 500))
    except KafkaError as error:
        log.warning("waiting for the broker: %s", error)
        time.sleep(max(0.0, min(timeout_ms, 500) / 1000 - (time.monotonic() - began)))
        return None


def theirs(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


class Probe:
    """Asks where partitions begin and end, over a consumer of its own."""

    def __init__(self, config: StreamConfig):
        self._config = config
        self._consumer: KafkaConsumer | None = None
        self._stable_offsets: dict[TopicPartition, int] = {}

    @property
    def consumer(self) -> KafkaConsumer | None:
        """The one that asks, once it has been needed."""
        return self._consumer

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._ask(list(partitions), KafkaConsumer.beginning_offsets)

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """At least what ListOffsets says; from there a fetch tells the high watermark, which is
        right everywhere, and the last stable offset, behind which a transaction is still open. Who
        may describe a topic and not read it is told what ListOffsets says."""
        wanted = list(partitions)
        ends = self._ask(wanted, KafkaConsumer.end_offsets)
        if not wanted:
            return ends
        assert self._consumer is not None
        deadline = time.monotonic() + self._config.request_timeout_ms / 1000
        try:
            self._consumer.assign([])
            self._consumer.assign([theirs(p) for p in wanted])
            for p in wanted:
                self._consumer.seek(theirs(p), ends[p])
            while (
                missing := [p for p in wanted if self._high(p) is None]
            ) and time.monotonic() < deadline:
                for (topic, number), records in self._consumer.poll(
                    timeout_ms=PROBE_WAIT_MS
                ).items():
                    ends[Partition(topic, number)] = int(records[-1].offset[-1]) + 1
        except TopicAuthorizationFailedError:
            self.close()
            return ends
        except KafkaError as error:
            self.close()
            raise Unavailable(f"end of {wanted[0].topic}: {error}") from error
        if missing:
            raise Unavailable(f"end of {missing[0].topic}[{missing[0].partition}]: no answer")
        return {p: self._stable(p, max(ends[p], self._high(p) or 0)) for p in wanted}

    def _stable(self, partition: Partition, end: int) -> int:
        """The end that can be read to. A broker without transactions says -1."""
        stable = self._stable_offsets.get(theirs(partition), -1)
        return stable if 0 <= stable < end else end

    def _high(self, partition: Partition) -> int | None:
        assert self._consumer is not None
        high: int | None = self._consumer.highwater(theirs(partition))
        return high

    def _ask(self, partitions: list[Partition], ask: Callable[..., Any]) -> dict[Partition, int]:
        if self._consumer is None:
            self._consumer = connect(self._new_consumer, self._config.request_timeout_ms)
        if self._consumer is None:
            raise Unavailable(f"no broker at {self._config.bootstrap_servers}")
        deadline = time.monotonic() + self._config.request_timeout_ms / 1000
        while True:
            try:
                found = ask(
                    self._consumer,
                    [theirs(p) for p in partitions],
                    timeout_ms=min(ASK_MS, self._config.request_timeout_ms),
                )
                return {p: found[theirs(p)] for p in partitions}
            except KafkaError as error:
                check_right(self._consumer)
                if isinstance(error, KafkaTimeoutError) and time.monotonic() < deadline:
                    continue
                self.close()
                raise Unavailable(
                    f"offsets of {', '.join(sorted({p.topic for p in partitions}))}: {error}"
                ) from error
            except KeyError as error:
                # kafka-python 3.0 drops a partition that was not answered, and stumbles over it
                if time.monotonic() > deadline:
                    self.close()
                    raise Unavailable(f"offsets of {error}: not answered") from error
                time.sleep(PROBE_WAIT_MS / 1000)

    def _new_consumer(self, **changed: Any) -> KafkaConsumer:
        # Without fetch sessions: in one, a broker leaves out the partitions where nothing changed.
        whole = {"enable_incremental_fetch_sessions": False, "fetch_max_wait_ms": PROBE_WAIT_MS}
        consumer = KafkaConsumer(**{**consumer_settings(self._config), **whole, **changed})
        _note_stable_offsets(consumer, self._stable_offsets)
        return read_in_columns(consumer, self._config.decoded_bytes_max)

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)


def check_right(consumer: KafkaConsumer) -> None:
    """Of a topic that may not be read, or asked about, kafka-python's consumer says nothing: it
    would wait for ever. Raises LogError."""
    cluster = getattr(getattr(consumer, "_client", None), "cluster", None)
    refused = sorted(set(getattr(cluster, "unauthorized_topics", ())))
    if refused:
        raise LogError(
            f"not authorized to read {', '.join(refused)}: grant it (`everspun topics acls` "
            "prints the rights of each role)"
        )


def _note_stable_offsets(consumer: KafkaConsumer, noted: dict[TopicPartition, int]) -> None:
    """kafka-python 3.0 forgets the last stable offset of a fetch; it is kept here, by partition."""
    fetcher: Any = consumer._fetcher
    parse = fetcher._parse_fetched_data

    def note(fetch: Any) -> Any:
        noted[fetch.topic_partition] = fetch.partition_data.last_stable_offset
        return parse(fetch)

    fetcher._parse_fetched_data = note


# --- topics
# --------------------------------------------------------------------------------------------------


def describe_topics(
    config: StreamConfig, names: Iterable[str], kept: AdminClient | None = None
) -> dict[str, ExistingTopic]:
    """Those of these topics that exist, with all the settings that the broker lists. One of several
    brokers may be starting: they are asked until the request's time is over. `kept`: a client to
    ask over. Raises Unavailable."""
    asked, deadline = list(names), time.monotonic() + config.request_timeout_ms / 1_000
    with kept_or_new(config, kept) as admin:
        while True:
            try:
                found, described = _described(admin, asked)
                break
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise Unavailable(f"describing topics: {error}") from error
                time.sleep(DESCRIBE_WAIT_MS / 1_000)
    topics = {}
    for name, t in found.items():
        settings = {key: str(one["value"]) for key, one in described["topic"][name].items()}
        topics[name] = ExistingTopic(
            name, len(t["partitions"]), len(t["partitions"][0]["replica_nodes"]), settings
        )
    return topics


def _described(admin: KafkaAdminClient, names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    found = {
        t["name"]: t
        for t in admin.describe_topics(names)
        if not t["error_code"] and t["partitions"]
    }
    wanted = [ConfigResource("TOPIC", name) for name in found]
    return found, admin.describe_configs(wanted, config_filter="all") if wanted else {}


def create_topics(config: StreamConfig) -> list[str]:
    """Create the topics that are missing; returns the names of those created. Raises
    Unavailable, LogError."""
    specs = topic_specs(config)
    existing = describe_topics(config, [s.name for s in specs])
    missing = [s for s in specs if s.name not in existing]
    new = [
        NewTopic(s.name, s.partitions, s.replication, topic_configs=s.all_settings) for s in missing
    ]
    if not new:
        return []
    admin = admin_client(config)
    try:
        with suppress(
            TopicAlreadyExistsError
        ):  # another was faster; `check_topics` says if it made them otherwise
            admin.create_topics(new, timeout_ms=config.request_timeout_ms, wait_for_metadata=True)
    except KafkaError as error:
        raise (Unavailable if error.retriable else LogError)(f"creating topics: {error}") from error
    finally:
        admin.close()
    return [t.name for t in new]


def check_topics(config: StreamConfig) -> list[Problem]:
    """What is wrong with the nine topics (T6). Raises Unavailable."""
    return topic_problems(config, describe_topics(config, (s.name for s in topic_specs(config))))


def topic_problems(config: StreamConfig, existing: Mapping[str, ExistingTopic]) -> list[Problem]:
    """The same, of topics as they were described."""
    specs = topic_specs(config)
    return [
        p for s in specs for p in check_topic(s, existing.get(s.name), config.bootstrap_servers)
    ]


@contextmanager
def kept_or_new(config: StreamConfig, kept: AdminClient | None) -> Iterator[AdminClient]:
    """A client that is kept by its caller, or a new one that is closed at the end. Raises
    Unavailable."""
    admin = kept or admin_client(config)
    try:
        yield admin
    finally:
        if kept is None:
            admin.close()


def admin_client(config: StreamConfig) -> AdminClient:
    """Of the brokers' administration. Raises Unavailable."""
    try:
        return KafkaAdminClient(**client_settings(config))
    except KafkaError as error:
        raise Unavailable(
            f"no broker at {config.bootstrap_servers}: {error}{why_refused(config)}"
        ) from error
