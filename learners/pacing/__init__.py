"""The pacer: when a learner reads, computes, pushes, waits and begins again (K1 to K5).

- `start_backoff`: how long to wait before asking again for a start that the staleness bound holds
  back (K2, K4)
- `batch_in_flight`: one batch between its start and its end
- `events`: what happens to a learner, as `pacing` is told it
- `instructions`: what a learner wants done, as `pacing` says it
- `pacer`: the pace of one learner
- `pending_calls`: the calls of one learner that are not answered
- `position`: where a learner stands in one partition of `examples`
- `shard_view`: what the shards last said of themselves
- `start_scheduler`: which batch a learner asks to start next, and when
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from learners.pacing import events, instructions
    from learners.pacing.events import Batch
    from learners.pacing.instructions import Call
    from learners.pacing.pacer import Pacer
    from learners.pacing.position import CannotGoOn, Position
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "Batch",
    "Call",
    "CannotGoOn",
    "Pacer",
    "Position",
    "events",
    "instructions",
]
