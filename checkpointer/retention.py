"""Which checkpoints to delete: all but the last few, and never one that something still rests on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """What retention needs to know of a folder. `sha256` None = it has no manifest, so it is no checkpoint."""

    name: str
    number: int
    sha256: str | None = None
    parent: str | None = None
    rejected: bool = False
    full: bool = True
    judged: bool = True  # not so: taken for a move of slots (S6), or its gates are still to be asked


def expired(
    entries: Sequence[Kept], head: str | None, keep: int, keep_rejected: int = 1, pinned: Collection[str] = ()
) -> list[str]:
    """Names of the folders to delete, oldest first.

    Kept are: the head (shards restore from it); what is served or held (`pinned` names); the last `keep` that were
    published, and the last `keep_rejected` that were not; of a full one the parent, if that is full too; and of a delta
    everything down to its base. So whatever is kept can be loaded. A folder without a manifest goes once a checkpoint
    of its number or a later one is complete: until then somebody may be writing it.
    """
    if keep < 1 or keep_rejected < 0:
        raise ValueError(f"keep {keep}, keep_rejected {keep_rejected}: expected keep >= 1 and keep_rejected >= 0")
    complete = sorted((e for e in entries if e.sha256 is not None), key=lambda e: (e.number, e.name))
    by_sha = {e.sha256: e for e in complete}
    kept = {e.name: e for e in complete if e.name == head or e.name in pinned}
    good = [e for e in complete if e.judged and not e.rejected]
    bad = [e for e in complete if e.rejected]
    for entry in good[-keep:] + bad[len(bad) - min(keep_rejected, len(bad)) :]:
        kept[entry.name] = entry
    for entry in list(kept.values()):
        _keep_ancestors(entry, by_sha, kept)
    newest = max((e.number for e in complete), default=-1)
    doomed = [
        e for e in entries if e.name not in kept and (e.sha256 is not None or e.number <= newest) and e.name != head
    ]
    return [e.name for e in sorted(doomed, key=lambda e: (e.number, e.name))]


def _keep_ancestors(entry: Kept, by_sha: dict[str | None, Kept], kept: dict[str, Kept]) -> None:
    """The parent of a full checkpoint, so that the two can be compared; of a delta, the chain down to its base.

    A delta that is the parent of a base is not kept for that: without its own base it could not be loaded.
    """
    while entry.parent is not None and (parent := by_sha.get(entry.parent)) is not None:
        if entry.full and not parent.full:
            return
        kept[parent.name] = parent
        if entry.full or parent.full:
            return
        entry = parent
