"""The head complete cut as a shard's process takes it: which map it names, and what is to be
read of it (X2, S6)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from paramserver.parts.snapshot import Snapshot
from paramserver.slots import SlotMap


@dataclass(frozen=True)
class CutParts:
    """One complete cut on the way to the head. `read` reads its parts, one after the other as
    they are asked for."""

    manifest_sha256: str
    is_full: bool  # it says all there is; else it builds on the cut before
    read: Callable[[], Iterable[Snapshot]]


@dataclass(frozen=True)
class HeadCut:
    """`slot_map` = None: as configured. `chain` tells who holds the cut of a manifest ("" = none)
    what to read to get here, oldest first: cuts that build on it, or a full one and those that
    build on that (X3)."""

    slot_map: SlotMap | None
    manifest_sha256: str
    chain: Callable[[str], Sequence[CutParts]]


#: Of a model that has no checkpoint yet.
NO_HEAD = HeadCut(None, "", lambda held: ())
