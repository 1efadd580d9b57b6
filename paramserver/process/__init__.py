"""The process of a shard.

- `slot_map_thread`: A running shard goes over to a newer map
- `process`: one shard's process
- `warmup`: compile every kernel of this package before anyone waits for one
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.process import process
    from paramserver.process.process import run
    from paramserver.process.warmup import warm_up
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "process",
    "run",
    "warm_up",
]
