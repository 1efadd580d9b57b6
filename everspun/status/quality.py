"""The two losses, from the records of `evaluations`, never mixed: progressive and as served (E1,
E2)."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from checkpointer.store import normalized
from everspun.audit import SeenRanges
from stream.internal_topics import MalformedRecord, json_object

DAY_MS = 86_400_000
#: Days of event time, bins of predictions and values of staleness that are kept for the plots.
DAYS_MAX, BINS_MAX, STALENESS_MAX = 4_000, 1_000, 10_000


@dataclass
class Quality:
    """Running sums over evaluations, each (model, chain, start) counted once: the first (E1). What
    it holds does not grow with their number."""

    model: str
    rows: float = 0.0
    log_loss_sum: float = 0.0
    prediction_sum: float = 0.0
    label_sum: float = 0.0
    served_rows: float = 0.0
    served_log_loss_sum: float = 0.0
    served_prediction_sum: float = 0.0
    served_label_sum: float = 0.0
    malformed: int = 0  # records that say nothing
    #: Day of event time -> sums of `DAY_SUMS`.
    days: dict[int, list[float]] = field(default_factory=dict)
    #: By bin of prediction: rows, sum of predictions, sum of labels.
    bins: list[list[float]] = field(default_factory=list)
    #: Updates applied between read and write -> pushes; the last entry is for so many or more.
    staleness: Counter[int] = field(default_factory=Counter)
    _seen: SeenRanges = field(default_factory=SeenRanges)

    def add(self, value: bytes) -> bool:
        """Count one record of `evaluations`; False if it is another model's, a repeat, or no
        evaluation at all."""
        try:
            fields = json_object("evaluations", value)
            said = fields.body
            if said.get("model") != self.model:
                return False
            sums = {name: fields.number(name, 0.0) for name in _SUMS}
            start = fields.integer("start", low=0)
            key = fields.text("chain"), start, fields.integer("end", start + 1, low=start)
        except MalformedRecord:
            self.malformed += 1
            return False
        if not self._seen.add(*key):
            return False
        for name, more in sums.items():
            setattr(self, name, getattr(self, name) + more)
        self._add_to_plots(said, sums)
        return True

    def _add_to_plots(self, said: dict[str, Any], sums: dict[str, float]) -> None:
        try:
            day = int(said["ts_ms_max"]) // DAY_MS
            bins = [[float(x) for x in one] for one in (said.get("bins") or [])[:BINS_MAX]]
            staleness = [min(int(s), STALENESS_MAX) for s in said.get("staleness") or []]
        except (ValueError, TypeError, KeyError, OverflowError):
            return  # an older learner's: its sums are counted
        if sums["rows"]:
            before = self.days.get(day, [0.0] * len(DAY_SUMS))
            self.days[day] = [a + sums[name] for a, name in zip(before, DAY_SUMS, strict=True)]
            if len(self.days) > DAYS_MAX:
                del self.days[min(self.days)]
        if not self.bins:
            self.bins = bins
        elif len(bins) == len(self.bins):
            self.bins = [
                [a + b for a, b in zip(x, y, strict=False)]
                for x, y in zip(self.bins, bins, strict=True)
            ]
        self.staleness.update(staleness)

    @property
    def log_loss(self) -> float:
        return self.log_loss_sum / self.rows if self.rows else 0.0

    @property
    def normalized_entropy(self) -> float:
        """Progressive log loss over the entropy of the labels' mean (He et al. 2014)."""
        return _ratio(self.log_loss_sum, self.rows, self.label_sum)

    @property
    def calibration(self) -> float:
        """Sum of predictions over sum of labels; 1 is right."""
        return self.prediction_sum / self.label_sum if self.label_sum else 0.0

    @property
    def served_log_loss(self) -> float:
        return self.served_log_loss_sum / self.served_rows if self.served_rows else 0.0

    @property
    def served_normalized_entropy(self) -> float:
        return _ratio(self.served_log_loss_sum, self.served_rows, self.served_label_sum)

    @property
    def served_calibration(self) -> float:
        return self.served_prediction_sum / self.served_label_sum if self.served_label_sum else 0.0


_SUMS = (
    "rows",
    "log_loss_sum",
    "prediction_sum",
    "label_sum",
    "served_rows",
    "served_log_loss_sum",
    "served_prediction_sum",
    "served_label_sum",
)


DAY_SUMS = (
    "rows",
    "log_loss_sum",
    "label_sum",
    "served_rows",
    "served_log_loss_sum",
    "served_label_sum",
)


def shown(value: float, counted: float, digits: int = 4) -> str:
    """A figure as people read it; a dash where nothing was counted."""
    return f"{value:.{digits}f}" if counted else "-"


def _ratio(loss_sum: float, rows: float, label_sum: float) -> float:
    """0 where it says nothing: no rows, or all of one label."""
    found = normalized(rows, loss_sum, label_sum)
    return found if math.isfinite(found) else 0.0
