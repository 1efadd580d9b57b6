"""The audit: the promise checked over logs, archive, shards and checkpoints.

- `asked`: whether all that a retraining asks for is still there
- `findings`: the audit
- `claims`: what shards and checkpoints claim to have learned, held against the audit's own fold
  (I3, S7)
- `fold`: the audit's own fold of `examples`
- `inputs`: the audit's count of the inputs
- `records`: every record of a partition as it is now, for commands that look at whole topics
- `seen_ranges`: which ranges of a chain have been counted, in bounded memory (pure)
- `standings`: who claims to have learned what
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.audit import standings
    from everspun.audit.asked import BEGINNING_MS, Asked, begun_otherwise, look
    from everspun.audit.findings import Audit, audit
    from everspun.audit.fold import IMPRESSION_CLASSES
    from everspun.audit.records import read_all, read_from
    from everspun.audit.seen_ranges import SeenRanges
    from everspun.audit.standings import of_shards, slot_maps
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "BEGINNING_MS",
    "IMPRESSION_CLASSES",
    "Asked",
    "Audit",
    "SeenRanges",
    "audit",
    "begun_otherwise",
    "look",
    "of_shards",
    "read_all",
    "read_from",
    "slot_maps",
    "standings",
]
