"""A snapshot as named arrays and text, which is what a part of a checkpoint holds; and parts of N
shards as one of M.

Arrays: `table/<name>/keys` (n,) uint64 rising, `.../rows` (n, stride) float32 (weights, or FTRL's
z, then optimizer state; of a storage in 16 bits uint32 words, two numbers each: `layout`),
`.../touched_ms` and `.../version` (n,) int64; `dense/<name>` (k,) float32, weights then state. A
table that counts sightings of keys has those too (`admission`): `table/<name>/sightings/lines` (k,)
int64 rising, `.../counters` (k, 64) uint8 and `.../version` (k,) int64. Metadata is text: `format`,
`model`, `spec`, `begun` and `progress` (JSON; row hashes as 32 hexadecimal digits), `slots`,
`shard`, `map_epoch`, `refused`. A delta (X3) has another `format`, holds the rows and lines touched
since its `parent` (a manifest's checksum), and `table/<name>/tombstones` (k,) uint64 rising, the
keys evicted since. The same state gives the same arrays and metadata, whatever order its rows were
created in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.kernel import plain
from paramserver.messages import (
    ChainProgress,
    DenseSpec,
    Keys,
    ModelSpec,
    Progress,
    Rows,
    TableSpec,
)
from paramserver.optim import dense_optimizer
from paramserver.parts.snapshot import Snapshot
from paramserver.slots import SlotMap, slot_of, slot_of_name
from paramserver.tables import (
    LINE,
    Sightings,
    TableRows,
    Words,
    joined,
    make_layout,
    make_policy,
    shape_of,
    slots_of_lines,
)

FORMAT = "everspun-part/1"
#: A delta has a name of its own, so that a reader who does not know them cannot take one for the
#: whole.
DELTA_FORMAT = "everspun-part-delta/1"

Arrays = dict[str, npt.NDArray[Any]]
_DTYPES = {"keys": np.uint64, "touched_ms": np.int64, "version": np.int64}


class Weights(NamedTuple):
    """What serving needs: weights without optimizer state."""

    tables: dict[str, tuple[Keys, Rows]]  # (n,) keys rising, (n, dim) weights
    dense: dict[str, npt.NDArray[np.float32]]  # in their shapes


def to_arrays(snapshot: Snapshot) -> tuple[Arrays, dict[str, str]]:
    """(arrays, metadata) of a part. Sorts rows by key."""
    arrays: Arrays = {}
    for name, items in snapshot.tables.items():
        for column, array in _sorted(items)._asdict().items():
            arrays[f"table/{name}/{column}"] = array
        if name in snapshot.sightings:
            for column, array in snapshot.sightings[name]._asdict().items():
                arrays[f"table/{name}/sightings/{column}"] = array
        if snapshot.parent is not None:
            arrays[f"table/{name}/tombstones"] = np.sort(
                snapshot.tombstones.get(name, items.keys[:0])
            )
    for name, row in snapshot.dense.items():
        arrays[f"dense/{name}"] = row
    metadata = {
        "format": FORMAT if snapshot.parent is None else DELTA_FORMAT,
        "model": snapshot.spec.name,
        "spec": _dumps(asdict(snapshot.spec)),
        "begun": _dumps(snapshot.begun),
        "progress": progress_to_json(snapshot.progress),
        "shard": str(snapshot.shard),
        "map_epoch": str(snapshot.map_epoch),
        "slots": ranges_of_slots(snapshot.slots),
        "refused": str(snapshot.refused),
    }
    if snapshot.parent is not None:
        metadata["parent"] = snapshot.parent
    return arrays, metadata


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> Snapshot:
    """The snapshot of a part. ValueError names what is missing, has another format, or does not
    fit the spec."""
    if metadata.get("format") not in (FORMAT, DELTA_FORMAT):
        raise ValueError(
            f"part format {metadata.get('format')!r}: this version reads {FORMAT!r} and "
            f"{DELTA_FORMAT!r}"
        )
    is_delta = metadata["format"] == DELTA_FORMAT
    try:
        spec = spec_from_json(metadata["spec"])
        snapshot = Snapshot(
            spec=spec,
            begun=json.loads(metadata["begun"]),
            progress=progress_from_json(metadata["progress"]),
            shard=int(metadata["shard"]),
            map_epoch=int(metadata["map_epoch"]),
            slots=slots_of_ranges(metadata["slots"]),
            tables={
                table.name: TableRows(
                    *(arrays[f"table/{table.name}/{column}"] for column in TableRows._fields)
                )
                for table in spec.tables
            },
            dense={
                name: arrays[f"dense/{name}"]
                for name in spec.dense.shapes
                if f"dense/{name}" in arrays
            },
            refused=int(metadata["refused"]),
            parent=metadata["parent"] if is_delta else None,
            tombstones={t.name: arrays[f"table/{t.name}/tombstones"] for t in spec.tables}
            if is_delta
            else {},
            sightings={t.name: _sightings(t.name, arrays) for t in spec.tables if _counts(t)},
        )
    except KeyError as error:
        raise ValueError(
            f"part of model {metadata.get('model')!r}: {error.args[0]!r} is missing"
        ) from error
    _check(snapshot)
    return snapshot


def merge(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The snapshots of all shards at one cut as one snapshot of the whole model.

    ValueError if they are not of one model and one cut (chains, ends, hashes: I5), their slots
    overlap, or one is a delta, which is nothing without its parent (`delta.whole`).
    """
    if not snapshots:
        raise ValueError("no parts given: a model is restored from all parts of a cut")
    first = snapshots[0]
    for one in snapshots:
        if one.parent is not None:
            raise ValueError(
                f"the part of shard {one.shard} is a delta upon manifest {one.parent}: give its "
                f"base too"
            )
    for other in snapshots[1:]:
        if (other.spec.name, other.spec.digest) != (first.spec.name, first.spec.digest):
            raise ValueError(
                f"parts of {first.spec.name!r} and {other.spec.name!r}, or of two definitions of it"
            )
        for chain in first.progress.chains.keys() | other.progress.chains.keys():
            a, b = first.progress.chains.get(chain), other.progress.chains.get(chain)
            if a != b:
                raise ValueError(
                    f"parts of two cuts: chain {chain!r} is at {a} in one and at {b} in another"
                )
    slots = np.sort(np.concatenate([s.slots for s in snapshots]))
    if (np.diff(slots) == 0).any():
        raise ValueError(f"slot {slots[:-1][np.diff(slots) == 0][0]} stands in two parts")
    if len(snapshots) == 1:
        return first
    return Snapshot(
        spec=first.spec,
        begun=first.begun,
        progress=_lowest(first.progress, [s.progress for s in snapshots]),
        shard=-1,
        map_epoch=max(s.map_epoch for s in snapshots),
        slots=slots,
        tables={
            table.name: TableRows(
                *map(np.concatenate, zip(*(s.tables[table.name] for s in snapshots), strict=True))
            )
            for table in first.spec.tables
        },
        dense={name: row for s in snapshots for name, row in s.dense.items()},
        refused=max(s.refused for s in snapshots),
        sightings={
            name: joined([s.sightings[name] for s in snapshots]) for name in first.sightings
        },
    )


