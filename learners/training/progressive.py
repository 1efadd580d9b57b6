"""Two losses of one batch, never mixed.

*Progressive*: what the model answered just before it trained on the batch. It is in label order, so
it flatters: the model knew labels that no server knew when the impressions happened. *As served*:
what a replica answered at the impression, logged with it. A served prediction counts only if its
model version was published before the impression arrived and had learned nothing younger (E2).

All are sums over rows, so evaluations add up: a loss is sum / rows, calibration is prediction_sum /
label_sum, normalized entropy is the loss over the entropy of label_sum / rows. `base_log_loss_sum`
is the loss of always answering the model's prior rate. Weights of examples do not enter: these
losses are of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from learners.pacing import Batch
from learners.slices import slice_column
from learners.training.gradient import BatchGradients
from stream import LATE, kind_of
from stream.internal_topics import Fields
from stream.kernels import kernel

#: Predictions are counted in this many bins of equal width in logit, the outer two open.
BINS = 40
LOGIT_MAX = 10.0
OTHER = "other"

Doubles = npt.NDArray[np.float64]


@dataclass
class Published:
    """Model versions as announced on `checkpoints`: what a served prediction may have known
    (E2)."""

    model: str
    # arrivals are of the wall clock that stamps announcements; else of a history being replayed
    live: bool
    versions_max: int
    _known_from_ms: dict[str, int] = field(default_factory=dict)

    def announced(self, record: object) -> None:
        """One record of `checkpoints`, parsed. Raises MalformedRecord for one that says nothing."""
        said = Fields.of("checkpoints", record)
        if said.body.get("model") != self.model or said.body.get("kind") != "published":
            return
        name, learned = said.text("name"), said.integer("event_time_max_ms", 0, low=0)
        created = said.integer("created_ms", low=0)
        self._known_from_ms[name] = max(learned, created) if self.live else learned
        while len(self._known_from_ms) > self.versions_max:
            del self._known_from_ms[next(iter(self._known_from_ms))]

    def unknown(self, versions: pa.Array) -> set[str]:
        """The versions here that no announcement was read of."""
        return {v for v in pc.unique(versions).to_pylist() if v and v not in self._known_from_ms}

    def served(self, rows: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        """The rows whose prediction counts as served, (n,) bool."""
        versions = rows.column("model_version").dictionary_encode()
        never = np.iinfo(np.int64).max
        known = [self._known_from_ms.get(v, never) for v in versions.dictionary.to_pylist()]
        since = np.array(known, np.int64)[versions.indices.to_numpy()]
        arrival, prediction = (
            rows.column("arrival_ms").to_numpy(),
            rows.column("prediction").to_numpy(),
        )
        out: npt.NDArray[np.bool_] = (since < arrival) & ~np.isnan(prediction)
        return out


@dataclass(frozen=True)
class Scoring:
    """How the batches of a model are scored."""

    model: str
    learner: str  # who says so
    prior_rate: float  # the answer that the loss is held against
    slices: Sequence[str] = ()  # columns and features
    slices_max: int = 64  # values of each that are told apart
    negative_rate: float = 1.0  # of the negatives of the log, the share that was chosen
    corrections: bool = True


def evaluate(
    scoring: Scoring, batch: Batch, computed: BatchGradients, version: int, published: Published
) -> dict[str, Any]:
    """The record of `evaluations` for a batch that no shard had applied (E1); `computed` has rows
    and no reason, and was made of parameters of `version`.

    A negative counts for the `1 / negative_rate` that it was chosen from. A click of a `late` chain
    counts for no row: its impression was scored as a negative before, so it takes that loss back
    and adds the right one. Without `corrections`, the chain brings only what was never a row before
    (label_strategy 'window').
    """
    rows = computed.rows
    assert rows is not None
    label, prediction, count, loss = _scored(
        batch.chain, computed, scoring.negative_rate, scoring.corrections
    )
    served = published.served(rows)
    served_count = count[served]
    answered = np.clip(
        rows.column("prediction").to_numpy()[served].astype(np.float64), 1e-7, 1 - 1e-7
    )
    base = _losses(np.full(len(label), scoring.prior_rate), label, count)
    return {
        "model": scoring.model,
        "chain": batch.chain,
        "start": batch.start,
        "end": batch.end,
        "partition": batch.partition,
        "version": version,
        "learner": scoring.learner,
        "rows": round(count.sum()),
        "clicks": int(label.sum()),
        "log_loss_sum": float(loss.sum()),
        "prediction_sum": float((count * prediction).sum()),
        "label_sum": float(label.sum()),
        "base_log_loss_sum": float(base.sum()),
        "served_rows": round(served_count.sum()),
        "served_log_loss_sum": float(_losses(answered, label[served], served_count).sum()),
        "served_prediction_sum": float((served_count * answered).sum()),
        "served_label_sum": float(label[served].sum()),
        "slices": {
            name: _slice(rows, name, (count, loss, count * prediction, label), scoring.slices_max)
            for name in scoring.slices
        },
        "ts_ms_max": computed.event_time_max_ms,
        "arrival_ms_max": int(rows.column("arrival_ms").to_numpy().max()),
        "bins": np.round(_bins(prediction, label, count), 6).tolist(),
        "late_micro": batch.late_micro,
        "on_time_micro": batch.on_time_micro,
    }


def log_loss_sum(chain: str, computed: BatchGradients, negative_rate: float) -> float:
    """What `evaluate` says of the same, alone."""
    return float(_scored(chain, computed, negative_rate)[3].sum())


def _scored(
    chain: str, computed: BatchGradients, negative_rate: float, corrections: bool = True
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """(labels, predictions, for how many rows each counts, losses), each (n,)."""
    assert computed.rows is not None
    label = computed.rows.column("label").to_numpy().astype(np.float64)
    prediction = computed.prediction.astype(np.float64)
    is_correction = (label > 0) & (corrections and kind_of(chain) == LATE)
    count = np.where(is_correction, 0.0, np.where(label > 0, 1.0, 1.0 / negative_rate))
    return label, prediction, count, _losses(prediction, label, count)


def log_losses(prediction: Doubles, label: Doubles) -> Doubles:
    """-log of the probability given to what happened, by row."""
    out: Doubles = -np.log(np.where(label > 0, prediction, 1.0 - prediction))
    return out


def _losses(prediction: Doubles, label: Doubles, count: Doubles) -> Doubles:
    """The same for rows that count so often; a click that counts 0 times corrects a negative."""
    loss = log_losses(prediction, label)
    return np.where(count > 0, count * loss, loss + np.log(1.0 - prediction))


def auc(bins: Sequence[Sequence[float]]) -> float:
    """Area under the ROC curve of summed bins, ties within a bin counted half; NaN without both
    classes."""
    counts = np.array(bins, np.float64)
    positive, negative = counts[:, 2], counts[:, 0] - counts[:, 2]
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float((positive * (below + negative / 2)).sum() / pairs) if pairs else float("nan")


def _slice(
    rows: pa.RecordBatch,
    name: str,
    columns: tuple[Doubles, Doubles, Doubles, Doubles],
    values_max: int,
) -> dict[str, list[float]]:
    """value -> [rows, log loss, predictions, labels], sums; beyond the largest values all are
    'other'."""
    column = slice_column(rows, name).dictionary_encode()
    names, place = column.dictionary.to_pylist(), column.indices.to_numpy()
    sums = np.stack([np.bincount(place, w, len(names)) for w in columns], axis=1)
    largest = np.argsort(-sums[:, 0], kind="stable")
    out = {names[i]: sums[i].tolist() for i in largest[:values_max]}
    if len(rest := largest[values_max:]):
        out[OTHER] = (sums[rest].sum(axis=0) + np.array(out.get(OTHER, [0.0] * 4))).tolist()
    return out


@kernel
def _bins(prediction: Doubles, label: Doubles, count: Doubles) -> Doubles:
    """(BINS, 3): rows, sum of predictions, sum of labels, by bins of the prediction's logit."""
    out = np.zeros((BINS, 3), np.float64)
    for i in range(len(prediction)):
        logit = np.log(prediction[i] / (1.0 - prediction[i]))
        at = int((logit + LOGIT_MAX) / (2 * LOGIT_MAX) * BINS)
        at = min(max(at, 0), BINS - 1)
        out[at, 0] += count[i]
        out[at, 1] += count[i] * prediction[i]
        out[at, 2] += label[i]
    return out
