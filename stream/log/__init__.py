"""The log: partitions of records over Kafka, and in memory.

- `broken_batches`: record batches of Kafka that cannot be read
- `fetch_wait`: how long a fetch may wait at the broker for a first record (pure)
- `kafka`: the log over Apache Kafka or another broker that speaks its protocol (kafka-python)
- `kafka_admin`: connections to a cluster
- `kafka_fetch_columns`: what kafka-python's fetcher holds of one partition's fetch, as columns
  instead of an object a record
- `kafka_socket_patch`: how kafka-python takes a fetch off its socket
- `kafka_writer`: appending to the log over Kafka
- `log`: the log as the parts see it
- `memory`: the log in memory
- `record_batches`: Kafka's record batches (format v2), read into columns
- `record_columns`: records as columns
- `rows`: rows by key that a process has made of a log, on disk
- `security`: how clients of a cluster prove who they are, and know the broker
- `topics`: the topics
- `transactions`: transactions that are open on partitions, and whose they are (Kafka's KIP-664)
- `unpacking`: unpacking of what producers packed
- `wall_clock`: what time it is on this host (shell)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.log.broken_batches import batch_fault
    from stream.log.kafka import KafkaLog
    from stream.log.kafka_admin import (
        AdminClient,
        admin_client,
        check_topics,
        client_settings,
        create_topics,
        describe_topics,
        topic_problems,
    )
    from stream.log.kafka_socket_patch import receive_in_large_pieces
    from stream.log.log import (
        Append,
        GroupReader,
        Headers,
        Log,
        LogError,
        OffsetOutOfRange,
        OnPartitions,
        Reader,
        SendFailed,
        Unavailable,
        Writer,
    )
    from stream.log.memory import MemoryGroupReader, MemoryLog
    from stream.log.record_columns import NO_RECORDS, Entries, RecordColumns
    from stream.log.security import (
        CannotAuthenticate,
        client_security,
        login,
        read_secret,
        tls_context,
        token_source,
    )
    from stream.log.topics import Problem, catalogue_kept_ms, topic_specs
    from stream.log.transactions import OpenTransaction, open_transactions
    from stream.log.wall_clock import wall_clock_ms
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NO_RECORDS",
    "AdminClient",
    "Append",
    "CannotAuthenticate",
    "Entries",
    "GroupReader",
    "Headers",
    "KafkaLog",
    "Log",
    "LogError",
    "MemoryGroupReader",
    "MemoryLog",
    "OffsetOutOfRange",
    "OnPartitions",
    "OpenTransaction",
    "Problem",
    "Reader",
    "RecordColumns",
    "SendFailed",
    "Unavailable",
    "Writer",
    "admin_client",
    "batch_fault",
    "catalogue_kept_ms",
    "check_topics",
    "client_security",
    "client_settings",
    "create_topics",
    "describe_topics",
    "login",
    "open_transactions",
    "read_secret",
    "receive_in_large_pieces",
    "tls_context",
    "token_source",
    "topic_problems",
    "topic_specs",
    "wall_clock_ms",
]
