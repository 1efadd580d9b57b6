"""Which impressions of a range become rows, by one strategy: what clicks and verdicts leave of them
(L1, L2, L8, C7)."""

from typing import NamedTuple

import numpy as np

from labeler.catalogues import PartitionCatalogues
from labeler.join import NO_WINDOW_MS, LabelStrategy, Matches, kept_negatives, label_strategies
from labeler.labels.clicks import ClickBuffer
from labeler.labels.impressions import RangeContents
from labeler.labels.verdict_index import Ruling, VerdictIndex
from stream import LABEL, StreamConfig
from stream.kernels import Bools


class RangeLabels(NamedTuple):
    """What a strategy says of a range: which impressions are rows, and counts."""

    rows: Bools
    sampled: int  # labelled without a click, and left out by `negative_rate`
    late: int = 0  # clicks that a late reading brings
    on_time: int = 0  # clicks that the first reading knew
    late_rows: Bools | None = None  # which impressions those late clicks are of
    lost: int = 0  # not decided, for what decides on them is gone (C7)


class RangeLabeler:
    """Labels ranges of one partition by one strategy. `verdict_index`: None = none is awaited."""

    def __init__(self, stream: StreamConfig, strategy: LabelStrategy, clicks: ClickBuffer) -> None:
        self._stream = stream
        self._strategy = strategy
        self._first = label_strategies(stream)[0]
        self._clicks = clicks
        self.verdict_index: VerdictIndex | None = None
        self.catalogues: PartitionCatalogues | None = None
        self._attributes = stream.catalogue_categories

    @property
    def is_first(self) -> bool:
        """Whether this strategy labels first, and no other before it."""
        return self._strategy.kind == LABEL

    def labels(self, taken: RangeContents, ruling: Ruling, matches: Matches) -> RangeLabels:
        """Of what `rule` and the join said by this strategy."""
        if self.is_first:
            return self._first_labels(taken, ruling, matches)
        return self._late_labels(taken, ruling, matches)

    def rule(self, taken: RangeContents, strategy: LabelStrategy) -> Ruling:
        """What verdicts take out by this strategy's deadlines; a duplicate is a duplicate
        whatever the verdicts say."""
        impressions = taken.impressions
        if self.verdict_index is None or not len(impressions):
            none = np.zeros(len(impressions), np.bool_)
            return Ruling(none, np.full(len(impressions), -1, np.int64), none, none)
        deadline_ms = impressions.arrival_ms + strategy.wait_ms
        hashes, table = (impressions.source_hash, impressions.vendor_hash), impressions.table
        if self.catalogues is not None and self.verdict_index.names(self._attributes):
            table = self.catalogues.looked_up(impressions).table  # a slice of an attribute (L8b)
        ruling = self.verdict_index.rule(
            *hashes,
            impressions.ts_ms,
            deadline_ms,
            table,
            impressions.id,
            impressions.arrival_ms - self._stream.age_max_ms,
        )
        first = ~taken.duplicate
        by = np.where(first, ruling.by, -1)
        return Ruling(ruling.rejected & first, by, ruling.withheld & first, ruling.unknown & first)

    def _first_labels(self, taken: RangeContents, ruling: Ruling, matches: Matches) -> RangeLabels:
        """Every impression that nothing takes out, negatives at their rate."""
        stands = ~(taken.duplicate | ruling.rejected | ruling.withheld)
        lost = stands & self._lost(taken, ruling, self._strategy)
        labelled = stands & ~lost
        rows = labelled & self._kept(taken, matches)
        return RangeLabels(rows, int(labelled.sum()) - int(rows.sum()), lost=int(lost.sum()))

    def _late_labels(self, taken: RangeContents, ruling: Ruling, matches: Matches) -> RangeLabels:
        """The clicks that the first reading could not know; and the impressions that it withheld
        and that have been released since (L8), which are labelled here for the first time. Of what
        is lost to this reading nothing is said (C7); it is counted where the first reading knew no
        clicks at all, and called it a negative."""
        first = self.rule(taken, self._first)
        known = self._clicks.match(taken.impressions, self._first).label > 0
        lost = self._lost(taken, ruling, self._strategy)
        stands = ~(taken.duplicate | ruling.rejected | ruling.withheld)
        uncorrected = int((stands & lost).sum()) if self._first.window_ms == NO_WINDOW_MS else 0
        stands &= ~lost
        trained = stands & ~(first.rejected | first.withheld | first.unknown)
        clicked = matches.label > 0
        late = trained & clicked & ~known
        released = stands & first.withheld & self._kept(taken, matches)
        return RangeLabels(
            late | released, 0, int(late.sum()), int((trained & known).sum()), late, uncorrected
        )

    def _lost(self, taken: RangeContents, ruling: Ruling, strategy: LabelStrategy) -> Bools:
        """C7: what a click that is gone might have counted for, or a verdict that is gone have
        covered."""
        return ruling.unknown | self._clicks.lost(taken.impressions.arrival_ms, strategy)

    def _kept(self, taken: RangeContents, matches: Matches) -> Bools:
        kept: Bools = matches.label > 0
        return kept | kept_negatives(taken.impressions.id, self._stream.negative_rate)
