"""The process of a shard.

- `slot_map_thread`: A running shard goes over to a newer map
- `process`: one shard's process
- `warmup`: compile every kernel of this package before anyone waits for one
"""
