"""From a batch to gradients by shard, and what scored it before it was learned.

- `clipping`: how much one row may move a batch's gradient
- `gradient`: from the rows of a batch and what was pulled for them to what is pushed
- `key_sharding`: the distinct keys of one table, dealt to the shards that own them
- `progressive`: two losses of one batch, never mixed
- `unlearning`: taking back
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from learners.training import gradient, progressive, unlearning
    from learners.training.gradient import CAUSES, BatchGradients, Prepared
    from learners.training.progressive import Published, log_loss_sum, log_losses
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CAUSES",
    "BatchGradients",
    "Prepared",
    "Published",
    "gradient",
    "log_loss_sum",
    "log_losses",
    "progressive",
    "unlearning",
]
