"""What one look of the checkpointer came to."""

from dataclasses import dataclass
from typing import NamedTuple

from checkpointer.cuts.schedule import Due
from checkpointer.store import Gates, Manifest


class MovePause(NamedTuple):
    """How long a move stopped starts, ms, in its phases: until all had marked, until the checkpoint
    that names the map was complete, and until all shards of the new map stood at it."""

    mark: int = 0
    write: int = 0
    take: int = 0


NO_PAUSE = MovePause()


#: What a look may come to, and what it leaves for the next one; docs/states.md shows it.
OUTCOMES = {
    "idle": "nothing is due",
    "unreachable": "a shard or the clock holder does not answer: it is asked again",
    "not_restored": "a shard has not taken up the head cut yet: it is asked again",
    "begun": "a new model has its first place on every shard",
    "preparing": "shards read ahead of a move: another cut for them, or the move, comes next",
    "prepared": "a cut for shards that read ahead is complete; it is judged if no move comes of it",
    "moving": "shards take a newer map: they are told again until all have it",
    "abandoned": "nothing stands: tried again after a pause that grows",
    "published": "a checkpoint is complete and passed its gates: replicas may take it",
    "rejected": "a checkpoint is complete, shards restore from it, and no replica takes it",
    "store": "the store failed: the next look takes up what was under way",
}


@dataclass(frozen=True)
class CutStep:
    """`outcome`: one of OUTCOMES."""

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
