"""Of a part of a checkpoint, the rows of some keys alone: a copy of a state to try something on, not all of it loaded.

Keys stand rising in a part, so each is found by bisection: of a file that is mapped into memory, only the pages are
read that hold what is asked for.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys
from paramserver.part import from_arrays
from paramserver.state import Snapshot
from paramserver.table import TableRows

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U64": "<u8", "U32": "<u4", "U16": "<u2",
    "U8": "|u1",
}  # fmt: skip
_TABLE = "table/"


def touched_part(data: Any, keys: Mapping[str, Keys]) -> Snapshot:
    """The snapshot of a part without any rows but those of `keys` (table -> keys, rising). `data` is a buffer with the
    file's bytes. Tombstones of a delta and sightings are kept whole. ValueError if it is no part that can be read."""
    arrays, metadata = _arrays(data)
    chosen = {name: array for name, array in arrays.items() if not name.startswith(_TABLE)}
    for name in [n for n in arrays if n.startswith(_TABLE) and n.endswith("/keys")]:
        table = name[len(_TABLE) : -len("/keys")]
        there = arrays[name]
        at = _positions(there, keys.get(table, there[:0]))
        by_row = {f"{_TABLE}{table}/{column}" for column in TableRows._fields}
        for column in [n for n in arrays if n.startswith(f"{_TABLE}{table}/")]:
            chosen[column] = arrays[column][at] if column in by_row else arrays[column]
    return from_arrays({name: np.array(array) for name, array in chosen.items()}, metadata)


def _positions(there: Keys, wanted: Keys) -> npt.NDArray[np.intp]:
    """Where the wanted keys stand that are there."""
    at = np.searchsorted(there, wanted)
    inside = at < len(there)
    at = at[inside]
    found: npt.NDArray[np.intp] = at[there[at] == wanted[inside]]
    return found


def _arrays(data: Any) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """(arrays, metadata) of a safetensors file, the arrays as views of the buffer."""
    try:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(bytes(data[8 : 8 + size]))
        metadata: dict[str, str] = header.pop("__metadata__", {})
        arrays = {}
        for name, told in header.items():
            first, end = told["data_offsets"]
            dtype = np.dtype(_DTYPES[told["dtype"]])
            array = np.frombuffer(data, dtype, (end - first) // dtype.itemsize, 8 + size + first)
            arrays[name] = array.reshape(told["shape"])
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a safetensors file that can be read in place: {error!r}") from error
    return arrays, metadata
