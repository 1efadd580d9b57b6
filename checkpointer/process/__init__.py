"""The checkpointer's process, and what operators do to checkpoints.

- `counts_writer`: the thread that puts the newest totals of counters into the store
- `learned_to_served`: how long what was learned waits to be served
- `operator_actions`: what an operator does with checkpoints
- `process`: the checkpointer process
- `served_watch`: the thread that watches shards and replicas for that wait
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.process import operator_actions, process
    from checkpointer.process.learned_to_served import LearnedToServed, highest
    from checkpointer.process.operator_actions import model_rows
    from checkpointer.process.process import StoreHealth, code_version
    from checkpointer.process.served_watch import places_of, served_by
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "LearnedToServed",
    "StoreHealth",
    "code_version",
    "highest",
    "model_rows",
    "operator_actions",
    "places_of",
    "process",
    "served_by",
]
