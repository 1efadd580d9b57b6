"""Rooms: bytes of a disk, or of memory, that are read and written as an array, and that end with
who made them. What stands there is made again from what lasts (`stored_rows`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from stream.kernels import I64, Bools
from stream.log.rows.storage import Room, RowStorage

#: What comes into memory with a byte of a file that is looked at: Linux maps so much around it.
WINDOW_BYTES = 65_536


class Rooms:
    """Those of one reader. Belongs to one thread; `memory_bytes` may be asked beside."""

    def __init__(self, storage: RowStorage, bytes_max: int) -> None:
        """`bytes_max`: of rooms on disk that stand in memory, beside what is looked at together:
        beyond it they leave."""
        self._storage, self._bytes_max = storage, bytes_max
        self._rooms: list[Room] = []
        self._seen: dict[int, Bools] = {}  # of rooms on disk, by `id`: windows that were looked at
        self._rests = True

    @property
    def memory_bytes(self) -> int:
        """Memory that they take, at most."""
        in_memory = sum(len(one.bytes) for one in list(self._rooms) if not one.on_disk)
        return in_memory + self._mapped

    @property
    def _mapped(self) -> int:
        return WINDOW_BYTES * sum(int(np.count_nonzero(seen)) for seen in [*self._seen.values()])

    def room(self, nbytes: int) -> Room:
        """A new one of zeros. Raises RowsFailed."""
        made = self._storage.room(nbytes)
        self._rooms.append(made)
        if made.on_disk:
            self._seen[id(made)] = np.zeros(-(-nbytes // WINDOW_BYTES), np.bool_)
        return made

    def leave(self, room: Room | None) -> None:
        """It is looked at no more."""
        self._rooms = [one for one in self._rooms if one is not room]
        self._seen.pop(id(room), None)

    def look(self, room: Room | None, places: I64) -> None:
        """These bytes of it, (n,), are looked at next, or were just now."""
        if room is None or not room.on_disk:
            return
        self._seen[id(room)][places // WINDOW_BYTES] = True
        if self._rests and self._mapped > self._bytes_max:
            self._rest()
            self._seen[id(room)][places // WINDOW_BYTES] = True

    def look_through(self, room: Room | None, nbytes: int) -> None:
        """So many bytes of it from its beginning were looked at."""
        self.look(room, np.arange(0, nbytes, WINDOW_BYTES))

    @contextmanager
    def filling(self) -> Iterator[None]:
        """All of them may stand in memory meanwhile, where the kernel has it: most pages would come
        and go with each piece."""
        self._rests = False
        try:
            yield
        finally:
            self._rests = True
            if self._mapped > self._bytes_max:
                self._rest()

    def _rest(self) -> None:
        for room in self._rooms:
            room.rest()
        for seen in self._seen.values():
            seen[:] = False
