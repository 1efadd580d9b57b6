"""Log loss relative to what the base rate alone explains (He et al. 2014)."""

import math

from checkpointer.store.manifest import Evaluation


def normalized_entropy(evaluation: Evaluation) -> float:
    """Log loss over the entropy of the mean label; below 1 is better than knowing only that. NaN =
    no rows, or all of one label."""
    return normalized(evaluation.rows, evaluation.log_loss_sum, evaluation.label_sum)


def normalized(rows: float, log_loss_sum: float, label_sum: float) -> float:
    """The same of sums over `rows` rows."""
    rate = label_sum / rows if rows else 0.0
    if not 0 < rate < 1:
        return math.nan
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return log_loss_sum / (rows * entropy)
