"""A part of a checkpoint as the bytes of one safetensors file, and back."""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from paramserver.parts.part import from_arrays, to_arrays
from paramserver.parts.snapshot import Snapshot
from paramserver.ports import PartInfo

_READABLE = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
}
_DTYPES = {
    "<f4": "F32",
    "<i8": "I64",
    "<i2": "I16",
    "|i1": "I8",
    "<u4": "U32",
    "<u8": "U64",
    "|u1": "U8",
}


def part_name(shard: int) -> str:
    """The file of a shard's part, in the folder of its checkpoint."""
    return f"part-{shard}.safetensors"


def encode_part(snapshot: Snapshot) -> bytes:
    """The bytes of a part: `part_pieces` in one piece."""
    return b"".join(part_pieces(snapshot))


def part_pieces(snapshot: Snapshot) -> list[memoryview]:
    """A part as pieces to be written one after another, its arrays uncopied.

    The same state gives the same bytes. (The library's own writer puts metadata in a random order.)
    """
    return pieces_of(*to_arrays(snapshot))


def pieces_of(arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str]) -> list[memoryview]:
    """A safetensors file as pieces, its arrays uncopied, the widest numbers first so that all stand
    aligned."""
    header: dict[str, object] = {"__metadata__": metadata}
    body: list[memoryview] = []
    end = 0
    for name in sorted(
        arrays, key=lambda name: (-arrays[name].itemsize, name)
    ):  # so that all stand aligned
        array = np.ascontiguousarray(arrays[name])
        header[name] = {
            "dtype": _DTYPES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        body.append(array.reshape(-1).view(np.uint8).data)
        end += array.nbytes
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(struct.pack("<Q", len(text)) + text), *body]


def decode_part(data: bytes) -> Snapshot:
    """The snapshot in a part's bytes. ValueError if they are no safetensors file, or not of a
    part we can read."""
    try:
        arrays = load(data)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file: {error}") from error
    return from_arrays(arrays, _metadata(data))


def view_part(data: bytes) -> Snapshot:
    """`decode_part` for who takes what it needs at once: the arrays are views of the bytes, which
    stay as long as one of them does. Nothing is copied, and no other thread waits meanwhile."""
    return from_arrays(*array_views(data))


def array_views(data: Any) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """(arrays, metadata) of a safetensors file, the arrays as views of the buffer."""
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(bytes(data[8 : 8 + size]))
        metadata: dict[str, str] = header.pop("__metadata__", {})
        arrays = {}
        for name, told in header.items():
            first, end = told["data_offsets"]
            dtype = np.dtype(_READABLE[told["dtype"]])
            array = np.frombuffer(data, dtype, (end - first) // dtype.itemsize, 8 + size + first)
            arrays[name] = array.reshape(told["shape"])
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a safetensors file that can be read in place: {error!r}") from error
    return arrays, metadata


def part_info(snapshot: Snapshot, url: str, data: bytes) -> PartInfo:
    """What is said of a part whose file stands at `url`."""
    return pieces_info(snapshot, url, [memoryview(data)])


def pieces_info(snapshot: Snapshot, url: str, pieces: Iterable[memoryview]) -> PartInfo:
    """`part_info` of a part that is kept in pieces."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return PartInfo(
        shard=snapshot.shard,
        url=url,
        sha256=digest.hexdigest(),
        bytes=size,
        rows=sum(len(items.keys) for items in snapshot.tables.values()),
        tombstones=sum(len(keys) for keys in snapshot.tombstones.values()),
        kind="full" if snapshot.parent is None else "delta",
        progress=snapshot.progress,
    )


def _metadata(data: bytes) -> dict[str, str]:
    """The text in a safetensors header: 8 bytes of length, then JSON with `__metadata__`."""
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
