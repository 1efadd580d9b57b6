"""The two losses, from the records of `evaluations`, never mixed: progressive and as served (E1, E2)."""

import json
import math
from dataclasses import dataclass, field
from typing import Any


def entropy(rate: float) -> float:
    """Entropy (nats) of a Bernoulli of this rate; 0 at its ends."""
    if not 0 < rate < 1:
        return 0.0
    return -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))


@dataclass
class Quality:
    """Running sums over evaluations, each (model, chain, start) counted once: the first (E1)."""

    model: str
    rows: float = 0.0
    log_loss_sum: float = 0.0
    prediction_sum: float = 0.0
    label_sum: float = 0.0
    served_rows: float = 0.0
    served_log_loss_sum: float = 0.0
    served_prediction_sum: float = 0.0
    served_label_sum: float = 0.0
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def add(self, value: bytes) -> bool:
        """Count one record of `evaluations`; False if it is another model's or a repeat."""
        said = json.loads(value)
        if said.get("model") != self.model or (said["chain"], said["start"]) in self._seen:
            return False
        self._seen.add((said["chain"], said["start"]))
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + said.get(name, 0.0))
        self.evaluations.append(said)
        return True

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


def _ratio(loss_sum: float, rows: float, label_sum: float) -> float:
    base = rows * entropy(label_sum / rows) if rows else 0.0
    return loss_sum / base if base else 0.0
