"""What an operator does with checkpoints: look, roll serving back and hold it, lift that, roll
training back (X4).

Each action writes its file first and returns the announcement to make: a replica that misses the
announcement finds the file.
"""

from dataclasses import dataclass

from checkpointer.store.announcement import Announcement, Hold, Ref, announce, ref
from checkpointer.store.catalogue import Catalogue, Entry, Gates
from checkpointer.store.manifest import Damaged, Manifest
from checkpointer.store.normalized_entropy import normalized_entropy


@dataclass(frozen=True)
class CheckpointRow:
    """One checkpoint in a list. `state` is "unfinished", "damaged", "complete" (not judged yet),
    "published" or "rejected"; `marks` are of "head", "served", "held"."""

    name: str
    number: int
    state: str
    marks: tuple[str, ...]
    created_ms: int = 0
    event_time_max_ms: int = 0
    rows: int = 0  # of the whole model, where its gates were asked; else of its parts
    bytes: int = 0  # of its parts: of a delta, what has changed
    barrier: int = 0
    kind: str = ""  # "full", or "delta" if any part holds only what has changed
    entropy: float = float(
        "nan"
    )  # normalized entropy of the progressive predictions since the parent
    reason: str = ""


def list_checkpoints(catalogue: Catalogue) -> list[CheckpointRow]:
    """All checkpoints of a model, oldest first."""
    head, hold = catalogue.head(), hold_known(catalogue) or Hold()
    served = hold.ref or _published_known(catalogue)
    marks = {
        "head": head and head.name,
        "held": hold.ref and hold.ref.name,
        "served": served and served.name,
    }
    return [
        _line(entry, tuple(m for m, name in marks.items() if name == entry.name))
        for entry in catalogue.entries()
    ]


def find(catalogue: Catalogue, which: str) -> Manifest:
    """The checkpoint named by its number, its name, or "head". ValueError names what there is."""
    if which == "head":
        head = catalogue.head()
        if head is None:
            raise ValueError(f"model {catalogue.model!r} has no complete checkpoint yet")
        return head
    found = [
        entry.manifest
        for entry in catalogue.entries()
        if entry.manifest is not None
        and (entry.name == which or (which.isdigit() and entry.number == int(which)))
    ]
    if len(found) != 1:
        names = (
            ", ".join(entry.name for entry in catalogue.entries() if entry.manifest is not None)
            or "none"
        )
        raise ValueError(f"checkpoint {which!r}: {len(found)} match; complete ones are {names}")
    return found[0]


@dataclass(frozen=True)
class Verified:
    """A checkpoint, what it is loaded from (oldest first, itself last), and what is wrong with
    any of that."""

    name: str
    chain: tuple[str, ...]
    problems: tuple[str, ...]


def verify(catalogue: Catalogue, which: str = "") -> list[Verified]:
    """Read every byte of one checkpoint, or of all, down to the base of each. ValueError names
    what there is."""
    if which:
        return [_verified(catalogue, find(catalogue, which))]
    found = []
    for entry in catalogue.entries():
        if entry.manifest is not None:
            found.append(_verified(catalogue, entry.manifest))
        elif entry.problem:
            found.append(Verified(entry.name, (), (entry.problem,)))
    return found


def _verified(catalogue: Catalogue, manifest: Manifest) -> Verified:
    try:
        chain = tuple(one.name for one in catalogue.chain(manifest))
    except Damaged as error:
        return Verified(manifest.name, (), (str(error),))
    return Verified(manifest.name, chain, tuple(catalogue.chain_problems(manifest)))


def restore(catalogue: Catalogue, which: str, reason: str, now_ms: int) -> Announcement:
    """Roll serving back (or forth) to a checkpoint and hold it there until `lift`. Refuses one
    that is not whole."""
    manifest = find(catalogue, which)
    problems = catalogue.chain_problems(manifest)
    if problems:
        raise Damaged("; ".join(problems))
    known = hold_known(catalogue)
    # Of a hold that cannot be read nobody knows the revision: milliseconds are more than operators
    # ever said words.
    hold = Hold(now_ms if known is None else known.revision + 1, ref(manifest), reason)
    catalogue.write_hold(hold)
    return announce(
        "rolled_back", manifest, catalogue.folder_url(manifest.name), now_ms, reason, hold.revision
    )


def lift(catalogue: Catalogue, now_ms: int) -> Announcement | None:
    """End the hold: replicas go on to the newest published checkpoint. None = nothing is held."""
    hold = hold_known(catalogue)
    if hold is not None and hold.ref is None:
        return None
    lifted = Hold(now_ms if hold is None else hold.revision + 1)
    catalogue.write_hold(lifted)
    target = _published_known(catalogue) or (hold.ref if hold is not None else None)
    if target is None:
        return None
    manifest = catalogue.manifest(target.name)
    return announce(
        "lifted", manifest, catalogue.folder_url(manifest.name), now_ms, "", lifted.revision
    )


def hold_known(catalogue: Catalogue) -> Hold | None:
    """The hold; None = it cannot be read, and an operator's next word replaces it."""
    try:
        return catalogue.hold()
    except Damaged:
        return None


def _published_known(catalogue: Catalogue) -> Ref | None:
    """The newest published checkpoint, also where the pointer to it cannot be read."""
    try:
        return catalogue.published()
    except Damaged:
        return max(catalogue.published_refs(), default=None)


def restore_training(catalogue: Catalogue, which: str) -> Manifest:
    """From now on shards that start restore from this checkpoint, and it is the parent of the next
    (X4).

    Start all shards again afterwards, so that they come back under new incarnations; learners then
    rewind.
    """
    manifest = find(catalogue, which)
    problems = catalogue.chain_problems(manifest)
    if problems:
        raise Damaged("; ".join(problems))
    catalogue.write_training_rollback(ref(manifest))
    return manifest


def model_rows(manifest: Manifest, gates: Gates | None) -> int:
    """Rows of the whole model, also where the checkpoint is a delta; of its parts alone if no
    gate has loaded it."""
    return (gates.rows if gates is not None else 0) or sum(part.rows for part in manifest.parts)


def _line(entry: Entry, marks: tuple[str, ...]) -> CheckpointRow:
    manifest, gates = entry.manifest, entry.gates
    if manifest is None:
        return CheckpointRow(
            entry.name,
            entry.number,
            "damaged" if entry.problem else "unfinished",
            marks,
            reason=entry.problem,
        )
    return CheckpointRow(
        name=entry.name,
        number=entry.number,
        state="complete" if gates is None else gates.outcome,
        marks=marks,
        created_ms=manifest.created_ms,
        event_time_max_ms=manifest.event_time_max_ms,
        rows=model_rows(manifest, gates),
        bytes=sum(part.bytes for part in manifest.parts),
        barrier=manifest.barrier,
        kind="full" if manifest.is_full else "delta",
        entropy=normalized_entropy(manifest.evaluation),
        reason="" if gates is None else gates.reason,
    )
