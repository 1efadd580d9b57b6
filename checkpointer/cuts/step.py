"""What one look of the checkpointer came to."""

from dataclasses import dataclass
from typing import NamedTuple

from checkpointer.cuts.schedule import Due
from checkpointer.store.gate_findings import Gates
from checkpointer.store.manifest import Manifest


class MovePause(NamedTuple):
    """How long a move stopped starts, ms, in its phases: until all had marked, until the checkpoint
    that names the map was complete, and until all shards of the new map stood at it."""

    mark: int = 0
    write: int = 0
    take: int = 0


NO_PAUSE = MovePause()


@dataclass(frozen=True)
class CutStep:
    """`outcome`: "idle" | "unreachable" | "begun" | "not_restored" | "preparing" (shards read ahead
    of a move) | "prepared" (a cut for them, judged later) | "moving" (shards take a new map) |
    "abandoned" | "published" | "rejected" | "store" (it failed: `detail` says how, and the next
    step takes up what was under way)."""

    outcome: str
    detail: str = ""
    due: Due | None = None
    reason: str = ""  # why a cut was abandoned, in one word
    hold_ms: int = 0
    cut_ms: int = 0  # the cut alone, from the first question to all marked
    total_ms: int = 0  # from due to announced
    manifest: Manifest | None = None
    gates: Gates | None = None
    rows_learned: int = 0  # since the parent
    deltas: int = 0  # between the manifest and its base
    swept: tuple[str, ...] = ()
    pause: MovePause = NO_PAUSE  # of a move
    shards: int = 0  # of a move: how many there are now
