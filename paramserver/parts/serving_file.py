"""What replicas read of a shard's cut, as the bytes of safetensors files, and back.

A cut of a shard has one such file, or two: the delta upon its last cut, if it knows what changed
since, and, of a full part, all weights. So who holds the cut before never reads a full one.
"""

import hashlib
from typing import Any, NamedTuple

from paramserver.messages import ModelSpec
from paramserver.parts.replica_part import (
    ServingPart,
    from_serving_arrays,
    serving_arrays,
    serving_delta,
    serving_part,
)
from paramserver.parts.safetensors_file import array_views, pieces_of
from paramserver.parts.snapshot import Snapshot
from paramserver.ports import ServingFile


class EncodedServing(NamedTuple):
    """A file to be written, in pieces one after another, and what is said of it."""

    file: ServingFile
    pieces: list[memoryview]


def serving_name(shard: int, is_delta: bool) -> str:
    """The file of a shard's weights, in the folder of its checkpoint."""
    return f"serving-{'delta-' if is_delta else ''}{shard}.safetensors"


def serving_files(snapshot: Snapshot, bits: int = 32) -> list[EncodedServing]:
    """All files that replicas read of a shard's cut, `bits` a weight: 32, 16 or 8."""
    parts = [serving_part(snapshot, bits)]
    if snapshot.changes is not None:
        parts.append(serving_delta(snapshot, parts[0]))
    return [encode_serving(part) for part in parts]


def encode_serving(part: ServingPart) -> EncodedServing:
    """The same part gives the same bytes."""
    pieces = pieces_of(*serving_arrays(part))
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    file = ServingFile(
        path=serving_name(part.shard, part.parent is not None),
        sha256=digest.hexdigest(),
        bytes=size,
        rows=sum(len(keys) for keys, _ in part.tables.values()),
        tombstones=sum(len(keys) for keys in part.tombstones.values()),
        parent=part.parent or "",
    )
    return EncodedServing(file, pieces)


def decode_serving(data: Any, spec: ModelSpec) -> ServingPart:
    """The part in a file's bytes, its arrays views of them. ValueError if they are none, or of
    another definition than `spec`."""
    return from_serving_arrays(*array_views(data), spec)
