"""The head complete cut as a shard's process takes it: which map it names, and the models to begin from (X2, S6)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paramserver.slots import SlotMap
from paramserver.state import Snapshot


@dataclass(frozen=True)
class Restored:
    """A model to begin from: all parts of one complete cut, and the checksum of its manifest (X2)."""

    snapshots: Sequence[Snapshot]
    manifest_sha256: str


@dataclass(frozen=True)
class HeadCut:
    """`load` reads the parts; whoever owns no slot need not. `slot_map` = None: as configured."""

    slot_map: SlotMap | None
    load: Callable[[], Sequence[Restored]]


#: Of a model that has no checkpoint yet.
NO_HEAD = HeadCut(None, lambda: ())
