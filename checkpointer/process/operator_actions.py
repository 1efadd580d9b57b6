"""What an operator does with checkpoints: look, roll serving back and hold it, lift that, roll
training back (X4).

Each action writes its file first and returns the announcement to make: a replica that misses the
announcement finds the file.
"""

import difflib
from dataclasses import dataclass

import numpy as np

from checkpointer.serving import bring
from checkpointer.store import (
    Announcement,
    Catalogue,
    Damaged,
    Entry,
    Gates,
    Hold,
    Manifest,
    NewerFormat,
    Ref,
    announce,
    normalized_entropy,
    number_of,
    ref,
)

#: Of names that may be meant, so many are told.
NEAR_MAX = 5


@dataclass(frozen=True)
class CheckpointRow:
    """One checkpoint in a list. `state` is "unfinished", "damaged", "complete" (not judged yet),
    "published" or "rejected"; `marks` are of "head", "served", "held", "pinned"."""

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
    head, hold = _head_known(catalogue), hold_known(catalogue) or Hold()
    served = hold.ref or _published_known(catalogue)
    marks = {
        "head": {head.name} if head else set(),
        "held": {hold.ref.name} if hold.ref else set(),
        "served": {served.name} if served else set(),
        "pinned": set(catalogue.pins()),
    }
    return [
        _line(entry, tuple(m for m, names in marks.items() if entry.name in names))
        for entry in catalogue.entries()
    ]


def find(catalogue: Catalogue, which: str) -> Manifest:
    """The checkpoint named by its number, its name, or "head". ValueError names what there is."""
    if which == "head":
        head = catalogue.head()
        if head is None:
            raise ValueError(f"model {catalogue.model!r} has no complete checkpoint yet")
        return head
    complete = [entry for entry in catalogue.entries() if entry.manifest is not None]
    found = [
        entry.manifest
        for entry in complete
        if entry.manifest is not None
        and (entry.name == which or (which.isdecimal() and entry.number == int(which)))
    ]
    if len(found) != 1:
        raise ValueError(f"checkpoint {which!r}: {len(found)} match; {_near(which, complete)}")
    return found[0]


def _near(which: str, complete: list[Entry]) -> str:
    """Those of so many that may be meant, and how many there are."""
    names = [entry.name for entry in complete]
    if len(names) <= NEAR_MAX:
        return f"complete ones are {', '.join(names) or 'none'}"
    if which.isdecimal():
        by_distance = sorted(complete, key=lambda entry: abs(entry.number - int(which)))
        near = [entry.name for entry in by_distance[:NEAR_MAX]]
    else:
        near = difflib.get_close_matches(which, names, NEAR_MAX) or names[-NEAR_MAX:]
    return (
        f"the nearest of {len(names)} complete ones are {', '.join(sorted(near))}; all: "
        "`everspun checkpoints list`"
    )


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
    problems = catalogue.chain_problems(manifest) + catalogue.serving_problems(manifest)
    return Verified(manifest.name, chain, tuple(problems))


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


def pin(catalogue: Catalogue, which: str, reason: str) -> Manifest:
    """Keep a checkpoint, and what it builds on, whatever retention says. Refuses one that is not
    whole."""
    manifest = find(catalogue, which)
    if problems := catalogue.chain_problems(manifest):
        raise Damaged("; ".join(problems))
    catalogue.write_pins({**catalogue.pins(), manifest.name: reason})
    return manifest


def unpin(catalogue: Catalogue, which: str) -> str:
    """Retention decides again. Also of one that is not there any more, by its whole name.
    ValueError names what is pinned."""
    pins = catalogue.pins()
    found = [
        name
        for name in pins
        if which == name or (which.isdecimal() and number_of(name) == int(which))
    ]
    if len(found) != 1:
        more = f" and {len(pins) - NEAR_MAX} more" if len(pins) > NEAR_MAX else ""
        raise ValueError(
            f"checkpoint {which!r} is not pinned; these are: "
            f"{', '.join(sorted(pins)[:NEAR_MAX]) or 'none'}{more}"
        )
    catalogue.write_pins({name: why for name, why in pins.items() if name != found[0]})
    return found[0]


@dataclass(frozen=True)
class Difference:
    """What a checkpoint has that another has not. Rows: of all tables together."""

    rows_learned: int
    event_time_ms: int | None  # between their newest events; None = one of them learned none
    number: int
    created: int  # rows that only the later one has
    evicted: int  # rows that only the earlier one has
    changed: int  # rows of both whose weights differ
    #: of the rows of both: root of the mean square of the differences of weights
    weight_change: float


def diff(catalogue: Catalogue, which: str, other: str) -> Difference:
    """From one checkpoint to another. Loads both."""
    before, after = find(catalogue, which), find(catalogue, other)
    old = bring(catalogue, before, None, None).current.tables
    new = bring(catalogue, after, None, None).current.tables
    created = evicted = changed = both = 0
    squares = 0.0
    for name, table in new.items():
        (old_keys, old_rows), (keys, rows) = old[name].items(), table.items()
        _, at, there = np.intersect1d(old_keys, keys, assume_unique=True, return_indices=True)
        moved = rows[there].astype(np.float64) - old_rows[at]
        created, evicted = created + len(keys) - len(at), evicted + len(old_keys) - len(at)
        changed, both = changed + int((moved != 0).any(axis=1).sum()), both + moved.size
        squares += float((moved**2).sum())
    return Difference(
        rows_learned=sum(c.rows for c in after.chains.values())
        - sum(c.rows for c in before.chains.values()),
        event_time_ms=after.event_time_max_ms - before.event_time_max_ms
        if after.event_time_max_ms and before.event_time_max_ms
        else None,
        number=after.number - before.number,
        created=created,
        evicted=evicted,
        changed=changed,
        weight_change=(squares / both) ** 0.5 if both else 0.0,
    )


def hold_known(catalogue: Catalogue) -> Hold | None:
    """The hold; None = it cannot be read, and an operator's next word replaces it."""
    try:
        return catalogue.hold()
    except Damaged:
        return None


def _head_known(catalogue: Catalogue) -> Manifest | None:
    """The head; None also where a later version of this program has written it."""
    try:
        return catalogue.head()
    except NewerFormat:
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
