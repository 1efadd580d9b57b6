"""What kafka-python's fetcher holds of one partition's fetch, as columns instead of an object a
record.

The fetcher makes one of these of every partition of a fetch response and takes records from it
until it is drained; this one stands in for its own `Fetcher.PartitionRecords` (kafka-python 3.0).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from kafka import KafkaConsumer

from stream.log.record_batches import AbortedTransaction, BatchReader, DamagedOffsets
from stream.log.record_columns import NO_RECORDS, RecordColumns
from stream.record import Record

log = logging.getLogger(__name__)


def read_in_columns(consumer: KafkaConsumer, unpacked_bytes_max: int) -> KafkaConsumer:
    """The same consumer; its `poll` answers lists of `RecordColumns` from now on. Its `max_records`
    counts records. A batch that unpacks to more than `unpacked_bytes_max` is one bad record.

    A kafka-python whose fetcher has no place for it goes on answering records of its own, which
    `columns_of` takes: at an object a record, and without that limit."""
    fetcher: Any = getattr(consumer, "_fetcher", None)
    if not hasattr(fetcher, "PartitionRecords"):
        log.warning("kafka-python makes an object of every record: its fetcher has no hook")
        return consumer
    damaged: dict[Any, DamagedOffsets] = {}
    fetcher.PartitionRecords = partial(
        FetchedColumns, unpacked_bytes_max=unpacked_bytes_max, damaged=damaged
    )
    return consumer


def columns_of(polled: Sequence[Any]) -> RecordColumns:
    """What a `poll` answered of one partition, which is not nothing: columns, or records of
    kafka-python's own."""
    if isinstance(polled[0], RecordColumns):
        return RecordColumns.concat(polled)
    return RecordColumns.of(
        Record(one.offset, one.timestamp, one.key or None, one.value, tuple(one.headers or ()))
        for one in polled
    )


class FetchedPiece:
    """A piece of a fetch. The fetcher counts it by its records and appends it to the answer as
    one."""

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
        unpacked_bytes_max: int = 1 << 26,
        damaged: dict[Any, DamagedOffsets] | None = None,
        # deserializers, metrics (off), the isolation level: a broker lists what it has to by it
        **_: Any,
    ):
        """`damaged`: what is remembered over fetches, by partition."""
        self.topic_partition = tp
        self.next_fetch_offset = fetch_offset
        self.leader_epoch = -1
        self.bytes_read = len(records._buffer)
        aborted = [
            AbortedTransaction(one.producer_id, one.first_offset)
            for one in aborted_transactions or ()
        ]
        remembered = (
            ({} if damaged is None else damaged).setdefault(tp, DamagedOffsets())
            if check_crcs
            else None
        )
        self._batches: BatchReader | None = BatchReader(
            records._buffer, fetch_offset, aborted, unpacked_bytes_max, remembered
        )
        self._on_drain = on_drain
        self._records = NO_RECORDS

    def __bool__(self) -> bool:
        return self._batches is not None

    def take(self, n: int) -> FetchedPiece:
        """The next records, at most `n`. Raises what `BatchReader.read` does; it is then fetched
        anew."""
        assert self._batches is not None
        try:
            while not len(self._records) and not self._batches.is_done:
                self._records = self._batches.read()
        except Exception:
            self.drain()
            raise
        taken, self._records = self._records[:n], self._records[n:]
        self.leader_epoch = self._batches.leader_epoch
        if len(self._records):
            self.next_fetch_offset = int(self._records.offset[0])
            return FetchedPiece(taken)
        self.next_fetch_offset = self._batches.next_offset
        if self._batches.is_done:
            self.drain()
        return FetchedPiece(taken)

    def drain(self) -> None:
        """The rest is of no more use."""
        if self._batches is not None:
            self._batches, self._records = None, NO_RECORDS
            self._on_drain(self)
