"""Which checkpoints to delete: all but the last few and some older ones, and never one that
something rests on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """What retention needs to know of a folder. `sha256` None = it has no manifest, so it is no
    checkpoint."""

    name: str
    number: int
    sha256: str | None = None
    parent: str | None = None
    rejected: bool = False
    full: bool = True
    judged: bool = (
        True  # not so: taken for a move of slots (S6), or its gates are still to be asked
    )
    created_ms: int = 0


@dataclass(frozen=True)
class Keep:
    """How many checkpoints stay: the last so many `published` and `rejected` ones; and of the
    published ones one an hour, and one a day, for the last so many hours and days that have one, so
    that where a fault is found late there is something from before it to go back to."""

    published: int
    rejected: int = 1
    hours: int = 0
    days: int = 0

    def __post_init__(self) -> None:
        if self.published < 1 or min(self.rejected, self.hours, self.days) < 0:
            raise ValueError(f"{self}: expected published >= 1, and rejected, hours and days >= 0")


_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000


def expired(
    entries: Sequence[Kept], head: str | None, keep: Keep, pinned: Collection[str] = ()
) -> list[str]:
    """Names of the folders to delete, oldest first.

    Kept are: the head (shards restore from it); what is served or held (`pinned` names); what
    `keep` says; of a full one the parent, if that is full too; and of a delta everything down to
    its base. So whatever is kept can be loaded. A folder without a manifest goes once a checkpoint
    of its number or a later one is complete: until then somebody may be writing it.
    """
    complete = sorted(
        (e for e in entries if e.sha256 is not None), key=lambda e: (e.number, e.name)
    )
    by_sha = {e.sha256: e for e in complete}
    kept = {e.name: e for e in complete if e.name == head or e.name in pinned}
    good = [e for e in complete if e.judged and not e.rejected]
    bad = [e for e in complete if e.rejected]
    timed = _one_each(good, _HOUR_MS, keep.hours) + _one_each(good, _DAY_MS, keep.days)
    for entry in [
        *good[-keep.published :],
        *bad[len(bad) - min(keep.rejected, len(bad)) :],
        *timed,
    ]:
        kept[entry.name] = entry
    for entry in list(kept.values()):
        _keep_ancestors(entry, by_sha, kept)
    newest = max((e.number for e in complete), default=-1)
    doomed = [
        e
        for e in entries
        if e.name not in kept and (e.sha256 is not None or e.number <= newest) and e.name != head
    ]
    return [e.name for e in sorted(doomed, key=lambda e: (e.number, e.name))]


def _one_each(good: Sequence[Kept], period_ms: int, count: int) -> list[Kept]:
    """Of each of the last `count` periods that have a checkpoint, one: the last full one, which
    needs no other to be loaded, or else the last. Periods are those of the clock, so that what was
    chosen yesterday is chosen today."""
    chosen: dict[int, Kept] = {}
    for entry in good:
        period = entry.created_ms // period_ms
        if entry.full or period not in chosen or not chosen[period].full:
            chosen[period] = entry
    return [chosen[period] for period in sorted(chosen)[len(chosen) - min(count, len(chosen)) :]]


def _keep_ancestors(entry: Kept, by_sha: dict[str | None, Kept], kept: dict[str, Kept]) -> None:
    """The parent of a full checkpoint, so that the two can be compared; of a delta, the chain down
    to its base.

    A delta that is the parent of a base is not kept for that: without its own base it could not be
    loaded.
    """
    while entry.parent is not None and (parent := by_sha.get(entry.parent)) is not None:
        if entry.full and not parent.full:
            return
        kept[parent.name] = parent
        if entry.full or parent.full:
            return
        entry = parent
