"""Where the partitions of a labeler read what is joined to impressions: counters (J4), catalogues
(A3). One reading of each serves all of them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from labeler.catalogues import CatalogueBegin, CatalogueFeed, JoinedCatalogues, PartitionCatalogues
from labeler.counts import CountsFeed, JoinedCounts, PartitionCounts
from labeler.io import TailReader
from labeler.join import ResumePoint
from stream import Partition, Record, StreamConfig
from stream.internal_topics import PassedOver
from stream.log import OffsetOutOfRange, Unavailable
from stream.log.rows import RowsFailed

logger = logging.getLogger(__name__)


class Joins(Protocol):
    """A partition's core: `labeler.labels.PartitionLabeler`."""

    partition: int
    waiting: str
    counts: PartitionCounts | None
    catalogues: PartitionCatalogues | None

    @property
    def next_arrival_ms(self) -> int: ...
    def wants_counts(self) -> bool: ...
    def use_counts(self, counts: JoinedCounts | None) -> None: ...
    def use_catalogues(self, catalogues: JoinedCatalogues | None) -> None: ...


class JoinedInputs:
    """Without declared counters and features of catalogues nothing is read."""

    def __init__(
        self, stream: StreamConfig, passed_over: PassedOver, kept_max: int, catalogue_max: int
    ) -> None:
        """`kept_max`: bytes of totals and sequences in memory; `catalogue_max`: of the rows of a
        catalogue."""
        self.counts = CountsFeed(stream, passed_over, kept_max)
        self.catalogues = CatalogueFeed(stream, catalogue_max)

    def begins(self, tail: TailReader) -> dict[Partition, CatalogueBegin]:
        """Where each begins. Raises Unavailable."""
        counts = [self.counts.at] if self.counts.on else []
        return {
            at: CatalogueBegin(tail.first(at), tail.topic_id(at))
            for at in (*counts, *self.catalogues.names)
        }

    def start(
        self, points: Sequence[ResumePoint], begins: Mapping[Partition, CatalogueBegin]
    ) -> None:
        """Begin where all these can go on from. Raises RowsFailed."""
        if self.counts.on:
            self.counts.start(points, *begins[self.counts.at])
        self.catalogues.start(begins)

    def use(self, core: Joins) -> None:
        """The partition is given what these say."""
        core.use_counts(self.counts.joined)
        core.use_catalogues(self.catalogues.joined)

    @property
    def offsets(self) -> dict[Partition, int]:
        """Where each is read on from."""
        counts = self.counts.joined
        found = {} if counts is None else {self.counts.at: counts.next_offset}
        return found | self.catalogues.offsets

    def take(self, at: Partition, records: Sequence[Record]) -> bool:
        """The next records, if they are of one of these. Raises RowsFailed."""
        if at == self.counts.at and self.counts.joined is not None:
            self.counts.take(records)
        elif at in self.catalogues.names:
            self.catalogues.take(at, records)
        else:
            return False
        return True

    def rests(self, cores: Sequence[Joins]) -> set[Partition]:
        """Those not to read on: no partition wants to, or too much is held."""
        rests = self.catalogues.rests([core.next_arrival_ms for core in cores])
        if self.counts.joined is not None and self.counts.rests(cores):
            rests.add(self.counts.at)
        return rests

    def skip(self, error: OffsetOutOfRange) -> int | None:
        """What is to be read is gone: where to read on; None = it is of none of these. Raises
        Unavailable where all begins again."""
        at = error.partition
        if at == self.counts.at:
            return self.counts.skip(error.first)
        if at not in self.catalogues.names:
            return None
        logger.error("catalogue: %s; it is read anew from the first record that is there", error)
        self.catalogues.begin_anew()
        raise Unavailable(f"catalogue {at.topic} was deleted or made anew")

    def left_behind(self, core: Joins) -> bool:
        """What became of a turn of the partition; whether it must begin again, since others have
        passed what it needs."""
        still = core.waiting == "stopped"
        self.counts.stands(core.partition, still)
        self.catalogues.stands(core.partition, still)
        counts = core.counts is not None and core.counts.left_behind
        return self.catalogues.left_behind(core.catalogues) or counts

    def drop(self, partition: int) -> None:
        """It is another process's, or begins again."""
        self.counts.drop(partition)
        self.catalogues.drop(partition)

    def forget(self) -> None:
        """All partitions begin again."""
        self.counts.forget()
        self.catalogues.forget()

    def begin_anew(self) -> None:
        """What is held could not be written or read: it is of no use."""
        self.catalogues.begin_anew()
        try:
            self.counts.begin_anew()
        except RowsFailed as error:
            logger.error("counters: %s", error)  # and again where they start

    def close(self) -> None:
        self.counts.close()
        self.catalogues.close()
