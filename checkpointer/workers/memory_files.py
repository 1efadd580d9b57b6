"""Tables in files without a name (`memfd_create`, Linux): the follower writes them, and workers
map them for reading (shell).

A file lives for as long as somebody has it open or mapped, whoever made it and however that one
ended. Its inode number tells a worker whether it has mapped it already.
"""

import mmap
import os
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpointer.workers.epochs import Epochs

Bytes = npt.NDArray[np.uint8]


def memory_file(data: bytes) -> int:
    """A descriptor of a file with this in it, which the caller closes."""
    file = os.memfd_create("everspun", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    except BaseException:
        os.close(file)
        raise
    return file


def content_of(file: int) -> bytes:
    """What such a file holds."""
    return os.pread(file, os.fstat(file).st_size, 0)


class TableFiles:
    """The writer's side: arrays, and the files that they stand in."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}  # by address

    def allocate(self, nbytes: int) -> Bytes:
        """(nbytes,) of zeros, taken only where they are written."""
        file = os.memfd_create("everspun tables", os.MFD_CLOEXEC)
        os.ftruncate(file, nbytes)
        mapped = mmap.mmap(file, nbytes)
        array = np.frombuffer(mapped, np.uint8)
        address = array.ctypes.data
        self._files[address] = file
        weakref.finalize(mapped, self._forget, address, file)
        return array

    def file_of(self, array: npt.NDArray[Any]) -> int:
        """The descriptor of the file that this array, a whole one, stands in; it stays ours."""
        return self._files[array.ctypes.data]

    def _forget(self, address: int, file: int) -> None:
        if self._files.get(address) == file:
            del self._files[address]
        os.close(file)


class SharedMemory:
    """Implements `checkpointer.tables.TableMemory` for the tables of one generation."""

    def __init__(self, files: TableFiles, epochs: Epochs, generation: int) -> None:
        self._files, self._epochs, self.generation = files, epochs, generation

    def allocate(self, nbytes: int) -> Bytes:
        return self._files.allocate(nbytes)

    def oldest_read(self) -> int:
        return self._epochs.oldest(self.generation)


class _Mapped:
    """Pages of a file that this process can only read. To numpy they look as if they could be
    written, as kernels are compiled for such arrays; who tried would end by SIGSEGV."""

    def __init__(self, file: int) -> None:
        size = os.fstat(file).st_size
        self._pages = mmap.mmap(file, size, prot=mmap.PROT_READ)
        address = np.frombuffer(self._pages, np.uint8).ctypes.data
        self.__array_interface__ = {
            "version": 3, "typestr": "|u1", "shape": (size,), "data": (address, False)
        }  # fmt: skip


class MappedFiles:
    """The reader's side: each file is mapped once, for as long as an array of it is held."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[int, _Mapped] = weakref.WeakValueDictionary()

    def array(self, file: int) -> Bytes:
        """All of a file, not empty; the descriptor stays the caller's."""
        inode = os.fstat(file).st_ino
        mapped = self._known.get(inode)
        if mapped is None:
            mapped = self._known[inode] = _Mapped(file)
        return np.asarray(mapped)
