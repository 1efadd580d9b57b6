"""From a batch to gradients by shard, and what scored it before it was learned.

- `clipping`: how much one row may move a batch's gradient
- `gradient`: from the rows of a batch and what was pulled for them to what is pushed
- `key_sharding`: the distinct keys of one table, dealt to the shards that own them
- `progressive`: two losses of one batch, never mixed
- `unlearning`: taking back
"""
