"""Deltas: what changed since a parent cut, and how a model is put together from a base and deltas
(X2, X3).

A delta part holds the rows touched since its shard's own last cut, the keys evicted since
(tombstones), and all dense arrays, which are small. It names the manifest it builds on by checksum
and applies to nothing else. One cut may mix full parts and deltas: a full part replaces what its
slots held, a delta changes it, tombstones before rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys, Rows
from paramserver.parts.part import Weights, check_covered, merge, select, weights
from paramserver.parts.snapshot import Snapshot
from paramserver.slots import SLOTS, SlotMap, slot_of
from paramserver.tables import Sightings, TableRows, joined, slots_of_lines


def whole(chain: Iterable[tuple[str, Sequence[Snapshot]]]) -> Snapshot:
    """The model at the end of a chain of cuts, oldest first: (checksum of the manifest, its parts);
    the first is full.

    ValueError if a delta names another parent than the cut before it, or parts do not fit together.
    """
    held: Snapshot | None = None
    held_sha256 = ""
    for sha256, parts in chain:
        _check_parents(parts, held_sha256)
        merged = merge([_as_full(part) for part in parts])
        if held is not None:
            _check_slots(held.slots, parts)
            tables = {}
            for name, items in merged.tables.items():
                kept = held.tables[name].take(_kept(held.tables[name].keys, parts, name))
                tables[name] = TableRows(*map(np.concatenate, zip(*[kept, items], strict=True)))
            merged = replace(merged, tables=tables, sightings=_with_sightings(held, merged, parts))
        held, held_sha256 = merged, sha256
    if held is None:
        raise ValueError("no cut given: a model is put together from a full one on")
    return held


def patched(held: Weights | None, held_sha256: str, parts: Sequence[Snapshot]) -> Weights:
    """What a replica holds after one more cut, as new arrays. `held` = None: the cut is full.

    ValueError if a delta names another parent than `held_sha256`, or parts do not fit together.
    """
    _check_parents(parts, held_sha256 if held is not None else "")
    merged = weights(merge([_as_full(part) for part in parts]))
    if held is None:
        return merged
    tables = {}
    for name, (keys, rows) in merged.tables.items():
        old_keys, old_rows = held.tables[name]
        kept = _kept(old_keys, parts, name)
        tables[name] = _in_order(old_keys, old_rows, kept, keys, rows)
    return Weights(tables, merged.dense)


def first_cut(parts: Iterable[Snapshot], shard: int, slot_map: SlotMap) -> Snapshot:
    """What a full cut says of a shard's slots, taken from one part after the other. ValueError
    if it lacks some."""
    cut = merge([select(part, shard, slot_map) for part in parts])
    check_covered(cut, shard, slot_map)
    return cut


def next_cut(
    parts: Iterable[Snapshot], shard: int, slot_map: SlotMap, held_sha256: str
) -> tuple[Snapshot, npt.NDArray[np.int32]]:
    """The next cut for a shard that holds the one before and changes it in place: what its parts
    say of the shard's slots, as one, and of which slots full parts say all there is.

    ValueError if a delta names another parent than `held_sha256`, or parts do not fit together or
    lack a slot.
    """
    own = [select(part, shard, slot_map) for part in parts]
    _check_parents(own, held_sha256)
    cut = merge([_as_full(part) for part in own])
    check_covered(cut, shard, slot_map)
    names = {name for part in own for name in part.tombstones}
    gone = {
        name: np.concatenate([p.tombstones[name] for p in own if name in p.tombstones])
        for name in names
    }
    return replace(cut, tombstones=gone), np.flatnonzero(_full_slots(own)).astype(np.int32)


def _in_order(
    old_keys: Keys, old_rows: Rows, kept: npt.NDArray[np.bool_], keys: Keys, rows: Rows
) -> tuple[Keys, Rows]:
    """The kept ones of before and the new ones, none in both, rising as both do: no sorting, one
    pass."""
    old_keys, old_rows = old_keys[kept], old_rows[kept]
    places = np.searchsorted(old_keys, keys) + np.arange(len(keys))
    of_old = np.ones(len(old_keys) + len(keys), np.bool_)
    of_old[places] = False
    out_keys = np.empty(len(of_old), np.uint64)
    out_rows = np.empty((len(of_old), old_rows.shape[1]), np.float32)
    out_keys[of_old], out_keys[places] = old_keys, keys
    out_rows[of_old], out_rows[places] = old_rows, rows
    return out_keys, out_rows


def _as_full(part: Snapshot) -> Snapshot:
    return replace(part, parent=None, tombstones={})


def _check_parents(parts: Sequence[Snapshot], held_sha256: str) -> None:
    for part in parts:
        if part.parent not in (None, held_sha256):
            raise ValueError(
                f"shard {part.shard}: a delta upon manifest "
                f"{part.parent[:12] if part.parent else ''}, and "
                f"{held_sha256[:12] or 'nothing'} is held"
            )


def _check_slots(held: npt.NDArray[np.int32], parts: Sequence[Snapshot]) -> None:
    slots = np.sort(np.concatenate([part.slots for part in parts]))
    if not np.array_equal(slots, held):
        raise ValueError(f"parts cover {len(slots)} slots, what they build on has {len(held)}")


def _with_sightings(
    held: Snapshot, merged: Snapshot, parts: Sequence[Snapshot]
) -> dict[str, Sightings]:
    """The counts after one more cut: lines of a delta replace, and full parts hold all lines of
    their slots."""
    full = _full_slots(parts)
    found = {}
    for spec in merged.spec.tables:
        if spec.name in merged.sightings:
            old, new = held.sightings[spec.name], merged.sightings[spec.name]
            kept = ~np.isin(old.lines, new.lines) & ~full[slots_of_lines(old.lines, spec)]
            found[spec.name] = joined([old.take(kept), new])
    return found


def _full_slots(parts: Sequence[Snapshot]) -> npt.NDArray[np.bool_]:
    full = np.zeros(SLOTS, np.bool_)
    for part in parts:
        if part.parent is None:
            full[part.slots] = True
    return full


def _kept(keys: Keys, parts: Sequence[Snapshot], table: str) -> npt.NDArray[np.bool_]:
    """Which rows of before stay as they were: neither evicted, nor given anew, nor in the slots
    of a full part."""
    kept = np.ones(len(keys), np.bool_)
    full = _full_slots(parts)
    for part in parts:
        if part.parent is not None:
            gone = np.concatenate([part.tombstones.get(table, keys[:0]), part.tables[table].keys])
            kept &= ~_among(keys, gone)
    if full.any():
        kept &= ~full[slot_of(keys)]
    return kept


def _among(keys: Keys, some: Keys) -> npt.NDArray[np.bool_]:
    """Which of `keys` are among `some`; quick where `keys` rise and these are few."""
    if not (keys[1:] > keys[:-1]).all():
        return np.isin(keys, some)
    found = np.zeros(len(keys) + 1, np.bool_)
    places = np.searchsorted(keys, some)
    found[places[np.append(keys, np.uint64(0))[places] == some]] = (
        True  # a plain 0 would make floats of all keys
    )
    return found[:-1]
