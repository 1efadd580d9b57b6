"""The learner's process: its reader, its calls to shards, its metrics.

- `evaluation_sender`: sends evaluations on a thread of its own
- `examples_reader`: reads `examples` as a group member, on a thread of its own
- `metrics`: what a learner's process exports to Prometheus (shell)
- `overlap_meter`: how long pulls and pushes ran beside a computation
- `port_caller`: performs the calls of the core against the ports, each on a thread, and hands back
  one event for each (shell)
- `worker`: A learner's process
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from learners.process import worker
    from learners.process.examples_reader import as_batch
    from learners.process.metrics import LearnerMetrics
    from learners.process.worker import LearningSystem, Worker, prepare_torch
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "LearnerMetrics",
    "LearningSystem",
    "Worker",
    "as_batch",
    "prepare_torch",
    "worker",
]
