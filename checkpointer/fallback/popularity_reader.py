"""The thread that keeps `ItemRates` up with `examples` (shell): labels as learners get them.

It begins a little before the end of each partition, so that a replica knows what is popular soon
after its start, and reads on. Rows that were sampled count by their weight, so rates are those of
all impressions; what was taken back is not counted out. A broker that is away is tried again; the
table stays as it is.
"""

import logging
import random
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import numpy as np

from checkpointer.fallback.item_rates import ItemRates
from stream import LABEL, Backoff, Partition, Record, kind_of
from stream.internal_topics import BatchHeader, MalformedRecord, decode_examples
from stream.log import Log, LogError, OffsetOutOfRange, Reader

_log = logging.getLogger(__name__)

#: Records of each partition that are read back at the start.
BACK = 64
_POLL_MS, _RECORDS_MAX = 500, 64
_RETRY_MS, _RETRY_MS_MAX = 100, 5_000


class PopularityReader:
    """Reads from construction on; `close` (or `with`) ends it."""

    def __init__(self, log: Log, topic: str, rates: ItemRates) -> None:
        self._log, self._topic, self._rates = log, topic, rates
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="popularity", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        backoff = Backoff(_RETRY_MS, _RETRY_MS_MAX)
        while not self._stop.is_set():
            try:
                self._read(backoff)
            except Exception as error:  # popularity is no reason to end: it stays as it is
                if not backoff.failures:
                    level = logging.WARNING if isinstance(error, LogError) else logging.ERROR
                    _log.log(level, "popularity of items is not kept up: %r", error)
                self._stop.wait(backoff.failed(random.random()) / 1_000)

    def _read(self, backoff: Backoff) -> None:
        """Until told to stop. Raises what the log raises."""
        reader = self._log.reader()
        try:
            self._open(reader)
            while not self._stop.is_set():
                try:
                    polled = reader.poll(_RECORDS_MAX, _POLL_MS)
                except OffsetOutOfRange as gone:
                    reader.seek(gone.partition, gone.end)
                    continue
                for records in polled.values():
                    count(self._rates, records)
                backoff.worked()
        finally:
            reader.close()

    def _open(self, reader: Reader) -> None:
        count = self._log.partitions(self._topic)
        if not count:
            raise LogError(f"there is no topic {self._topic}")
        partitions = [Partition(self._topic, p) for p in range(count)]
        reader.assign(partitions)
        firsts, ends = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        for at in partitions:
            reader.seek(at, max(firsts[at], ends[at] - BACK))


def count(rates: ItemRates, records: Iterable[Record]) -> None:
    """Add the labels of records of `examples`; what says nothing is passed over."""
    for record in records:
        try:
            header = BatchHeader.from_headers(record.headers)
            if kind_of(header.chain) != LABEL or not record.value:
                continue
            batch = decode_examples(record.value)
        except MalformedRecord:
            continue  # learners count it
        weight = batch.column("weight").to_numpy(False).astype(np.float64)
        clicked = batch.column("label").to_numpy(False) > 0
        rates.add(batch.column("item"), weight, weight * clicked, record.timestamp_ms)
