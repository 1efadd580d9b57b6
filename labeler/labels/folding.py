"""Where the chain of each partition ends in the log, and what it goes on in (C2)."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from labeler.io import TailReader
from labeler.join import LabelStrategy, ResumePoint
from labeler.labels.emitter import Emitter
from labeler.labels.lost_range import LostRange, begin_offset
from labeler.labels.remade_topics import Identified, identify
from stream import LABEL, Partition, StreamConfig

logger = logging.getLogger(__name__)


@dataclass
class Totals:
    """Counted since the process started."""

    refolds: int = 0
    dangling: int = 0
    repeats: int = 0
    restored_clicks: int = 0  # taken from the local copy where a partition started (C4)
    copy_failures: int = 0
    catalogue_failures: int = 0  # rows could not be written or read (A3)


def inputs_of(stream: StreamConfig, p: int) -> tuple[Partition, Partition]:
    """`impressions[p]` and `clicks[p]`."""
    return Partition(stream.impressions, p), Partition(stream.clicks, p)


class ChainFolding:
    """Folds the chains that one strategy writes. `records_max`: of one fold."""

    def __init__(
        self,
        stream: StreamConfig,
        strategy: LabelStrategy,
        emitter: Emitter,
        records_max: int,
        totals: Totals,
    ) -> None:
        self._stream = stream
        self._strategy = strategy
        self._emitter = emitter
        self._records_max = records_max
        self._totals = totals

    def fold(
        self, tail: TailReader, partitions: list[int], lost: Iterable[LostRange]
    ) -> dict[int, Identified]:
        """Where each partition's chain ends in the log now (C2), and what it goes on in."""
        inputs = inputs_of(self._stream, partitions[0])
        topics, ids = (
            (inputs[0].topic, inputs[1].topic),
            {at.topic: tail.topic_id(at) for at in inputs},
        )
        points: dict[int, Identified] = {}
        for p in partitions:
            folded = self._fold_chain(tail, p, f"{self._strategy.kind}/{p}")
            point = self._fresh(tail, p, lost) if folded is None else folded
            read_to = point.start
            if (
                self._strategy.kind != LABEL
                and (first := self._fold_chain(tail, p, f"{LABEL}/{p}")) is not None
            ):
                read_to = max(read_to, first.start)
            points[p] = identify(point, p, topics, ids, lost, read_to)
        return points

    def _fresh(self, tail: TailReader, p: int, lost: Iterable[LostRange]) -> ResumePoint:
        """Where nothing was labelled yet. First labels begin at the first record that ever was:
        what retention took before anybody came is missed like any other input (C7)."""
        impressions, clicks = inputs_of(self._stream, p)
        verdicts = tail.first(Partition(self._stream.verdicts, 0))
        if self._strategy.kind != LABEL:
            return ResumePoint.fresh_late(tail.first(impressions), tail.first(clicks), verdicts)
        if not self._emitter.begins_at_zero:
            return ResumePoint.fresh(tail.first(impressions), tail.first(clicks), verdicts)
        return ResumePoint.fresh(
            begin_offset(lost, *impressions), begin_offset(lost, *clicks), verdicts
        )

    def _fold_chain(self, tail: TailReader, p: int, chain: str) -> ResumePoint | None:
        """Where one chain of `examples[p]` ends; None if it has no record."""
        fold = tail.fold(Partition(self._emitter.topic, p), chain, self._records_max)
        self._totals.dangling += fold.dangling
        self._totals.repeats += fold.repeats
        if fold.dangling:
            logger.error(
                "%s in examples[%d]: %d records dangle above its end (C5)", chain, p, fold.dangling
            )
        return fold.point
