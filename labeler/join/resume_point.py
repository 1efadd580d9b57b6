"""Where a labeler goes on: folded from `examples[p]` and from nothing else (C2, C4)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from labeler.join.strategy import NOTHING, Share
from stream import Chain, Fold, Record, offset_of, position
from stream.internal_topics import (
    BatchHeader,
    ClockOverride,
    MalformedRecord,
    OnMalformed,
    maximum_set_back,
)


@dataclass(frozen=True)
class ResumePoint:
    """What a labeler needs to go on at position `start` of `impressions[p]`; offsets are those
    to read from."""

    start: int
    barrier: int = 0  # the last one answered (E3)
    arrival_max_ms: int = 0  # of impressions[p] at `start`; 0 = no record before it
    clicks_offset: int = 0
    clicks_arrival_max_ms: int = 0  # just before clicks_offset
    ids_offset: int = (
        0  # of impressions[p]: the reader starts here, below `start` for ids only (L2)
    )
    ids_arrival_max_ms: int = 0  # just before ids_offset
    verdicts_offset: int = 0
    watermarks: Mapping[str, int] = field(
        default_factory=dict
    )  # by input, just before verdicts_offset
    share: Share = NOTHING  # of late clicks, of a `late` chain
    topic_ids: Mapping[str, str] = field(
        default_factory=dict
    )  # of the topics that these positions are of (C7)
    counts_offset: int = 0  # of `counts` (J4)

    @classmethod
    def fresh(cls, impressions: int, clicks: int, verdicts: int) -> "ResumePoint":
        """Where nothing was labelled before: from these offsets of the logs on."""
        return cls(
            position(impressions),
            clicks_offset=clicks,
            ids_offset=impressions,
            verdicts_offset=verdicts,
        )

    @classmethod
    def fresh_late(cls, impressions: int, clicks: int, verdicts: int) -> "ResumePoint":
        """The same for a later reading. Its chain begins at 0, since what is no longer in the log
        gets no correction: so it tiles from wherever a model began, also if the strategy was chosen
        long after that."""
        return replace(cls.fresh(impressions, clicks, verdicts), start=0)

    @classmethod
    def after(cls, header: BatchHeader, barrier: int) -> "ResumePoint":
        """Behind a folded record; `barrier` is the last one folded up to there."""
        return cls(
            header.end,
            barrier,
            header.arrival_max_ms,
            header.clicks_offset,
            header.clicks_arrival_max_ms,
            header.ids_offset,
            header.ids_arrival_max_ms,
            header.verdicts_offset,
            header.watermarks,
            Share(header.late_micro, header.on_time_micro),
            header.topic_ids,
            header.counts_offset,
        )

    def set_back(
        self, impressions: Collection[ClockOverride], clicks: Collection[ClockOverride]
    ) -> "ResumePoint":
        """The same with arrival maxima as operators' words say of both inputs (T3): whoever wrote
        it may not have heard them."""
        offset = offset_of(self.start)
        return replace(
            self,
            arrival_max_ms=maximum_set_back(impressions, offset, self.arrival_max_ms),
            clicks_arrival_max_ms=maximum_set_back(
                clicks, self.clicks_offset, self.clicks_arrival_max_ms
            ),
            ids_arrival_max_ms=maximum_set_back(
                impressions, self.ids_offset, self.ids_arrival_max_ms
            ),
        )

    @property
    def impressions_offset(self) -> int:
        """Where the delayed reader of impressions starts."""
        return self.ids_offset  # never above `start`: ids are re-read up to it


class ExamplesFold:
    """Folds the records of one chain in `examples[p]`, in order, into a resume point.

    With the log complete (`from_first`: read from offset 0) the chain is folded strictly. After
    retention, or when only a tail was read, E is the largest `end` seen (C2). That may fall short
    of the true E if many repeats of a labeler thought dead fill the tail; the labeler then writes
    repeats, which every reader ignores.
    """

    def __init__(self, chain: str, from_first: bool, malformed: OnMalformed | None = None):
        """`malformed` is told of each record whose headers say nothing; it extends no chain
        (C2)."""
        self._malformed = malformed
        self._chain_name = chain
        self._from_first = from_first
        self._chain = Chain()
        self._header: BatchHeader | None = None
        self.records = 0
        self.repeats = 0
        self.dangling = 0  # above E: ignored, and an alarm (C5)

    def add(self, records: Iterable[Record]) -> None:
        """The next records."""
        for record in records:
            if record.header("chain") != self._chain_name.encode():
                continue
            try:
                header = BatchHeader.from_headers(record.headers)
            except MalformedRecord as error:
                if self._malformed is not None:
                    self._malformed(record, error)
                continue
            self.records += 1
            self._add(header)

    @property
    def point(self) -> ResumePoint | None:
        """Where to go on; None if nothing was labelled yet."""
        return (
            None if self._header is None else ResumePoint.after(self._header, self._chain.barrier)
        )

    def _add(self, header: BatchHeader) -> None:
        barrier = header.barrier or None
        if (
            self._chain.judge(header.start, header.end, barrier) is Fold.DANGLES
            and not self._from_first
        ):
            self._chain.end = (
                header.start
            )  # what lies between was in the part that is gone, or not read
        kind, _ = self._chain.fold(header.start, header.end, barrier)
        if kind in (Fold.EXTENDS, Fold.BARRIER):
            if header.end == self._chain.end:  # a barrier may stand below E (E3b)
                self._header = header
        elif kind is Fold.REPEAT:
            self.repeats += 1
        else:
            self.dangling += 1
