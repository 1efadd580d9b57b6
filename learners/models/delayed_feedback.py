"""What early labels do to a model, and how it is made good (docs/labels.md).

A first reading knows all clicks but a share k; those it misses are told as negatives first, and as
positives once they are known. With p the true probability, the stream then shows positives at the
rate b = p / (1 + k p). k is 1 for `eager`, which knows none; for `window+correct` it is what the
stream itself shows; 0 is no delay. Where late clicks are only counted (`late_clicks = "count"`),
the stream shows b = (1 - k) p.

- in the loss: a positive weighs 1 + k p, a negative (1 + k p)(1 - p) / (1 - p + k p), with p the
  model's own answer, held fixed. For k = 1 this is the fake-negative weighting of Ktena et al. 2019
  (arXiv:1907.06558), for others the importance weights of ES-DFM (Yang et al. 2021,
  arXiv:2012.03245) with p_dp = k p. Where late clicks are only counted the same reasoning, p / b
  for a positive and (1 - p) / (1 - b) for a negative, gives 1 / (1 - k) and (1 - p) / (1 - (1 - k)
  p). The model learns p.
- by calibration: the loss is left as it is, the model learns b, and answers p = b / (1 - k b), or b
  / (1 - k).

Where negatives were sampled at a rate r and the loss does not know it (`negative_correction =
"log_odds"`), an answer's logit is first moved by ln r.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream import StreamConfig

Floats = npt.NDArray[np.float32]

#: The prior share counts as much as this many clicks.
PRIOR_CLICKS = 10
_MICRO = 1_000_000
PROBABILITY_MAX = 1.0 - 1e-6
#: Above this nearly nothing is known in time, and the few clicks that are would weigh without
#: bound.
SHARE_MAX = 0.99


@dataclass(frozen=True)
class Correction:
    """How a loss weighs and an answer is corrected. The default changes nothing."""

    share: float = 0.0  # k
    in_loss: bool = True
    negative_rate: float = 1.0  # of a sampling that answers have to make good; 1 where weights do
    late_learned: bool = True  # late clicks are positives of the stream, and not only counted

    @property
    def weighs(self) -> bool:
        return self.in_loss and self.share > 0.0

    @property
    def changes_answers(self) -> bool:
        return self.negative_rate < 1.0 or (self.share > 0.0 and not self.in_loss)

    def answer(self, prediction: Floats) -> Floats:
        """The probability of a click, (n,) float32, from what the model says."""
        if not self.changes_answers:
            return prediction
        b = self._with_all_negatives(prediction.astype(np.float64))
        if not self.in_loss:
            known = 1.0 - self.share * (b if self.late_learned else 1.0)
            b = np.minimum(b / np.maximum(known, 1e-12), PROBABILITY_MAX)
        out: Floats = b.astype(np.float32)
        return out

    def weights(self, prediction: Floats, label: Floats) -> Floats:
        """The factor of each example's loss, (n,) float32, from what the model says of it; no
        gradient flows here."""
        p = self._with_all_negatives(prediction.astype(np.float64))
        late = self.share * p
        positive = 1.0 + late if self.late_learned else 1.0 / (1.0 - self.share)
        negative = (
            (1.0 + late if self.late_learned else 1.0)
            * (1.0 - p)
            / np.maximum(1.0 - p + late, 1e-12)
        )
        weight = np.where(label > 0, positive, negative)
        out: Floats = weight.astype(np.float32)
        return out

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(body: Mapping[str, Any]) -> "Correction":
        """Raises ValueError for what no `to_dict` gives."""
        learned = bool(
            body.get("late_learned", True)
        )  # manifests from before this option have none
        made = Correction(
            float(body["share"]), bool(body["in_loss"]), float(body["negative_rate"]), learned
        )
        if not (
            0.0 <= made.share <= (1.0 if learned else SHARE_MAX) and 0.0 < made.negative_rate <= 1.0
        ):
            raise ValueError(
                f"correction {dict(body)}: allowed are a share of 0 to 1 and a negative_rate "
                f"above 0 to 1"
            )
        return made

    def _with_all_negatives(self, p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """sigmoid(logit(p) + ln r)."""
        return (
            p
            if self.negative_rate >= 1.0
            else self.negative_rate * p / (1.0 - p + self.negative_rate * p)
        )


#: Answers stay what the model says.
NONE = Correction()


class LateShare:
    """The share of late clicks as the `late` chains of all partitions tell it: each record
    carries its chain's sums."""

    def __init__(self, prior: float):
        self._prior = prior
        self._sums: dict[int, tuple[int, int]] = {}  # partition -> late, in time

    def take(self, partition: int, late_micro: int, on_time_micro: int) -> None:
        """What the last record of a partition's `late` chain carries; one without clicks says
        nothing."""
        if late_micro or on_time_micro:
            self._sums[partition] = (late_micro, on_time_micro)

    @property
    def share(self) -> float:
        late = sum(one[0] for one in self._sums.values()) / _MICRO
        clicks = late + sum(one[1] for one in self._sums.values()) / _MICRO
        return (late + self._prior * PRIOR_CLICKS) / (clicks + PRIOR_CLICKS)


def correction(stream: StreamConfig, late: LateShare) -> Correction:
    """What the configuration asks for, as far as the stream has shown its late share."""
    share = 1.0 if stream.label_strategy == "eager" else late.share if stream.corrects else 0.0
    rate = stream.negative_rate if stream.negative_correction == "log_odds" else 1.0
    learned = stream.late_clicks == "learn"
    if not learned:
        share = min(share, SHARE_MAX)
    return Correction(share, stream.delay_correction == "weights", rate, learned)
