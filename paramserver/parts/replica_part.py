"""What a replica needs of a shard's part: keys and weights, without optimizer state and ages.

As a file (safetensors): `table/<name>/keys` (n,) uint64 rising, `table/<name>/weights` (n, dim)
float32, `dense/<name>` float32 in its shape; a delta also has `table/<name>/tombstones` (k,) uint64
rising, which go before the rows come. Metadata is text: `format`, `model`, `digest` (of the
definition), `shard`, `slots`, `progress`, and of a delta `parent`, the checksum of the manifest
that it applies to. The same state gives the same bytes.

Weights may be rounded (`scaled_rows`): then `weights` are int8 or int16, and `table/<name>/scales`
(n,) float32 stands beside them. Such a file has a format of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys, ModelSpec, Progress, Rows
from paramserver.parts.part import (
    Arrays,
    progress_from_json,
    progress_to_json,
    ranges_of_slots,
    slots_of_ranges,
    weights,
)
from paramserver.parts.scaled_rows import is_smaller, scaled, widened
from paramserver.parts.snapshot import Snapshot
from paramserver.slots import slot_of

FORMAT = "everspun-serving/1"
#: A delta has a name of its own, so that who does not know them cannot take one for the whole.
DELTA_FORMAT = "everspun-serving-delta/1"
#: The same with rounded weights.
SCALED_FORMAT, SCALED_DELTA_FORMAT = "everspun-serving/2", "everspun-serving-delta/2"
_DELTAS = (DELTA_FORMAT, SCALED_DELTA_FORMAT)
_FORMATS = (FORMAT, SCALED_FORMAT, *_DELTAS)


@dataclass(frozen=True, eq=False)
class ServingPart:
    """One shard's weights at one cut, or what has changed of them. Nobody changes its arrays."""

    model: str
    digest: str
    shard: int
    slots: npt.NDArray[np.int32]  # the slots it covers, rising
    progress: Progress
    tables: dict[str, tuple[Keys, Rows]]  # (n,) rising, (n, dim) weights
    dense: dict[str, npt.NDArray[np.float32]]  # in their shapes
    parent: str | None = None  # of a delta: checksum of the manifest it applies to
    tombstones: dict[str, Keys] = field(default_factory=dict)
    bits: int = 32  # of a weight in its file, where that makes a row smaller


def serving_part(snapshot: Snapshot, bits: int = 32) -> ServingPart:
    """The weights of a part, full or a delta, derived where the optimizer keeps something else;
    `bits` of each in its file."""
    found = weights(snapshot)
    return ServingPart(
        model=snapshot.spec.name,
        digest=snapshot.spec.digest,
        shard=snapshot.shard,
        slots=snapshot.slots,
        progress=snapshot.progress,
        tables=found.tables,
        dense=found.dense,
        parent=snapshot.parent,
        tombstones=dict(snapshot.tombstones),
        bits=bits,
    )


def serving_delta(snapshot: Snapshot, whole: ServingPart) -> ServingPart:
    """What has changed of a full snapshot since its last cut. `whole`: `serving_part` of it."""
    changes = snapshot.changes
    assert changes is not None
    tables = {}
    for name, (keys, rows) in whole.tables.items():
        # Both stand in the order of keys: `whole` is sorted as the columns of a copy are.
        changed = snapshot.tables[name].version > changes.since_version
        tables[name] = (keys[changed], rows[changed])
    return replace(whole, parent=changes.parent, tables=tables, tombstones=dict(changes.tombstones))


