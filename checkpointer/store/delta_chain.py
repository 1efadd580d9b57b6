"""From a checkpoint that is held to another: the base and the deltas to load, oldest first (X3)."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from checkpointer.store.manifest import Damaged, Manifest


def steps(
    target: Manifest, held: str | None, find: Callable[[str], Manifest | None]
) -> tuple[Manifest, ...]:
    """The manifests to load to arrive at `target`, oldest first (X3).

    If all of them are deltas they apply to what is held, `held` being the checksum of its manifest;
    else the first is a full base and replaces it. A delta applies to its own parent and to nothing
    else, so a gap means a new base. Raises Damaged if a parent on the way to the base is not there.
    """
    chain = [target]
    while not chain[-1].is_full and chain[-1].parent != held:
        child = chain[-1]
        parent = find(child.parent) if child.parent is not None else None
        if parent is None:
            raise Damaged(
                f"{child.name}: its parent {(child.parent or 'none')[:12]} is not there; a full "
                f"base is needed"
            )
        chain.append(parent)
    return tuple(reversed(chain))


#: A base is read only if the deltas are so many times its bytes.
ANEW_FACTOR = 2


class ServingStep(NamedTuple):
    """One manifest on a replica's way. `upon`: its deltas apply to what came before; else its full
    parts say all there is."""

    manifest: Manifest
    upon: bool

    @property
    def bytes(self) -> int:
        """What is to be read of it."""
        parent = self.manifest.parent if self.upon else None
        return sum((p.serving_file(parent) or p).bytes for p in self.manifest.parts)


def serving_steps(
    target: Manifest, held: Manifest | None, find: Callable[[str], Manifest | None]
) -> tuple[ServingStep, ...]:
    """The way of a replica that holds `held` to `target`, oldest first (X3): from what it holds,
    past bases too where they say what has changed upon their parent; or from the last base, if that
    is the only way, or far fewer bytes: it takes new tables beside those that are held. Raises
    Damaged if there is none."""
    onward = None if held is None else _onward(target, held, find)
    if onward is not None and len(onward) == 1:
        return onward
    try:
        first, *more = steps(target, None, find)
        anew = (ServingStep(first, False), *(ServingStep(one, True) for one in more))
    except Damaged:
        if onward is None:
            raise
        return onward
    if onward is not None and _bytes(onward) <= ANEW_FACTOR * _bytes(anew):
        return onward
    return anew


def _bytes(way: Iterable[ServingStep]) -> int:
    return sum(step.bytes for step in way)


def _onward(
    target: Manifest, held: Manifest, find: Callable[[str], Manifest | None]
) -> tuple[ServingStep, ...] | None:
    """The way from what is held; None = there is none."""
    chain = [target]
    while chain[-1].parent != held.sha256:
        last = chain[-1]
        parent = find(last.parent) if last.follows and last.parent is not None else None
        if parent is None or parent.number <= held.number:
            return None
        chain.append(parent)
    if not chain[-1].follows:
        return None
    return tuple(ServingStep(one, True) for one in reversed(chain))
