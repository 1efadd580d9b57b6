"""What is wrong with the inputs, as `everspun status` says it: topics that are not as they must be, and
transactions that hold a partition (T6)."""

from collections.abc import Mapping, Sequence

from everspun.table import duration
from stream.config import StreamConfig
from stream.log import Reader
from stream.record import Partition
from stream.topics import Problem
from stream.transactions import OpenTransaction

#: A transaction that is open for longer holds its partition noticeably.
OPEN_MAX_S = 10.0


def unread(stream: StreamConfig, reader: Reader, counts: Mapping[str, int]) -> list[str]:
    """Records in partitions beyond those that are configured, which nobody reads (T6). `counts`: topic -> how many
    partitions it has. Raises Unavailable."""
    found = []
    for topic in (stream.impressions, stream.clicks):
        added = [Partition(topic, p) for p in range(stream.partitions, counts.get(topic, 0))]
        records = sum(reader.end_offsets(added).values()) - sum(reader.beginning_offsets(added).values())
        if records:
            found.append(
                f"{records:,} records of {topic} stand in partitions {stream.partitions} to {counts[topic] - 1}, which "
                "nobody reads"
            )
    return found


def topic_faults(problems: Sequence[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


def open_too_long(found: Sequence[OpenTransaction], now_ms: int) -> list[str]:
    """Transactions that hold what stands behind their first record."""
    return [
        f"{one.partition.topic}[{one.partition.partition}] is read up to offset {one.first_offset}: a transaction of "
        f"{one.producer} has been open for {duration((now_ms - one.since_ms) / 1_000)}; end it, or the broker will "
        f"after its timeout (kafka-transactions.sh abort)"
        for one in found
        if now_ms - one.since_ms > OPEN_MAX_S * 1_000
    ]
