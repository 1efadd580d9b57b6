"""How a model has done lately: sums of scored rows by hour of event time, kept from checkpoint to
checkpoint.

A checkpoint is judged on what was scored since its parent. Where that is too little, as on a site
with few visitors, what was scored before it is taken too. And what it is compared with is the best
that was published within `keep_ms`, not only the last one: five in a row, each a little worse than
the one before, are together much worse. Spans of the best are joined until they hold enough rows:
the lowest of many small samples says more of chance than of the model.

It stands in each `gates.json`, so it outlives the checkpoints that it is of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from checkpointer.store.entropy import normalized
from checkpointer.store.manifest import Evaluation

HOUR_MS = 3_600_000


class HourSums(NamedTuple):
    """Sums over the scored rows of checkpoints that were cut in one hour of event time."""

    hour: int
    published: bool  # of those that were; else of those that were not
    rows: float
    log_loss_sum: float
    prediction_sum: float
    label_sum: float
    served_rows: float = 0.0
    served_log_loss_sum: float = 0.0
    served_label_sum: float = 0.0

    def __add__(self, other: object) -> "HourSums":
        """The sums of both, by the name of this one."""
        assert isinstance(other, HourSums)
        return HourSums(
            self.hour, self.published, *(a + b for a, b in zip(self[2:], other[2:], strict=True))
        )


@dataclass(frozen=True)
class TrackRecord:
    """Spans, oldest first."""

    spans: tuple[HourSums, ...] = ()

    @staticmethod
    def of(rows: Iterable[Sequence[float]]) -> "TrackRecord":
        """From JSON. Raises TypeError for what is none."""
        return TrackRecord(
            tuple(HourSums(int(row[0]), bool(row[1]), *map(float, row[2:])) for row in rows)
        )

    def extended(
        self, evaluation: Evaluation, at_ms: int, published: bool, keep_ms: int
    ) -> "TrackRecord":
        """With a checkpoint that was cut at this event time; what is older than `keep_ms` is
        forgotten."""
        new = _span(evaluation, at_ms // HOUR_MS, published)
        spans = [span for span in self.spans if span.hour > new.hour - max(1, keep_ms // HOUR_MS)]
        same = next((i for i, span in enumerate(spans) if span[:2] == new[:2]), None)
        if same is None:
            spans.append(new)
        else:
            spans[same] += new
        return TrackRecord(tuple(sorted(spans, key=lambda span: span.hour)))

    def evidence(self, evaluation: Evaluation, rows_min: int, labels_min: int) -> HourSums:
        """What a checkpoint is judged on: its own sums, and of the newest spans as many as it
        takes to have enough."""
        found = _span(evaluation, 0, False)
        for span in reversed(self.spans):
            if found.rows >= rows_min and found.label_sum >= labels_min:
                break
            found += span
        return found

    def served(self, evaluation: Evaluation, rows_min: int) -> HourSums:
        """The same for what was answered at the impressions."""
        found = _span(evaluation, 0, False)
        for span in reversed(self.spans):
            if found.served_rows >= rows_min:
                break
            found += span
        return found

    def best(self, rows_min: int, labels_min: int) -> float | None:
        """The lowest normalized entropy of what was published, in stretches of enough rows and
        clicks; None = nothing of known quality was."""
        lowest, merged = None, None
        for span in self.spans:
            if not span.published:
                continue
            merged = span if merged is None else merged + span
            if merged.rows >= rows_min and merged.label_sum >= labels_min:
                found = normalized(merged.rows, merged.log_loss_sum, merged.label_sum)
                lowest = found if lowest is None else min(lowest, found)
                merged = None
        return lowest


def _span(evaluation: Evaluation, hour: int, published: bool) -> HourSums:
    return HourSums(
        hour, published, *(float(getattr(evaluation, name)) for name in HourSums._fields[2:])
    )
