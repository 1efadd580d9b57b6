"""One shard: the state of its models, and what it does with a request (S1 to S7).

- `allow_list`: who may push to one incarnation of a shard (K5)
- `delay_compensation`: what a shard does about a gradient that was computed on weights which have
  changed since
- `incarnations`: which incarnation a shard begins as
- `marked_cut`: A marked cut as its shard keeps it, and the last complete one, which a delta may
  build on (X1, X2)
- `shard`: one shard
- `slot_map_updater`: when a shard goes over to a newer map, and what it reads ahead (S6)
- `state`: all that one shard knows of one model
- `state_copy`: the state of a model at one moment, copied while pushes go on (X1)
- `standby`: the next incarnation of a shard in the making
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.shard.incarnations import next_incarnation
    from paramserver.shard.shard import Shard
    from paramserver.shard.slot_map_updater import KEPT_MS, SlotMapUpdater
    from paramserver.shard.standby import Standby, StandbyReader
    from paramserver.shard.state import COPY_ROWS
    from paramserver.shard.state_copy import StateCopy
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "COPY_ROWS",
    "KEPT_MS",
    "Shard",
    "SlotMapUpdater",
    "Standby",
    "StandbyReader",
    "StateCopy",
    "next_incarnation",
]
