"""A 2-D array that grows without copying: where the system can, its pages are moved and not its
bytes (mremap).

A table of millions of rows would otherwise stop its shard for seconds each time it doubles, mostly
in page faults, and hold both copies meanwhile. New rows hold anything; their memory is taken when
they are first written.

A mapping is whole large pages (2 MB). Only then does Linux place it, and move it, at a multiple of
their size: else half of it would stand on small pages, and what moves would be split into them. On
small pages, rows drawn from all of a large table cost a walk through the page table each: of 10
million rows, 45% more CPU time for a pull and its push.
"""

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE_PAGE_BYTES = 1 << 21
#: Below this an array is plain memory and growing copies it: a mapping is whole large pages.
MAPPED_BYTES_MIN = LARGE_PAGE_BYTES


class Arena:
    """`array` is (rows, columns). Nobody else keeps a view of it: growing moves it."""

    def __init__(self, rows: int, columns: int, dtype: npt.DTypeLike) -> None:
        self._columns, self._dtype = columns, np.dtype(dtype)
        self._memory: mmap.mmap | None = None
        self.array: npt.NDArray[Any] = self._allocate(rows)

    @property
    def mapped(self) -> bool:
        """Whether the memory is a mapping; a new one holds zeros."""
        return self._memory is not None

    def grow(self, rows: int) -> None:
        """Have room for `rows`, keeping the present ones. MemoryError leaves everything as it
        was."""
        if rows <= len(self.array):
            return
        if self._memory is None or not self._moved(rows):
            old, memory = self.array, self._memory
            try:
                new = self._allocate(rows)
            except BaseException:
                self._memory = memory
                raise
            new[: len(old)] = old
            self.array = new

    def _nbytes(self, rows: int) -> int:
        return rows * self._columns * self._dtype.itemsize

    def _mapped_nbytes(self, rows: int) -> int:
        return -(-self._nbytes(rows) // LARGE_PAGE_BYTES) * LARGE_PAGE_BYTES

    def _allocate(self, rows: int) -> npt.NDArray[Any]:
        """New memory, mapped and with large pages where that pays. Sets `_memory`."""
        nbytes = self._nbytes(rows)
        if nbytes < MAPPED_BYTES_MIN or not hasattr(mmap, "MAP_ANONYMOUS"):
            self._memory = None
            return np.empty((rows, self._columns), self._dtype)
        try:
            # Private: a shared mapping that is extended has nothing behind its new pages.
            self._memory = mmap.mmap(
                -1, self._mapped_nbytes(rows), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        except OSError as error:
            raise MemoryError(f"{nbytes} bytes for {rows} rows: {error}") from error
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        return self._view(self._memory, rows)

    def _moved(self, rows: int) -> bool:
        """Extend the mapping where it is or elsewhere; False where the system cannot, and the
        caller copies."""
        memory, held = self._memory, len(self.array)
        assert memory is not None
        self.array = np.empty((0, self._columns), self._dtype)  # a mapping with views does not move
        try:
            memory.resize(self._mapped_nbytes(rows))
            held = rows
        except (OSError, SystemError):
            return False
        finally:
            self.array = self._view(memory, held)
        return True

    def _view(self, memory: mmap.mmap, rows: int) -> npt.NDArray[Any]:
        return np.frombuffer(memory, self._dtype, rows * self._columns).reshape(rows, self._columns)


def zeroed(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """(count,) zeros, with large pages where that pays: fewer misses of the page table, and
    freed in no time."""
    arena = Arena(count, 1, dtype)
    if not arena.mapped:
        arena.array[:] = 0
    return arena.array[:, 0]
