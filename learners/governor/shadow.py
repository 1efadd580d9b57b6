"""A shadow: batches trained in sequence on a copy of a model's state, to see what staleness costs
the live one.

The copy is the dense part and those rows that the batches touch, with their optimizer state, as one
cut holds them. No shard and no learner notices. Each batch is scored before it is trained on, as
live ones are, and rounded on the way to and from the tables as live ones are: what is left of a
difference is the staleness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from learners.models import NONE, Correction, Model
from learners.pacing import Batch
from learners.training import Prepared, gradient, log_loss_sum
from paramserver import (
    AllowRequest,
    Encoding,
    Epoch,
    Keys,
    Outcome,
    PullRequest,
    PushRequest,
    Rows,
    SlotMap,
    decode_rows,
    encode_rows,
)
from paramserver.parts import Snapshot, merge
from paramserver.shard import Shard

_EPOCH = Epoch(1, 1)


def touched_only(snapshot: Snapshot, keys: Mapping[str, Keys]) -> Snapshot:
    """The snapshot with no rows but those of `keys` (table -> keys)."""
    empty = np.empty(0, np.uint64)
    tables = {
        name: rows.take(np.isin(rows.keys, keys.get(name, empty)))
        for name, rows in snapshot.tables.items()
    }
    return replace(snapshot, tables=tables)


class Shadow:
    """One sequence, from one cut."""

    def __init__(
        self,
        model: Model,
        snapshots: Sequence[Snapshot],
        negative_rate: float = 1.0,
        encoding: Encoding = Encoding.FLOAT32,
    ) -> None:
        """`snapshots`: of all shards at one cut, whole or `touched_only`. Refused if they are of
        several.

        `negative_rate`: a negative counts for so many times its inverse, as in evaluations.
        `encoding`: of rows on the wire of the live model."""
        self.model, self._negative_rate, self._encoding = model, negative_rate, encoding
        self.shard = Shard(0, 1, SlotMap.even(1))
        self.shard.restore([merge(snapshots)], "shadow")
        self.shard.allow(AllowRequest(_EPOCH.era, 1, (_EPOCH,)))

    def train(
        self, batch: Batch, prepared: Prepared | None, correction: Correction = NONE
    ) -> float:
        """The summed log loss of the batch before it is trained on, NaN if it says nothing.
        `prepared` = None: of a range without rows. ValueError if the batch is not the next of its
        chain."""
        computed, version = gradient.EMPTY, 0
        if prepared is not None:
            pulled = self.shard.pull(PullRequest(self.model.name, _EPOCH, 1, prepared.keys))
            rows = self._travelled(pulled.rows)
            computed = gradient.compute(self.model, prepared, rows, pulled.dense, correction)
            version = pulled.version
        content = gradient.contents(computed, self.shard.slot_map)[0]
        content["gradients"] = self._travelled(content["gradients"])
        reply = self.shard.push(
            PushRequest(
                self.model.name,
                _EPOCH,
                1,
                1,
                batch.chain,
                batch.start,
                batch.end,
                batch.partition,
                batch.next_record,
                version,
                barrier=batch.barrier,
                **content,
            )
        )
        if reply.outcome is not Outcome.APPLIED:
            raise ValueError(
                f"{batch.chain} [{batch.start}, {batch.end}) on a shadow: {reply.outcome.value}"
            )
        if computed.reason or not len(computed.prediction):
            return float("nan")
        return log_loss_sum(batch.chain, computed, self._negative_rate)

    def _travelled(self, rows: Mapping[str, Rows]) -> dict[str, Rows]:
        """As they arrive at the other end of a wire."""
        if self._encoding is Encoding.FLOAT32:
            return dict(rows)
        return {
            name: decode_rows(encode_rows(array, self._encoding), self._encoding)
            for name, array in rows.items()
        }
