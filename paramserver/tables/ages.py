"""How many rows were last touched when, in steps of a few seconds of event time: what eviction
decides by.

A row whose touch lies before the horizon is dead, whether or not its memory has been taken back. So
what is evicted is a function of the pushes applied, never of how far a sweep has come.
"""

import numpy as np
import numpy.typing as npt

from paramserver.tables.row_header import RowNumbers, Words
from stream.kernels import kernel

#: Seconds a step; a power of two.
STEP_S = 8
_SHIFT = 3

Counts = npt.NDArray[np.int64]


@kernel
def _moved(words: Words, rows: RowNumbers, counts: Counts, base: int, step: int) -> int:
    """Count the rows at this step instead of at their own. Returns how many were given."""
    found = 0
    for i in range(len(rows)):
        row = rows[i]
        if row >= 0:
            own = np.int64(words[row, 3]) >> 3
            counts[(step if step > own else own) - base] += 1
            counts[own - base] -= 1
            found += 1
    return found


class Ages:
    """Living rows by step of their last touch."""

    def __init__(self) -> None:
        self.horizon_s = 0
        self.live = 0
        self._base = 0
        self._counts: Counts = np.zeros(1, np.int64)

    def enter(self, touched_s: npt.NDArray[np.int64]) -> None:
        """Count new rows, all of them alive. Loaded ones may be older than any before."""
        if not len(touched_s):
            return
        steps = touched_s >> _SHIFT
        self._cover(int(steps.min()), int(steps.max()))
        np.add.at(self._counts, steps - self._base, 1)
        self.live += len(steps)

    def leave(self, touched_s: npt.NDArray[np.int64]) -> None:
        """Living rows are taken away."""
        np.subtract.at(self._counts, (touched_s >> _SHIFT) - self._base, 1)
        self.live -= len(touched_s)

    def touch(self, words: Words, rows: RowNumbers, now_s: int) -> None:
        """Before living rows (>= 0) are stamped with `now_s`, or with what they have, if that is
        later."""
        self._cover(now_s >> _SHIFT, now_s >> _SHIFT)
        _moved(words, rows, self._counts, self._base, now_s >> _SHIFT)

    def raise_horizon(self, horizon_s: int) -> bool:
        """Rows touched before it die; whole steps do. True if any did or might have."""
        horizon_s -= horizon_s % STEP_S
        if horizon_s <= self.horizon_s:
            return False
        self.horizon_s = horizon_s
        cut = min(max((horizon_s >> _SHIFT) - self._base, 0), len(self._counts))
        died = int(self._counts[:cut].sum())
        self.live -= died
        if cut and self.live == 0:
            self._base, self._counts = horizon_s >> _SHIFT, np.zeros(1, np.int64)
        elif cut:
            self._base, self._counts = self._base + cut, self._counts[cut:]
        return died > 0

    def horizon_for(self, live: int, now_s: int) -> int:
        """The lowest horizon that leaves at most `live` rows, or the present step: what is new
        is not evicted."""
        left = self.live - np.cumsum(self._counts)
        at = int(np.argmax(left <= live)) if (left <= live).any() else len(left)
        return min(self._base + at + 1, now_s >> _SHIFT) * STEP_S

    def _cover(self, first: int, last: int) -> None:
        """Have counts for these steps."""
        size = len(self._counts)
        if self.live == 0 and not self._counts.any():
            self._base, self._counts = first, np.zeros(last - first + 1, np.int64)
        elif first < self._base or last >= self._base + size:
            base, end = min(first, self._base), max(last + 1, self._base + size)
            counts = np.zeros(
                max(end - base, 2 * size if last >= self._base + size else 0), np.int64
            )
            counts[self._base - base : self._base - base + size] = self._counts
            self._base, self._counts = base, counts

    def validate(self, touched_s: npt.NDArray[np.int64]) -> None:
        """AssertionError unless exactly these living rows are counted."""
        assert self.live == len(touched_s) == self._counts.sum()
        assert (touched_s >= self.horizon_s).all()
        steps, counts = np.unique(touched_s >> _SHIFT, return_counts=True)
        assert np.array_equal(self._counts[steps - self._base], counts)
