"""What kafka-python's fetcher holds of one partition's fetch, as columns instead of an object a record.

The fetcher makes one of these of every partition of a fetch response and takes records from it until it is drained;
this one stands in for its own `Fetcher.PartitionRecords` (kafka-python 3.0).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kafka import KafkaConsumer

from stream.record_batches import AbortedTransaction, parse_batches
from stream.record_columns import RecordColumns


def read_in_columns(consumer: KafkaConsumer) -> KafkaConsumer:
    """The same consumer; its `poll` answers lists of `RecordColumns` from now on. Its `max_records` counts records."""
    fetcher: Any = consumer._fetcher
    fetcher.PartitionRecords = FetchedColumns
    return consumer


class Taken:
    """A piece of a fetch. The fetcher counts it by its records and appends it to the answer as one."""

    def __init__(self, records: RecordColumns):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RecordColumns]:
        yield self._records


class FetchedColumns:
    """The records of one partition in one fetch response, not parsed before they are asked for."""

    def __init__(
        self,
        fetch_offset: int,
        tp: Any,
        records: Any,
        check_crcs: bool = True,
        on_drain: Callable[["FetchedColumns"], None] = lambda _: None,
        aborted_transactions: Iterable[Any] | None = None,
        **_: Any,  # deserializers, metrics (off), the isolation level: a broker lists what it has to by it
    ):
        self.topic_partition = tp
        self.next_fetch_offset = fetch_offset
        self.leader_epoch = -1
        self.bytes_read = 0
        self._buffer: Any = records._buffer
        self._aborted = [AbortedTransaction(one.producer_id, one.first_offset) for one in aborted_transactions or ()]
        self._check_crcs, self._on_drain = check_crcs, on_drain
        self._records: RecordColumns | None = None
        self._behind = fetch_offset
        self._drained = False

    def __bool__(self) -> bool:
        return not self._drained

    def take(self, n: int) -> Taken:
        """The next records, at most `n`. Raises what `parse_batches` does; it is then fetched anew."""
        if self._records is None:
            self._records = self._parse()
        taken, self._records = self._records[:n], self._records[n:]
        if len(self._records):
            self.next_fetch_offset = int(self._records.offset[0])
        else:
            self.next_fetch_offset = self._behind
            self.drain()
        return Taken(taken)

    def _parse(self) -> RecordColumns:
        try:
            parsed = parse_batches(self._buffer, self.next_fetch_offset, self._check_crcs, self._aborted)
        except Exception:
            self.drain()
            raise
        self._behind, self.leader_epoch = parsed.next_offset, parsed.leader_epoch
        self.bytes_read = len(self._buffer)
        return parsed.records

    def drain(self) -> None:
        """The rest is of no more use."""
        if not self._drained:
            self._drained = True
            self._records = self._buffer = None
            self._on_drain(self)
