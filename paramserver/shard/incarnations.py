"""Which incarnation a shard begins as: above every one before it, whatever has been lost (S2). The
clock holder's is its era (K5).

An incarnation is kept in two places before it is used: the shard's folder and the store of
checkpoints. One of them may be lost (a machine is replaced), or behind (the store was not to be
written to), and a shard whose number is too low is told so by the clock holder, who names the
newest incarnation it has seen.
"""

#: A shard without its folder goes on so far above what the store says: it may have been behind for
#: so many starts.
LOST_STEP = 1_000
#: And so high where the store says nothing either, though the model has begun: it was begun before
#: stores were told.
UNKNOWN_BASE = 1_000_000


def next_incarnation(folder: int | None, store: int | None, begun: bool) -> int:
    """`folder`, `store`: the last incarnation that each knows of, None = it knows of none. `begun`:
    whether there is a checkpoint, so that there has been one."""
    if folder is not None:
        return max(folder, store or 0) + 1
    if store is not None:
        return store + LOST_STEP
    return UNKNOWN_BASE if begun else 1
