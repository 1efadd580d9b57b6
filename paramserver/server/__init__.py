"""A shard behind gRPC: its service, its state folder, and the same in memory.

- `clock_service`: the clocks as a gRPC service
- `in_memory`: both ports of the parameter server in memory, over the same cores as the server
- `metrics`: what a shard process exports to Prometheus
- `part_writer`: writes the part of a marked cut on a thread of its own
- `server`: A shard, and the clocks where they are held, as gRPC services
- `state_dir`: what a shard keeps on disk
"""
