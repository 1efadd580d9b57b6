"""A shard behind gRPC: its service, its state folder, and the same in memory.

- `clock_service`: the clocks as a gRPC service
- `in_memory`: both ports of the parameter server in memory, over the same cores as the server
- `metrics`: what a shard process exports to Prometheus
- `part_writer`: writes the part of a marked cut on a thread of its own
- `server`: A shard, and the clocks where they are held, as gRPC services
- `state_dir`: what a shard keeps on disk
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.server.clock_service import ClockService
    from paramserver.server.in_memory import LocalClock, LocalShard
    from paramserver.server.metrics import Metrics, ModelSample
    from paramserver.server.server import Server, ShardService
    from paramserver.server.state_dir import (
        StateDir,
        StateInUse,
        StateUnreadable,
        read_part,
        read_touched,
        write_durably,
        write_part,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ClockService",
    "LocalClock",
    "LocalShard",
    "Metrics",
    "ModelSample",
    "Server",
    "ShardService",
    "StateDir",
    "StateInUse",
    "StateUnreadable",
    "read_part",
    "read_touched",
    "write_durably",
    "write_part",
]
