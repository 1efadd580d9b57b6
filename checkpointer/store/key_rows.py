"""What one key has learned, as a checkpoint holds it."""

from typing import NamedTuple

import numpy as np

from checkpointer.store.catalogue import Catalogue
from checkpointer.store.manifest import Manifest
from checkpointer.store.restore import read_snapshot
from paramserver import slot_of
from paramserver.parts import Snapshot, weights


class KeyRow(NamedTuple):
    """`state`: what the optimizer keeps beside the weights. `version`: how many pushes the shard
    had applied when the last one touched the key, and `shard_version` how many at the cut."""

    checkpoint: str  # the one of the chain that holds it
    shard: int
    weights: tuple[float, ...]
    state: tuple[float, ...]
    touched_ms: int
    version: int
    shard_version: int


def row_of(catalogue: Catalogue, manifest: Manifest, table: str, key: int) -> KeyRow | None:
    """None: it has learned nothing, or was evicted. Reads parts of the chain, newest first, until
    one says. Raises Damaged."""
    wanted = np.array([key], np.uint64)
    (slot,) = slot_of(wanted)
    for one in reversed(catalogue.chain(manifest)):
        for part in one.parts:
            snapshot = read_snapshot(catalogue, one, part)
            if slot not in snapshot.slots:
                continue
            at = np.searchsorted(snapshot.tables[table].keys, wanted)[0]
            keys = snapshot.tables[table].keys
            if at < len(keys) and keys[at] == wanted[0]:
                return _told(one.name, snapshot, table, int(at))
            if snapshot.parent is None or key in snapshot.tombstones.get(table, wanted[:0]):
                return None
    return None


def _told(name: str, snapshot: Snapshot, table: str, at: int) -> KeyRow:
    spec = next(t for t in snapshot.spec.tables if t.name == table)
    rows = snapshot.tables[table]
    found = weights(snapshot).tables[table][1][at]
    state: tuple[float, ...] = ()
    if rows.rows.dtype == np.float32:
        state = tuple(float(x) for x in rows.rows[at, spec.dim :])
    return KeyRow(
        name,
        snapshot.shard,
        tuple(float(w) for w in found),
        state,
        int(rows.touched_ms[at]),
        int(rows.version[at]),
        snapshot.progress.version,
    )
