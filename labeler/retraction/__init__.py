"""Taking back what was learned of events that a late verdict rejects (L3).

- `labelled_rows`: the rows of `examples`, as every reader folds them, read back from an arrival on
  (C2)
- `labelled_until`: how far every partition has been labelled, as the end of `examples` says
- `late_verdicts`: the runs of `verdicts` that may take something back, read in order (L3, C1)
- `rows`: what a verdict that comes after training takes back of `examples`, and the record that
  says so (L3, C1)
- `runner`: writes `retract/p` of the partitions that a process owns
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.retraction.late_verdicts import LateVerdicts
    from labeler.retraction.rows import Gathered, Held, Late, held_columns, record_rows, values_of
    from labeler.retraction.runner import Retracting
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "Gathered",
    "Held",
    "Late",
    "LateVerdicts",
    "Retracting",
    "held_columns",
    "record_rows",
    "values_of",
]
