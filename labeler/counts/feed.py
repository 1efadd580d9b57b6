"""Where the partitions of a labeler read `counts`: one reading for all of them, as far as one of
them needs (J4)."""

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from labeler.counts.joined import JoinedCounts
from labeler.counts.stored_counts import kept_state
from labeler.join import ResumePoint
from stream import Partition, Record, StreamConfig
from stream.internal_topics import PassedOver
from stream.log.rows import MemoryStorage, RowStorage

logger = logging.getLogger(__name__)


class WantsCounts(Protocol):
    """A partition's core."""

    def wants_counts(self) -> bool: ...


class CountsFeed:
    """Without declared counters and sequences nothing is read, and `joined` stays None."""

    def __init__(self, stream: StreamConfig, passed_over: PassedOver, bytes_max: int) -> None:
        """`bytes_max`: of totals and sequences in memory."""
        self.on = bool(stream.keeps)
        self.at = Partition(stream.counts, 0)
        self.joined: JoinedCounts | None = None
        self._stream, self._passed_over = stream, passed_over
        self._still: set[int] = set()  # partitions that stand still
        #: Where totals and sequences lie (J4a).
        self.storage: RowStorage = MemoryStorage()
        self._bytes_max = bytes_max

    def start(self, points: Sequence[ResumePoint], first: int, topic_id: str) -> None:
        """Begin where all these can go on from; `first`: the first record there is. Raises
        RowsFailed."""
        self._still.clear()
        if self.on:
            lowest = min(point.counts_offset for point in points)
            arrival_ms = min(point.arrival_max_ms for point in points)
            state = kept_state(self._stream, self.storage, self._bytes_max, topic_id)
            self.joined = JoinedCounts(self._stream, max(first, lowest), state, arrival_ms)

    def begin_anew(self) -> None:
        """What lies on disk is of no use. Raises RowsFailed."""
        self.joined = None
        self.storage.clear()

    def close(self) -> None:
        self.joined = None
        self.storage.close()

    def forget(self) -> None:
        """It is started again."""
        self.joined = None

    def take(self, records: Sequence[Record]) -> None:
        """The next ones."""
        assert self.joined is not None
        for record, error in self.joined.read(records):
            self._passed_over.add(self.at, record, error)

    def skip(self, offset: int) -> int:
        """Totals below this offset are gone: what they counted and nobody says again is lost.
        Answers where to read on."""
        assert self.joined is not None
        logger.error("counters: what stood in %s below offset %d is gone", self.at.topic, offset)
        self.joined.skip(offset)
        return offset

    def rests(self, cores: Iterable[WantsCounts]) -> bool:
        """Whether not to read on: no partition wants to, or too much is held."""
        wanted = any(core.wants_counts() for core in cores)
        return not wanted or (self.joined is not None and self.joined.is_full)

    def drop(self, partition: int) -> None:
        """It is another process's, or begins again."""
        if self.joined is not None:
            self.joined.done(partition)

    def stands(self, partition: int, still: bool) -> None:
        """For a partition that stands still nothing is held: it begins again where it goes on."""
        if self.joined is not None and still and partition not in self._still:
            self._still.add(partition)
            self.joined.done(partition)
