"""What cuts and checkpoints cost training.

- `checkpoint`: What a checkpoint a second costs training
- `cuts`: What a cut costs a shard
"""
