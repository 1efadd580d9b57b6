"""Where rows by key lie: values by key, in the order of their keys.

`MemoryStorage` holds them in this process, `stream.log.rows.rocks.RocksStorage` on disk; one
contract suite runs on both. Whatever lies there stands in the log too: what is lost or damaged is
read again.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

import numpy as np

from stream.kernels import Bytes


class RowsFailed(Exception):
    """What the disk said. What lies there is of no more use to this process: it is emptied, and
    read again from the log."""


class Room:
    """Bytes, zeros at first, that are read and written as an array; nobody finds them again.
    These are in memory."""

    on_disk = False

    def __init__(self, nbytes: int) -> None:
        self.bytes: Bytes = np.zeros(nbytes, np.uint8)

    def rest(self) -> None:
        """What of a disk stands in memory may leave it."""


class RowStorage(Protocol):
    """Raises RowsFailed. One thread writes at a time; others may `get`."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, None where there is none."""

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """All of it or, after a crash, nothing; None deletes. Of a key that is there twice the
        last value counts."""

    def items(self, prefix: bytes) -> tuple[list[bytes], list[bytes]]:
        """Keys that begin so, rising, and their values."""

    def keys(self, prefix: bytes) -> list[bytes]:
        """The same without values."""

    def count(self) -> int:
        """How many there are, about."""

    def room(self, nbytes: int) -> Room:
        """So many bytes beside the rows, until this process ends or lets go of them."""

    def clear(self) -> None:
        """Delete everything."""

    def close(self) -> None:
        """Let go of it; nothing is asked of it afterwards."""


class MemoryStorage:
    """See `RowStorage`. Tests and the simulator keep one over the restarts of a process, as a disk
    does."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self.rows = {} if rows is None else rows

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def write(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        for key, value in zip(keys, values, strict=True):
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def items(self, prefix: bytes) -> tuple[list[bytes], list[bytes]]:
        keys = self.keys(prefix)
        return keys, [self.rows[key] for key in keys]

    def keys(self, prefix: bytes) -> list[bytes]:
        found = sorted(key for key in self.rows if key >= prefix)
        return list(takewhile(lambda key: key.startswith(prefix), found))

    def count(self) -> int:
        return len(self.rows)

    def room(self, nbytes: int) -> Room:
        return Room(nbytes)

    def clear(self) -> None:
        self.rows.clear()

    def close(self) -> None:
        pass
