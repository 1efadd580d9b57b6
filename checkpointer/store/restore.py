"""The state of a model at a checkpoint, from its base and the deltas since: as a whole, or cut by
cut and part by part, as shards restore it (X2, X3)."""

from collections.abc import Callable, Iterator
from functools import partial

from checkpointer.store.catalogue import Catalogue
from checkpointer.store.manifest import Damaged, Manifest, Part, part_problem
from paramserver import Progress
from paramserver.parts import (
    CutParts,
    ServingPart,
    Snapshot,
    decode_part,
    decode_serving,
    serving_part,
    view_part,
    whole,
)


def model_state(catalogue: Catalogue, manifest: Manifest) -> Snapshot:
    """All shards' parts as one snapshot, every file verified. Raises Damaged, naming the file
    that is not right."""
    chain = catalogue.chain(manifest)
    try:
        return whole(
            (one.sha256, [read_snapshot(catalogue, one, part) for part in one.parts])
            for one in chain
        )
    except (ValueError, KeyError) as error:
        raise (
            error if isinstance(error, Damaged) else Damaged(f"{manifest.name}: {error}")
        ) from error


def cut_parts(catalogue: Catalogue, manifest: Manifest, held: str | None = None) -> list[CutParts]:
    """What is to be read, oldest cut first, by who holds the cut of manifest `held` (X3). Raises
    Damaged, while parts are read too."""

    def read(one: Manifest) -> Iterator[Snapshot]:
        return (read_snapshot(catalogue, one, part, view_part) for part in one.parts)

    return [
        CutParts(one.sha256, one.is_full, partial(read, one))
        for one in catalogue.chain(manifest, held)
    ]


def read_snapshot(
    catalogue: Catalogue,
    manifest: Manifest,
    part: Part,
    decode: Callable[[bytes], Snapshot] = decode_part,
) -> Snapshot:
    """One part, whole, and of this very cut (I5). Raises Damaged."""
    where = f"{manifest.name}/{part.path}"
    try:
        data = catalogue.files.read(f"{manifest.model}/{where}")
    except FileNotFoundError:
        raise Damaged(f"{where}: missing") from None
    problem = part_problem(part, data)
    if problem is not None:
        raise Damaged(f"{manifest.name}/{problem}")
    try:
        snapshot = decode(data)
    except ValueError as error:
        raise Damaged(f"{where}: {error}") from error
    _check_progress(manifest, snapshot.progress, where)
    return snapshot


def read_serving(catalogue: Catalogue, manifest: Manifest, part: Part, upon: bool) -> ServingPart:
    """What replicas read of one part, of this very cut (I5): what has changed upon the manifest's
    parent where that is known and `upon`, else all weights; from the part itself where it has no
    file for them. Raises Damaged."""
    file = part.serving_file(manifest.parent if upon else None)
    if file is None and upon and part.kind == "full":
        file = part.serving_file(None)
    if file is None:
        found = serving_part(read_snapshot(catalogue, manifest, part, view_part))
        parent = manifest.parent if part.kind == "delta" else None
    else:
        where = f"{manifest.name}/{file.path}"
        try:
            data = catalogue.files.read(f"{manifest.model}/{where}")
        except FileNotFoundError:
            raise Damaged(f"{where}: missing") from None
        if problem := part_problem(file, data):
            raise Damaged(f"{manifest.name}/{problem}")
        try:
            found = decode_serving(data, manifest.spec)
        except ValueError as error:
            raise Damaged(f"{where}: {error}") from error
        _check_progress(manifest, found.progress, where)
        parent = file.parent or None
    if found.parent != parent or (parent is not None and not upon):
        raise Damaged(f"{manifest.name}/{part.path}: a delta upon {found.parent}, not on {parent}")
    return found


def _check_progress(manifest: Manifest, progress: Progress, where: str) -> None:
    """Raises Damaged unless a file stands where the manifest says (I5)."""
    for chain, at in manifest.chains.items():
        there = progress.chains.get(chain)
        if there is None or (there.end, there.row_hash) != (at.end, at.row_hash):
            raise Damaged(f"{where}: chain {chain} stands at {there}, the manifest says {at}")
