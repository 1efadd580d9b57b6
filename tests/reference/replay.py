"""An independent replay of a click log: plain Python and numpy, sharing no code with the system it
checks.

It states in the shortest way what the whole system should compute: FTRL-Proximal logistic
regression (McMahan et al. 2013, Algorithm 1) on rows of (key, x), trained in order of labels in
given batches, and the two losses.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: A row: keys of weights, and what each is multiplied by.
Reading = Sequence[tuple[object, float]]


@dataclass
class Ftrl:
    """Per-coordinate FTRL-Proximal with a constant logit `bias_logit` (the prior rate),
    gradients summed per batch."""

    alpha: float
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    bias_logit: float = 0.0
    z: dict[object, float] = field(default_factory=dict)
    n: dict[object, float] = field(default_factory=dict)

    def weight(self, key: object) -> float:
        z = self.z.get(key, 0.0)
        if abs(z) <= self.l1:
            return 0.0
        n = self.n.get(key, 0.0)
        return -(z - math.copysign(self.l1, z)) / (
            (self.beta + math.sqrt(n)) / self.alpha + self.l2
        )

    def predict(self, row: Reading) -> float:
        logit = self.bias_logit + sum(self.weight(key) * x for key, x in row)
        return 1.0 / (1.0 + math.exp(-logit))

    def train(self, batch: Sequence[tuple[Reading, float]]) -> list[float]:
        """Predict every row of the batch, then apply the batch's summed gradient per key.
        Returns the predictions."""
        predictions = [self.predict(row) for row, _ in batch]
        gradients: dict[object, float] = {}
        for p, (row, label) in zip(predictions, batch, strict=True):
            for key, x in row:
                gradients[key] = gradients.get(key, 0.0) + (p - label) * x
        for key, g in gradients.items():
            n = self.n.get(key, 0.0)
            sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / self.alpha
            self.z[key] = self.z.get(key, 0.0) + g - sigma * self.weight(key)
            self.n[key] = n + g * g
        return predictions


def normalized_entropy(pairs: Iterable[tuple[float, float]]) -> float:
    """Log loss of (prediction, label) over the entropy of the mean label (He et al. 2014)."""
    loss = total = count = 0.0
    for p, y in pairs:
        p = min(max(p, 1e-7), 1 - 1e-7)
        loss -= math.log(p) if y else math.log(1 - p)
        total += y
        count += 1
    rate = total / count
    return loss / count / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))


@dataclass(frozen=True)
class Shown:
    """An impression as the reference needs it."""

    ts_ms: int
    keys: Reading
    label: int


def as_served(
    shown: Sequence[Shown], model: Ftrl, interval_ms: int, wait_ms: int, batch_rows: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Replay with a cut at each multiple of `interval_ms`: at cut T the model has learned the
    impressions whose deadline (ts + wait_ms) lies before T, in batches of at most `batch_rows`;
    impressions of [T, T + interval) are answered by that cut. Returns (served, progressive) pairs
    of (prediction, label)."""
    served: list[tuple[float, float]] = []
    progressive: list[tuple[float, float]] = []
    trained = 0
    period = shown[0].ts_ms // interval_ms
    for one in shown:
        if one.ts_ms // interval_ms > period:
            period = one.ts_ms // interval_ms
            due = trained
            while due < len(shown) and shown[due].ts_ms + wait_ms < period * interval_ms:
                due += 1
            for at in range(trained, due, batch_rows):
                rows = shown[at : min(at + batch_rows, due)]
                predictions = model.train([(row.keys, row.label) for row in rows])
                progressive += [(p, row.label) for p, row in zip(predictions, rows, strict=True)]
            trained = due
        served.append((model.predict(one.keys), one.label))
    return served, progressive