def select(snapshot: Snapshot, shard: int, slot_map: SlotMap) -> Snapshot:
    """What of a snapshot, full or a delta, belongs to one shard of a map; `check_covered` tells
    whether that is all."""
    slots = snapshot.slots[slot_map.owner[snapshot.slots] == shard]
    tables, tombstones = {}, {}
    for name, items in snapshot.tables.items():
        mine = slot_map.owner[slot_of(items.keys)] == shard
        tables[name] = items if mine.all() else items.take(mine)
    for name, keys in snapshot.tombstones.items():
        tombstones[name] = keys[slot_map.owner[slot_of(keys)] == shard]
    dense = {
        name: row for name, row in snapshot.dense.items() if slot_map.owner_of_name(name) == shard
    }
    sightings = {}
    for spec in snapshot.spec.tables:
        if spec.name in snapshot.sightings:
            seen = snapshot.sightings[spec.name]
            sightings[spec.name] = seen.take(
                slot_map.owner[slots_of_lines(seen.lines, spec)] == shard
            )
    return Snapshot(
        spec=snapshot.spec,
        begun=snapshot.begun,
        progress=snapshot.progress,
        shard=shard,
        map_epoch=slot_map.epoch,
        slots=slots,
        tables=tables,
        dense=dense,
        refused=snapshot.refused,
        parent=snapshot.parent,
        tombstones=tombstones,
        sightings=sightings,
    )


