"""The store of checkpoints, and the disk of a labeler's local copy: away, or full, for a while.

Away, every call fails; full, every call that writes. A labeler's copy fails as a full disk does
(C4). What is done about it is the product's: here calls only raise.
"""

import errno
from collections.abc import Callable, Sequence

from sim_network import World

from checkpointer.store import StoreFault
from checkpointer.store.files import MemoryFiles
from stream.log.rows import MemoryStorage, RowsFailed


class Store(MemoryFiles):
    """Files in memory that fail when a fault says so. What looks at them from outside of the world
    reads `contents`."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.away_until_ms = self.full_until_ms = 0
        self.failures = 0

    def mend(self) -> None:
        self.away_until_ms = self.full_until_ms = 0

    def read(self, path: str) -> bytes:
        self._answer()
        return super().read(path)

    def names(self, path: str) -> list[str]:
        self._answer()
        return super().names(path)

    def delete(self, path: str) -> None:
        self._answer()
        super().delete(path)

    def write(self, path: str, data: bytes) -> None:
        self._answer()
        if self.world.time.now_ms < self.full_until_ms:
            self.failures += 1
            raise OSError(errno.ENOSPC, "No space left on device", path)
        super().write(path, data)

    def _answer(self) -> None:
        if self.world.time.now_ms < self.away_until_ms:
            self.failures += 1
            raise StoreFault("the store does not answer")


class FullPages(MemoryStorage):
    """A local copy on a disk that is full now and then."""

    def __init__(self, pages: dict[bytes, bytes], full: Callable[[], bool]) -> None:
        super().__init__(pages)
        self._full = full

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        if self._full() and any(value is not None for value in values):
            raise RowsFailed("no space left on device")
        super().write(keys, values)
