"""Cuts: one consistent moment of all shards, begun, collected and published (X1).

- `begin_at_time`: from a moment to the place in every chain where the records of that moment begin
  (S5)
- `cut`: one attempt at a cut
- `cut_runner`: carries out what a cut says, over the ports of the shards and of the clocks
- `driver`: the checkpointer without its clock, its log and its process
- `move_preparation`: how a move is made short before it is made
- `part_writing`: all shards of a cut write their parts
- `publication`: a complete checkpoint is judged and published
- `resharding`: how many shards a model has and is to have (S6)
- `schedule`: when the next cut is due
- `step`: what one look of the checkpointer came to
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.cuts.begin_at_time import EndsAtTime, find_spans, vector_at
    from checkpointer.cuts.driver import Driver
    from checkpointer.cuts.schedule import barrier_reached
    from checkpointer.cuts.step import CutStep
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CutStep",
    "Driver",
    "EndsAtTime",
    "barrier_reached",
    "find_spans",
    "vector_at",
]
