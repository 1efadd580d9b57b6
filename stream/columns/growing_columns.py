"""Columns of entries that come one after the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from stream.kernels import Bools

Entry = TypeVar("Entry")
EntryColumns = Mapping[str, npt.NDArray[Any]]


class GrowingColumns(Generic[Entry]):
    """Entries in order, and what is asked of all of them as columns. An entry is read into them
    once, when they are first asked for behind it: a new one costs as much however many there
    are."""

    def __init__(
        self, read: Callable[[Sequence[Entry]], EntryColumns], entries: Iterable[Entry] = ()
    ) -> None:
        """`read`: columns (n,) of n entries, of no entries too, always of the same dtypes."""
        self.read = read
        self.entries = list(entries)
        self._columns = dict(read(()))
        self._read = 0  # entries that stand in the columns

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, entry: Entry) -> None:
        """The next one."""
        self.entries.append(entry)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Of all entries, (n,): a view, to be read before the next entry comes."""
        if self._read < len(self.entries):
            self._follow()
        return self._columns[name][: len(self.entries)]

    def keep(self, which: Bools) -> None:
        """Only those entries are left, (n,)."""
        self._columns = {name: self.column(name)[which] for name in self._columns}
        self.entries = list(compress(self.entries, which.tolist()))
        self._read = len(self.entries)

    def _follow(self) -> None:
        first, end = self._read, len(self.entries)
        for name, values in self.read(self.entries[first:]).items():
            column = self._columns[name]
            if end > len(column):
                longer = np.empty(max(end, 2 * len(column)), column.dtype)
                longer[:first] = column[:first]
                self._columns[name] = column = longer
            column[first:end] = values
        self._read = end
