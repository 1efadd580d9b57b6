"""What the follower tells workers: how it follows, and the cut to answer from (X5).

A letter is a pickle, since both processes are forks of one, and nobody else can write to either.
Tables are not in it: it says which of the files that come with it each of their arrays is.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from checkpointer.store import Hold, Manifest
from checkpointer.tables import HEAD, Initial, ModelVersion, TableVersion
from checkpointer.workers.epochs import epoch_of

NO_FILE = -1
#: The file that an array stands in.
FileOf = Callable[[npt.NDArray[Any]], int]


class FollowerState(NamedTuple):
    """What `Replica.describe` tells beside the cut."""

    model: str
    hold: Hold
    refused: Mapping[str, tuple[str, int]]
    fault: str
    failing_s: float


class SharedTable(NamedTuple):
    """A `TableVersion` whose arrays are numbers of files."""

    number: int
    rows: int
    dim: int
    not_finite: int
    secret: int
    initial: Initial
    cells: int
    old: int
    words: int


class SharedCut(NamedTuple):
    """A checkpoint, ready to be mapped. `counts`: the file of totals of counters (J5)."""

    epoch: int
    manifest: Manifest
    tables: Mapping[str, SharedTable]
    dense: Mapping[str, npt.NDArray[np.float32]]
    counts: int = NO_FILE


class CutLetter(NamedTuple):
    """`cut`: None = there is none, or it was told already."""

    state: FollowerState
    cut: SharedCut | None = None

    def encode(self) -> bytes:
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)


def decode_letter(data: bytes) -> CutLetter:
    """Only of a letter from a process of one's own."""
    letter = pickle.loads(data)
    assert isinstance(letter, CutLetter)
    return letter


def share(
    manifest: Manifest, weights: ModelVersion, generation: int, file_of: FileOf
) -> tuple[SharedCut, list[int]]:
    """A cut whose arrays stand in files, and those files in the order in which it numbers them."""
    files: list[int] = []

    def numbered(array: npt.NDArray[Any]) -> int:
        if not array.size:
            return NO_FILE
        files.append(file_of(array))
        return len(files) - 1

    tables = {
        name: SharedTable(
            table.number, table.rows, table.dim, table.not_finite, int(table.secret),
            table.initial, numbered(table.cells), numbered(table.old), numbered(table.words),
        )
        for name, table in weights.tables.items()
    }  # fmt: skip
    number = max((table.number for table in tables.values()), default=0)
    return SharedCut(epoch_of(generation, number), manifest, tables, weights.dense), files


def mapped(cut: SharedCut, arrays: Sequence[npt.NDArray[np.uint8]]) -> ModelVersion:
    """The weights of a cut; `arrays`: the files that came with it, mapped."""

    def version(table: SharedTable) -> TableVersion:
        words = arrays[table.words]
        cells, old = (
            np.zeros(0, np.uint64) if at == NO_FILE else arrays[at].view(np.uint64)
            for at in (table.cells, table.old)
        )
        shape = (-1, HEAD + table.dim)
        return TableVersion(
            table.number, table.rows, table.dim, table.not_finite, np.uint64(table.secret),
            table.initial, cells, old,
            words.view(np.uint32).reshape(shape), words.view(np.float32).reshape(shape),
        )  # fmt: skip

    return ModelVersion({n: version(table) for n, table in cut.tables.items()}, dict(cut.dense))
