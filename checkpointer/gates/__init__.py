"""Gates: what a checkpoint must pass before replicas may serve it (X2).

- `evaluations`: evaluation sums by cut
- `gates`: what a checkpoint must pass before replicas may serve it
- `sandbox`: starts the clean process of the gates once, and asks it about one checkpoint after
  another
- `sandbox_main`: the clean process of the gates
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.gates.evaluations import Evaluations
    from checkpointer.gates.gates import Findings, Reference, judge
    from checkpointer.gates.sandbox import CleanProcess
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CleanProcess",
    "Evaluations",
    "Findings",
    "Reference",
    "judge",
]
