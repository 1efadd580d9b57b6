"""Transactions that are open on partitions, and whose they are (Kafka's KIP-664)."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from kafka.errors import KafkaError

from stream.config import StreamConfig
from stream.log.kafka_admin import AdminClient, kept_or_new, theirs
from stream.log.log import Unavailable
from stream.record import Partition


class OpenTransaction(NamedTuple):
    """One on one partition: records from `first_offset` on are not read before it ends."""

    partition: Partition
    first_offset: int
    producer_id: int
    transactional_id: str  # "" where the broker does not say
    since_ms: int  # when it began; where that is not known, when its producer last wrote

    @property
    def producer(self) -> str:
        """How its producer is named."""
        named = f" ({self.transactional_id})" if self.transactional_id else ""
        return f"producer {self.producer_id}{named}"


def open_transactions(
    config: StreamConfig, partitions: Iterable[Partition], kept: AdminClient | None = None
) -> list[OpenTransaction]:
    """Those on these partitions now; none of a broker that knows no transactions. `kept`: a client
    to ask over. Raises Unavailable."""
    try:
        with kept_or_new(config, kept) as admin:
            held, ids, began = _asked(admin, partitions)
    except KafkaError as error:
        if error.retriable:
            raise Unavailable(f"asking for open transactions: {error}") from error
        return []  # a broker of before 3.0, or the embedded one
    return [
        OpenTransaction(
            partition, one.current_transaction_start_offset, one.producer_id, name, since_ms
        )
        for partition, one in held
        for name in [ids.get(one.producer_id, "")]
        for since_ms in [began.get(name) or one.last_timestamp]
    ]


def _asked(
    admin: AdminClient, partitions: Iterable[Partition]
) -> tuple[list[tuple[Partition, Any]], dict[int, str], dict[str, int]]:
    """What holds a partition; producer -> its transactional id; that -> when it began, ms."""
    described = admin.describe_producers([theirs(partition) for partition in partitions])
    held = [
        (Partition(*tp), one)
        for tp, state in described.items()
        for one in state.active_producers
        if one.current_transaction_start_offset >= 0
    ]
    if not held:
        return [], {}, {}
    ids = {
        one.producer_id: one.transactional_id
        for some in admin.list_transactions().values()
        for one in some
    }
    wanted = [name for _, one in held if (name := ids.get(one.producer_id))]
    began = {
        name: said.transaction_start_time_ms
        for name, said in admin.describe_transactions(wanted).items()
    }
    return held, ids, began
