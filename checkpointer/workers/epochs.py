"""Which versions of shared tables somebody may still read: the core of X5.

Epoch-based reclamation (K. Fraser, Practical lock-freedom, PhD thesis, Cambridge 2004): each reader
states in a word of its own the oldest epoch that it may still read; the writer uses no place again
that an epoch from there on can see. An epoch is one 64-bit number, so it is read and written whole:
the *generation* of the tables (new ones whenever a base is loaded beside those that are held), and
the number of the version in them. A reader at an earlier generation may have been told of any
version of a later one, and not have heard it yet.

A reader's word only rises while it lives. It is READS_ANY from before the reader asks for its first
version until it has let go of all others, and READS_NONE once it has certainly ended.
"""

import weakref
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from checkpointer.tables import VERSION_MAX, TableVersion

READS_ANY, READS_NONE = 0, 1 << 62
_NUMBER_BITS = 31


def epoch_of(generation: int, number: int) -> int:
    """Epochs are ordered by generation, then by version. `generation` from 1 on."""
    return generation << _NUMBER_BITS | number


class Epochs:
    """(readers,) int64, the words of all readers, wherever they stand."""

    def __init__(self, words: npt.NDArray[np.int64]) -> None:
        self._words = words

    def enter(self, reader: int) -> None:
        """From now on it may read whatever it is told of. Before it asks for anything."""
        self._words[reader] = READS_ANY

    def rise(self, reader: int, epoch: int) -> None:
        """It reads nothing below this epoch any more. An epoch below its own changes nothing."""
        if epoch > self._words[reader]:
            self._words[reader] = epoch

    def leave(self, reader: int) -> None:
        """It has ended."""
        self._words[reader] = READS_NONE

    def oldest(self, generation: int) -> int:
        """The lowest number of a version of these tables that may be read; VERSION_MAX = none."""
        least = int(self._words.min(initial=READS_NONE))
        number = least - epoch_of(generation, 0)
        return min(max(number, 0), VERSION_MAX)


class HeldVersions:
    """A reader's side: what it was told of and has not let go of yet."""

    def __init__(self) -> None:
        self._held: dict[int, list[weakref.ref[TableVersion]]] = {}
        self._newest = READS_ANY

    def take(self, epoch: int, tables: Iterable[TableVersion]) -> None:
        """Told of a cut. Of two cuts the one with the higher epoch was told of later."""
        self._held.setdefault(epoch, []).extend(weakref.ref(table) for table in tables)
        self._newest = max(self._newest, epoch)

    def oldest(self) -> int:
        """The lowest epoch that is read still: of those that nobody here holds any more, none."""
        for epoch in list(self._held):
            if epoch != self._newest and all(table() is None for table in self._held[epoch]):
                del self._held[epoch]
        return min(self._held, default=self._newest)