def check_covered(snapshot: Snapshot, shard: int, slot_map: SlotMap) -> None:
    """ValueError if a snapshot lacks a slot of a shard."""
    missing = np.setdiff1d(slot_map.owned(shard), snapshot.slots)
    if len(missing):
        raise ValueError(
            f"parts lack slots {ranges_of_slots(missing)} of shard {shard}: pass all parts of "
            f"the cut"
        )


def weights(snapshot: Snapshot) -> Weights:
    """The weights of a snapshot, derived where the optimizer keeps something else (FTRL)."""
    tables = {}
    for spec in snapshot.spec.tables:
        items = _sorted(snapshot.tables[spec.name])
        tables[spec.name] = (items.keys, _table_weights(spec, items.rows))
    dense = {}
    spec_dense = snapshot.spec.dense
    for name, row in snapshot.dense.items():
        shape = shape_of(spec_dense, name)
        size = int(np.prod(shape, dtype=np.int64))
        flat = np.empty((1, size), np.float32)
        optimizer = dense_optimizer(spec_dense, name)
        optimizer.weights(plain(row).reshape(1, -1), 0, np.zeros(1, np.int64), flat)
        dense[name] = flat.reshape(shape)
    return Weights(tables, dense)


def progress_to_json(progress: Progress) -> str:
    chains = {
        chain: {
            "end": at.end,
            "row_hash": f"{at.row_hash:032x}",
            "barrier": at.barrier,
            "rows": at.rows,
        }
        for chain, at in progress.chains.items()
    }
    next_record = {str(partition): record for partition, record in progress.next_record.items()}
    return _dumps(
        {
            "chains": chains,
            "next_record": next_record,
            "version": progress.version,
            "event_time_max_ms": progress.event_time_max_ms,
        }
    )


def progress_from_json(text: str) -> Progress:
    body = json.loads(text)
    return Progress(
        chains={
            chain: ChainProgress(at["end"], int(at["row_hash"], 16), at["barrier"], at["rows"])
            for chain, at in body["chains"].items()
        },
        next_record={int(partition): record for partition, record in body["next_record"].items()},
        version=body["version"],
        event_time_max_ms=body["event_time_max_ms"],
    )


def spec_from_json(text: str) -> ModelSpec:
    body = json.loads(text)
    shapes = {name: tuple(shape) for name, shape in body["dense"]["shapes"].items()}
    return ModelSpec(
        name=body["name"],
        digest=body["digest"],
        tables=tuple(TableSpec(**table) for table in body["tables"]),
        dense=DenseSpec(shapes, body["dense"]["optimizer"], body["dense"]["options"]),
    )


def _counts(table: TableSpec) -> bool:
    return make_policy(table.name, table.policy).counts