def serving_arrays(part: ServingPart) -> tuple[Arrays, dict[str, str]]:
    """(arrays, metadata) of the file of a part."""
    arrays: Arrays = {}
    for name, (keys, rows) in part.tables.items():
        arrays[f"table/{name}/keys"], arrays[f"table/{name}/weights"] = keys, rows
        if part.bits < 32 and is_smaller(rows.shape[1], part.bits):
            found = scaled(rows, part.bits)
            arrays[f"table/{name}/weights"], arrays[f"table/{name}/scales"] = found
        if part.parent is not None:
            arrays[f"table/{name}/tombstones"] = part.tombstones.get(name, keys[:0])
    arrays |= {f"dense/{name}": array for name, array in part.dense.items()}
    is_scaled = any(name.endswith("/scales") for name in arrays)
    full, delta = (SCALED_FORMAT, SCALED_DELTA_FORMAT) if is_scaled else (FORMAT, DELTA_FORMAT)
    metadata = {
        "format": full if part.parent is None else delta,
        "model": part.model,
        "digest": part.digest,
        "shard": str(part.shard),
        "slots": ranges_of_slots(part.slots),
        "progress": progress_to_json(part.progress),
    }
    if part.parent is not None:
        metadata["parent"] = part.parent
    return arrays, metadata


def from_serving_arrays(
    arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], spec: ModelSpec
) -> ServingPart:
    """The part of a file. ValueError names what is missing, has another format, or does not fit the
    spec."""
    kind = metadata.get("format")
    if kind not in _FORMATS:
        known = ", ".join(map(repr, _FORMATS))
        raise ValueError(f"format {kind!r}: this version reads {known}")
    is_delta = kind in _DELTAS
    try:
        part = ServingPart(
            model=metadata["model"],
            digest=metadata["digest"],
            shard=int(metadata["shard"]),
            slots=slots_of_ranges(metadata["slots"]),
            progress=progress_from_json(metadata["progress"]),
            tables={
                t.name: (arrays[f"table/{t.name}/keys"], _weights(arrays, t.name))
                for t in spec.tables
            },
            dense={n: arrays[f"dense/{n}"] for n in spec.dense.shapes if f"dense/{n}" in arrays},
            parent=metadata["parent"] if is_delta else None,
            tombstones={t.name: arrays[f"table/{t.name}/tombstones"] for t in spec.tables}
            if is_delta
            else {},
            bits=_bits(arrays),
        )
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is missing") from error
    check(part, spec)
    return part


def _weights(arrays: Mapping[str, npt.NDArray[Any]], table: str) -> Rows:
    """(n, dim) float32."""
    weights, scales = arrays[f"table/{table}/weights"], arrays.get(f"table/{table}/scales")
    try:
        return weights if scales is None else widened(weights, scales)
    except ValueError as error:
        raise ValueError(f"table {table!r}: {error}") from error


def _bits(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """Of a weight: what `serving_part` was given."""
    return min(
        (8 * a.itemsize for name, a in arrays.items() if name.endswith("/weights")), default=32
    )


def check(part: ServingPart, spec: ModelSpec) -> None:
    """ValueError where a part is of another definition, or its arrays do not fit the spec."""
    if (part.model, part.digest) != (spec.name, spec.digest):
        raise ValueError(
            f"it is of {part.model!r} {part.digest}, expected {spec.name!r} {spec.digest}"
        )
    for table in spec.tables:
        keys, rows = part.tables[table.name]
        shape = (len(keys), table.dim)
        if rows.shape != shape or rows.dtype != np.float32:
            found = f"{rows.dtype} {rows.shape}"
            raise ValueError(f"table {table.name!r}: weights are {found}, expected float32 {shape}")
        gone = part.tombstones.get(table.name, keys[:0])
        for what, some in (("keys", keys), ("tombstones", gone)):
            if some.dtype != np.uint64 or some.ndim != 1 or (some[1:] <= some[:-1]).any():
                raise ValueError(f"table {table.name!r}: {what} are not uint64, unique and rising")
        if not np.isin(slot_of(keys), part.slots).all():
            raise ValueError(f"table {table.name!r}: holds keys outside its slots")
    for name, array in part.dense.items():
        if array.shape != tuple(spec.dense.shapes[name]) or array.dtype != np.float32:
            raise ValueError(f"dense array {name!r} is {array.dtype} {array.shape}")
