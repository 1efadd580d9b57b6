"""A shadow: batches trained in sequence on a copy of a model's state, to see what staleness costs the live one.

The copy is the dense part and those rows that the batches touch, with their optimizer state, as one cut holds them. No
shard and no learner notices. Each batch is scored before it is trained on, as live ones are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from learners import gradient
from learners.events import Batch
from learners.gradient import Prepared
from learners.model import Model
from paramserver.messages import Epoch, Keys, Outcome, PullRequest, PushRequest
from paramserver.part import merge
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.state import Snapshot

_EPOCH = Epoch(1, 1)


def touched_only(snapshot: Snapshot, keys: Mapping[str, Keys]) -> Snapshot:
    """The snapshot with no rows but those of `keys` (table -> keys)."""
    empty = np.empty(0, np.uint64)
    tables = {name: rows.take(np.isin(rows.keys, keys.get(name, empty))) for name, rows in snapshot.tables.items()}
    return replace(snapshot, tables=tables)


class Shadow:
    """One sequence, from one cut."""

    def __init__(self, model: Model, snapshots: Sequence[Snapshot]) -> None:
        """`snapshots`: of all shards at one cut, whole or `touched_only`. Refused if they are of several."""
        self.model = model
        self.shard = Shard(0, 1, SlotMap.even(1))
        self.shard.restore([merge(snapshots)], "shadow")
        self.shard.allow(_EPOCH.era, 1, [_EPOCH])

    def train(self, batch: Batch, prepared: Prepared) -> float:
        """The summed log loss of the batch before it is trained on, NaN if it says nothing. ValueError if the batch is
        not the next of its chain."""
        pulled = self.shard.pull(PullRequest(self.model.name, _EPOCH, 1, prepared.keys))
        computed = gradient.compute(self.model, prepared, pulled.rows, pulled.dense)
        content = gradient.contents(computed, self.shard.slot_map)[0]
        reply = self.shard.push(
            PushRequest(
                self.model.name, _EPOCH, 1, 1, batch.chain, batch.start, batch.end, batch.partition, batch.next_record,
                pulled.version, **content,
            )
        )  # fmt: skip
        if reply.outcome is not Outcome.APPLIED:
            raise ValueError(f"{batch.chain} [{batch.start}, {batch.end}) on a shadow: {reply.outcome.value}")
        if computed.reason or not len(computed.prediction):
            return float("nan")
        label = prepared.rows.column("label").to_numpy()
        p = computed.prediction.astype(np.float64)
        return float(-np.log(np.where(label > 0, p, 1.0 - p)).sum())
