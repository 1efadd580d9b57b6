"""Pushes and pulls too large for one message: their parts, those of a push kept until the last
arrives (S4).

A learner has one push per shard in flight, so a newer push of an epoch replaces what an older one
left behind. Parts are dropped with their epoch's fence, and together they hold at most `bytes_max`.
A push that is larger than that by itself would never fit: it is not kept, and ends as an empty one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from paramserver.messages import Epoch, Keys, PushRequest, Rows

Tables = dict[str, tuple[Keys, Rows]]


class StageFull(Exception):
    """No room for this part now; send it again later."""


class StageIncomplete(Exception):
    """Parts of this push are missing here (dropped, or a restart): send all of them again."""


@dataclass
class _Push:
    number: int
    parts: dict[int, Tables] = field(default_factory=dict)
    too_large: bool = False

    @property
    def nbytes(self) -> int:
        return sum(k.nbytes + r.nbytes for part in self.parts.values() for k, r in part.values())


class Staging:
    """The staged parts of one shard, keyed by (model, epoch) and the push's number."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._pushes: dict[tuple[str, Epoch], _Push] = {}

    @property
    def nbytes(self) -> int:
        return sum(push.nbytes for push in self._pushes.values())

    def add(self, model: str, epoch: Epoch, push: int, part: int, tables: Tables) -> None:
        """Keep a part; the same again changes nothing. Raises StageFull above `bytes_max`."""
        staged = self._pushes.get((model, epoch))
        if staged is not None and push < staged.number:
            return  # overtaken by a later push: nobody waits for it
        if staged is None or push > staged.number:
            staged = self._pushes[model, epoch] = _Push(push)
        if part in staged.parts or staged.too_large:
            return
        size = sum(keys.nbytes + rows.nbytes for keys, rows in tables.values())
        if staged.nbytes + size > self.bytes_max:
            staged.too_large = True
            staged.parts.clear()
            return
        if self.nbytes + size > self.bytes_max:
            raise StageFull(
                f"{self.nbytes + size} bytes of unfinished pushes, at most {self.bytes_max} are "
                f"kept"
            )
        staged.parts[part] = tables

    def complete(self, request: PushRequest, push: int, staged: int) -> tuple[PushRequest, str]:
        """The whole push, its own blocks last, and why it cannot be applied, or "".

        Raises StageIncomplete unless exactly `staged` parts are here."""
        found = self._pushes.get((request.model, request.epoch))
        if found is not None and found.number == push and found.too_large:
            del self._pushes[request.model, request.epoch]
            return request, f"the push is over the limit: staged_bytes_max = {self.bytes_max}"
        if found is None or found.number != push or sorted(found.parts) != list(range(staged)):
            raise StageIncomplete(
                f"push {push} of {request.epoch}: {staged} parts were sent ahead, not all are here"
            )
        parts = [found.parts[n] for n in range(staged)]
        parts.append({name: (keys, request.gradients[name]) for name, keys in request.keys.items()})
        keys: dict[str, Keys] = {}
        gradients: dict[str, Rows] = {}
        for name in dict.fromkeys(name for part in parts for name in part):
            keys[name] = np.concatenate([part[name][0] for part in parts if name in part])
            gradients[name] = np.concatenate([part[name][1] for part in parts if name in part])
        del self._pushes[request.model, request.epoch]
        return replace(request, keys=keys, gradients=gradients), ""

    def keep(self, epochs: Collection[Epoch]) -> None:
        """Drop the parts of all other epochs: they are fenced."""
        for key in [key for key in self._pushes if key[1] not in epochs]:
            del self._pushes[key]


def split(request: PushRequest, bytes_max: int) -> tuple[list[Tables], PushRequest]:
    """(parts to stage in order, the push that completes them), each part with at most `bytes_max`
    of keys and rows.

    A push that fits is not split. Pieces of one table are contiguous and stand in different parts,
    so keys stay sorted when they are put together again. Raises ValueError for a row that does not
    fit by itself.
    """
    if _nbytes(request) <= bytes_max:
        return [], request
    parts: list[Tables] = []
    room = 0
    for name, keys in request.keys.items():
        rows = request.gradients[name]
        row_bytes = keys.itemsize + rows.itemsize * int(np.prod(rows.shape[1:]))
        if row_bytes > bytes_max:
            raise ValueError(
                f"table {name!r}: a row of {row_bytes} bytes is beyond the largest message, "
                f"{bytes_max}"
            )
        step = bytes_max // row_bytes
        for at in range(0, len(keys), step):
            piece = (keys[at : at + step], rows[at : at + step])
            size = len(piece[0]) * row_bytes
            if size > room:
                parts.append({})
                room = bytes_max
            parts[-1][name] = piece
            room -= size
    empty = {name: keys[:0] for name, keys in request.keys.items()}
    return parts, replace(
        request, keys=empty, gradients={n: request.gradients[n][:0] for n in empty}
    )


def _nbytes(request: PushRequest) -> int:
    rows = [*request.gradients.values(), *request.dense.values()]
    return sum(keys.nbytes for keys in request.keys.values()) + sum(array.nbytes for array in rows)


def slices(keys: Mapping[str, Keys], rows_max: int) -> list[dict[str, Keys]]:
    """Keys in pieces of at most `rows_max`, in order; tables without keys ride with the first."""
    pieces: list[dict[str, Keys]] = [
        {name: array for name, array in keys.items() if not len(array)}
    ]
    room = rows_max
    for name, array in keys.items():
        for at in range(0, len(array), rows_max):
            piece = array[at : at + rows_max]
            if len(piece) > room:
                pieces.append({})
                room = rows_max
            pieces[-1][name] = piece
            room -= len(piece)
    return pieces
