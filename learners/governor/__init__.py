"""The governor: measures what staleness costs, and bounds it (K7).

- `checkpoint_source`: the boundary to complete cuts of a model, as the governor reads them
- `controller`: the governor's conduct, as a pure core
- `metrics`: what a governor's process exports to Prometheus (shell)
- `process`: the governor's process
- `shadow`: A shadow
- `window`: the batches that follow a cut, in the order in which they were learned live, each with
  the loss it had then
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from learners.governor import process
    from learners.governor.checkpoint_source import CompleteCut, CutGone
    from learners.governor.metrics import GovernorMetrics
    from learners.governor.process import GovernedSystem, GovernorService
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CompleteCut",
    "CutGone",
    "GovernedSystem",
    "GovernorMetrics",
    "GovernorService",
    "process",
]
