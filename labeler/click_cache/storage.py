"""Where a labeler's local copy lies (C4): values by key, in the order of their keys.

`MemoryPages` holds them in this process, `labeler.click_cache.rocks.RocksPages` on disk; one
contract suite runs on both. A copy is a cache: whatever is missing is read again from the log.
"""

from typing import Protocol


class PagesFailed(Exception):
    """What the disk said. The copy is of no more use to this process: it goes on without, from
    the log."""


class Pages(Protocol):
    """Raises PagesFailed. Belongs to one thread at a time."""

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value under a key, in the place of the one before."""

    def get(self, key: bytes) -> bytes | None:
        """The value, None where there is no such key."""

    def delete(self, key: bytes) -> None:
        """Nothing happens where there is no such key."""

    def keys(self, prefix: bytes) -> list[bytes]:
        """All that begin so, rising."""

    def close(self) -> None:
        """Let go of it; nothing is asked of it afterwards."""


class MemoryPages:
    """See `Pages`. Tests and the simulator keep one over the restarts of a labeler, as a disk
    does."""

    def __init__(self, pages: dict[bytes, bytes] | None = None) -> None:
        self.pages = {} if pages is None else pages

    def put(self, key: bytes, value: bytes) -> None:
        self.pages[key] = value

    def get(self, key: bytes) -> bytes | None:
        return self.pages.get(key)

    def delete(self, key: bytes) -> None:
        self.pages.pop(key, None)

    def keys(self, prefix: bytes) -> list[bytes]:
        return sorted(key for key in self.pages if key.startswith(prefix))

    def close(self) -> None:
        pass