def _sightings(table: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Sightings:
    return Sightings(*(arrays[f"table/{table}/sightings/{column}"] for column in Sightings._fields))


def _dumps(body: object) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _lowest(first: Progress, all_of: Sequence[Progress]) -> Progress:
    """One progress for parts of one cut: chains are equal; a partition is read from the lowest
    record of any part."""
    next_record: dict[int, int] = {}
    for partition in set().union(*(p.next_record for p in all_of)):
        next_record[partition] = min(p.next_record.get(partition, 0) for p in all_of)
    return Progress(
        first.chains,
        next_record,
        max(p.version for p in all_of),
        max(p.event_time_max_ms for p in all_of),
    )


def _sorted(items: TableRows) -> TableRows:
    if (items.keys[1:] > items.keys[:-1]).all():
        return items  # as every copy of a table is
    return items.take(np.argsort(items.keys))


def _table_weights(spec: TableSpec, rows: Rows | Words) -> Rows:
    out = np.empty((len(rows), spec.dim), np.float32)
    make_layout(spec).weights(plain(rows.view(np.uint32)), 0, np.arange(len(rows)), out)
    return out


def _check(snapshot: Snapshot) -> None:
    """ValueError where arrays do not fit the spec or each other."""
    for spec in snapshot.spec.tables:
        items = snapshot.tables[spec.name]
        layout = make_layout(spec)
        for column, array in items._asdict().items():
            shape = (len(items.keys), layout.words) if column == "rows" else (len(items.keys),)
            dtype = layout.dtype if column == "rows" else np.dtype(_DTYPES[column])
            if array.shape != shape or array.dtype != dtype:
                wanted = f"{dtype} {shape}"
                raise ValueError(
                    f"table {spec.name!r}: {column} is {array.dtype} {array.shape}, expected "
                    f"{wanted}"
                )
        if (items.keys[1:] <= items.keys[:-1]).any():
            raise ValueError(f"table {spec.name!r}: keys are not unique and rising")
        if not np.isin(slot_of(items.keys), snapshot.slots).all():
            raise ValueError(
                f"table {spec.name!r}: holds keys outside its slots "
                f"{ranges_of_slots(snapshot.slots)}"
            )
        gone = snapshot.tombstones.get(spec.name, items.keys[:0])
        if gone.dtype != np.uint64 or gone.ndim != 1 or (gone[1:] <= gone[:-1]).any():
            raise ValueError(
                f"table {spec.name!r}: tombstones are {gone.dtype} {gone.shape}, expected rising "
                f"uint64"
            )
        if spec.name in snapshot.sightings:
            _check_sightings(spec, snapshot)
    _check_dense(snapshot)


def _check_sightings(spec: TableSpec, snapshot: Snapshot) -> None:
    """ValueError unless these are counters of the snapshot's slots."""
    lines, counters, version = snapshot.sightings[spec.name]
    found = f"{lines.dtype}, {counters.dtype}, {version.dtype}"
    if found != "int64, uint8, int64":
        raise ValueError(
            f"table {spec.name!r}: sightings are {found}, expected int64, uint8, int64"
        )
    if (
        counters.shape != (len(lines), LINE)
        or version.shape != lines.shape
        or (lines[1:] <= lines[:-1]).any()
    ):
        raise ValueError(
            f"table {spec.name!r}: sightings {counters.shape} are not {LINE} counters a line, "
            f"rising"
        )
    if not np.isin(slots_of_lines(lines, spec), snapshot.slots).all():
        raise ValueError(
            f"table {spec.name!r}: sightings outside its slots {ranges_of_slots(snapshot.slots)}"
        )


def _check_dense(snapshot: Snapshot) -> None:
    """ValueError unless exactly the arrays of the snapshot's slots are there, each with its
    state."""
    spec = snapshot.spec.dense
    for name in spec.shapes:
        here = slot_of_name(name) in snapshot.slots
        row = snapshot.dense.get(name)
        if here != (row is not None):
            raise ValueError(
                f"dense array {name!r} is {'missing' if here else 'in a part of other slots'}"
            )
        if row is not None:
            size = int(np.prod(shape_of(spec, name), dtype=np.int64))
            length = size + dense_optimizer(spec, name).state_size(size)
            if row.shape != (length,) or row.dtype != np.float32:
                raise ValueError(
                    f"dense array {name!r} is {row.dtype} {row.shape}, expected float32 ({length},)"
                )


def ranges_of_slots(slots: npt.NDArray[np.int32]) -> str:
    """Rising slots as text: "0-511,600"."""
    if not len(slots):
        return ""
    runs = np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def slots_of_ranges(text: str) -> npt.NDArray[np.int32]:
    slots: list[int] = []
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        slots.extend(range(int(first), int(last or first) + 1))
    return np.array(slots, np.int32)
