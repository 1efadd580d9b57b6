"""Of a part of a checkpoint, the rows of some keys alone: a copy of a state to try something on,
not all of it loaded.

Keys stand rising in a part, so each is found by bisection: of a file that is mapped into memory,
only the pages are read that hold what is asked for.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys
from paramserver.parts.part import from_arrays
from paramserver.parts.safetensors_file import array_views
from paramserver.parts.snapshot import Snapshot
from paramserver.tables import TableRows

_TABLE = "table/"


def touched_part(data: Any, keys: Mapping[str, Keys]) -> Snapshot:
    """The snapshot of a part without any rows but those of `keys` (table -> keys, rising). `data`
    is a buffer with the file's bytes. Tombstones of a delta and sightings are kept whole.
    ValueError if it is no part that can be read."""
    arrays, metadata = array_views(data)
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
