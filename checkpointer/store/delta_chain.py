"""From a checkpoint that is held to another: the base and the deltas to load, oldest first (X3)."""

from collections.abc import Callable

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
