"""Planted bugs of the later reading (`late/p`, docs/labels.md). Seeds 5, 16, 27, ... run
'window+correct'."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sim_bug import Patch, bug, replaced

from labeler.join import ClickJoin, ClickLimits, ExamplesFold, ResumePoint
from labeler.join.strategy import NOTHING
from labeler.labels.range_labels import RangeLabeler
from stream import Record
from stream.internal_topics import BatchHeader

late_labels = RangeLabeler._late_labels


@bug(
    "early click is a negative",
    "a click before its impression by another clock does not count (L1)",
)
def early_click_lost() -> list[Patch]:
    match = ClickJoin.match

    def bad(self: ClickJoin, ids: Any, ts_ms: Any, arrival_ms: Any, limits: ClickLimits) -> Any:
        return match(self, ids, ts_ms, arrival_ms, limits._replace(early_click_ms=0))

    return [replaced(ClickJoin.match, bad)]


@bug(
    "click learned by both readings",
    "the later reading brings what the first one knew too",
    first=5,
    step=11,
)
def click_twice() -> list[Patch]:
    def bad(self: RangeLabeler, taken: Any, ruling: Any, matches: Any) -> Any:
        said = late_labels(self, taken, ruling, matches)
        stands = ~(taken.duplicate | ruling.rejected | ruling.withheld)
        return said._replace(rows=said.rows | (stands & (matches.label > 0)))

    return [replaced(RangeLabeler._late_labels, bad)]


@bug("release forgotten", "what was withheld and released is never labelled (L8)", first=5, step=11)
def release_forgotten() -> list[Patch]:
    def bad(self: RangeLabeler, taken: Any, ruling: Any, matches: Any) -> Any:
        said = late_labels(self, taken, ruling, matches)
        return said._replace(rows=said.rows & ~self.rule(taken, self._first).withheld)

    return [replaced(RangeLabeler._late_labels, bad)]


@bug(
    "later reading resumes where the first one stands",
    "a fold takes other chains' records (C2)",
    first=5,
    step=11,
)
def one_fold_for_all() -> list[Patch]:
    def bad(self: ExamplesFold, records: Iterable[Record]) -> None:
        for record in records:
            self._add(BatchHeader.from_headers(record.headers))

    return [replaced(ExamplesFold.add, bad)]


@bug(
    "late share lost on restart",
    "a resumed later reading counts clicks from nothing (C4)",
    first=5,
    step=11,
)
def share_lost() -> list[Patch]:
    after = ResumePoint.after.__func__  # type: ignore[attr-defined]

    def bad(cls: type[ResumePoint], header: Any, barrier: int) -> ResumePoint:
        return replace(after(cls, header, barrier), share=NOTHING)

    return [replaced(ResumePoint.after, classmethod(bad))]
