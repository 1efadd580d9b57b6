"""The one process of a group that writes a topic which is its core's memory (C5).

The process that owns partition 0 writes. Its core is restored from that topic at every start and
after every failed send. One that was replaced and does not know it yet may still write there:
whoever finds a record where its own should stand begins again.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from labeler.io.tail import TailReader
from labeler.io.wait import Wait
from stream import Partition, Record
from stream.internal_topics import PassedOver
from stream.log import Log, Reader, SendFailed, Unavailable, Writer

logger = logging.getLogger(__name__)


@dataclass
class WriterTotals:
    """Counted since the process started."""

    restarts: int = 0


class SoleWriter(ABC):
    """Reader and writer of such a core. Belongs to one thread."""

    totals: WriterTotals

    def __init__(
        self, log: Log, memory: Partition, retry_ms: int, passed_over: PassedOver, name: str
    ) -> None:
        """`memory`: where the core's own records stand. `name`: what begins again, for people."""
        self._log, self._memory_at, self._retry_ms, self._name = log, memory, retry_ms, name
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._owned = False
        self._retry = Wait()
        self._memory_end = 0  # where the next record of its own must stand
        self.passed_over = passed_over

    def own(self, owned: bool) -> None:
        """Whether this process writes. What it knew is dropped with the right to."""
        if owned != self._owned:
            self._owned = owned
            self._forget()

    def run_once(self, now_ms: int, wait_ms: int) -> bool:
        """Read, think, send once. True if anything moved."""
        if not self._owned or not self._retry.over(now_ms):
            return False
        try:
            if not self._is_started:
                self._start()
            return self._turn(now_ms, wait_ms)
        except (SendFailed, Unavailable, MemoryError) as error:
            logger.warning("%s begins again in %d ms: %r", self._name, self._retry_ms, error)
            self.totals.restarts += 1
            self._retry.begin(now_ms, self._retry_ms)
            self._forget()
            return False

    def close(self) -> None:
        """Drop reader and writer."""
        self._forget()

    @property
    @abstractmethod
    def _is_started(self) -> bool:
        """Whether there is a core."""

    @abstractmethod
    def _start(self) -> None:
        """Restore the core, and read on where it stands. Raises Unavailable."""

    @abstractmethod
    def _turn(self, now_ms: int, wait_ms: int) -> bool:
        """Read, think, send once. Raises SendFailed and Unavailable."""

    def _read_back(
        self,
        tail: TailReader,
        records_max: int,
        take: Callable[[list[Record]], None],
        begin: Callable[[], None],
        is_whole: Callable[[], bool],
    ) -> None:
        """Give `take` the last records of its own, `records_max` or, until `is_whole`, twice as
        many, each time after a `begin`: repeats may make a tail of them short."""
        while True:
            begin()
            start, self._memory_end = tail.span(self._memory_at, records_max)
            tail.read_between(self._memory_at, start, self._memory_end, take)
            if start == tail.first(self._memory_at) or is_whole():
                return
            records_max *= 2

    def _check_alone(self, offsets: list[int]) -> None:
        """Raises SendFailed where records of its own do not follow what it was restored from."""
        first = self._memory_end
        if offsets != list(range(first, first + len(offsets))):
            raise SendFailed(
                f"{self._memory_at.topic}: another one wrote between {first} and {offsets[-1]}"
            )
        self._memory_end += len(offsets)

    def _forget(self) -> None:
        """C5: the writer is dropped unflushed; the next start reads back what the log holds."""
        for one in (self._writer, self._reader):
            if one is not None:
                one.close()
        self._writer = self._reader = None
