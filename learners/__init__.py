"""Learners: from labelled batches to pushes, at a bounded distance from each other.

What. A learner owns partitions of `examples` through a consumer group. It asks every shard where it
stands, seeks to the smallest answer, folds the chains from there, and for each batch: asks the
clock for a start, pulls the rows of the batch's keys, predicts (progressive validation) and
differentiates, pushes to every shard, and tells the clock that the batch ended. Nothing it holds
outlives it.

Invariants. (1) A batch is started at the folded end of its chain, and its pieces reach each shard
in order (C2, S1). (2) A position names the incarnations that answered when it was sought; a newer
one rewinds it (S2). (3) A batch is reported ended when every shard has acknowledged all of it, or
when it was abandoned *and* nothing of it is under way any more: an answer still missing could stand
for a push that takes effect later (K1, I4). (4) Fenced anywhere is stopped everywhere; a new epoch
is joined, and only then is anything started (K3, K5). (5) A chain never stops at a batch: what
cannot be read or is not finite is pushed empty, with its reason, to all shards (S4). (6) The row
hash of a push covers every row of its range, usable or not, so that it equals the audit's own fold
(S7). A record that cannot be decoded has no rows to hash, and shows in the audit.

Why not otherwise. *Commit offsets to Kafka:* two places would say how far the model is, and after a
crash they differ; the shards change progress and parameters together. *One thread a partition:*
starts of one learner are ordered by one clock, so threads would only wait for each other; one state
machine can be driven through thousands of schedules. *Score after training, or at random times:*
predicting just before the push costs one sigmoid, and no row is ever scored by a model that knows
its label. *Publish an evaluation after the push:* a learner killed between the two would leave a
batch that nobody scores; published before, it may be repeated, and the first counts (E1). *torch
for everything:* a logistic regression is one kernel, and a replica that serves it need not load
torch.

- `governor`: The governor
- `models`: Models and the features that they read
- `pacing`: The pacer
- `process`: The learner's process
- `training`: From a batch to gradients by shard, and what scored it before it was learned
- `config`: settings of a model (what is learned) and of learners (how)
- `declared_features`: what a model's config says of its features, held against their declarations
- `slices`: by what the progressive loss is also summed
- `governor_config`: how the governor measures what staleness costs, and when it acts
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from learners.config import NETWORK_KINDS, SLICES_MAX, LearnerConfig, ModelConfig
    from learners.governor_config import GovernorConfig
    from learners.slices import slices_fault
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NETWORK_KINDS",
    "SLICES_MAX",
    "GovernorConfig",
    "LearnerConfig",
    "ModelConfig",
    "slices_fault",
]
