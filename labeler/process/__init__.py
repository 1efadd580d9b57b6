"""The labeler's process: its threads, its consumer group, its metrics.

- `consumer_group`: A process's part in a consumer group that shares out the partitions of
  `impressions` (shell)
- `metrics`: Prometheus metrics of the labeler and of the fraud filter (shell)
- `process`: the labeler's process
- `threads`: the threads of a labelling process, which end together, and the loop that drives one
  `Labelling` (shell)
- `warmup`: compile the labeler's kernels into their cache, so that the first event of a run does
  not wait for a compiler
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.process import process
    from labeler.process.consumer_group import Membership
    from labeler.process.threads import IDLE_MAX, LabellingLoop, ThreadGroup
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "IDLE_MAX",
    "LabellingLoop",
    "Membership",
    "ThreadGroup",
    "process",
]
