"""The totals of one thing that is counted, by key (J1, J3)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream.columns.counters.fading import Fading
from stream.kernels import F64, I64, U64, Bools


class KeyTotals(NamedTuple):
    """Totals of some keys, (n,) each. `bucket`: the one in which a key was counted last, as of
    whose end its totals are."""

    keys: U64  # rising, none twice
    negatives: F64  # shows without a click
    clicks: F64  # shows with one
    bucket: I64

    def take(self, which: I64 | Bools) -> "KeyTotals":
        """The rows of these indices, rising, or where true."""
        return KeyTotals(
            self.keys[which], self.negatives[which], self.clicks[which], self.bucket[which]
        )


def no_totals() -> KeyTotals:
    """Of no keys."""
    nothing = np.zeros(0)
    return KeyTotals(np.zeros(0, np.uint64), nothing, nothing, np.zeros(0, np.int64))


def totals_together(parts: Sequence[KeyTotals]) -> KeyTotals:
    """The rows of all parts behind each other."""
    return KeyTotals(
        np.concatenate([one.keys for one in parts]),
        np.concatenate([one.negatives for one in parts]),
        np.concatenate([one.clicks for one in parts]),
        np.concatenate([one.bucket for one in parts]),
    )


class CounterTotals:
    """Keys stand sorted in arrays: 32 bytes a key."""

    def __init__(self, rows: KeyTotals | None = None) -> None:
        self.rows = no_totals() if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows.keys)

    def find(self, keys: U64) -> KeyTotals:
        """Of these keys, in their order, whatever it is; zeros where there are none."""
        at, known = self._places(keys)
        negatives, clicks, bucket = (
            np.zeros(len(keys)),
            np.zeros(len(keys)),
            np.zeros(len(keys), "i8"),
        )
        for found, column in zip((negatives, clicks, bucket), self.rows[1:], strict=True):
            found[known] = column[at[known]]
        return KeyTotals(keys, negatives, clicks, bucket)

    def put(self, rows: KeyTotals) -> None:
        """These totals in the place of those that there are."""
        at, known = self._places(rows.keys)
        for column, new in zip(self.rows[1:], rows[1:], strict=True):
            column[at[known]] = new[known]
        if not known.all():
            fresh = ~known
            merged = (
                np.insert(column, at[fresh], new[fresh])
                for column, new in zip(self.rows, rows, strict=True)
            )
            self.rows = KeyTotals(*merged)

    def keep(self, which: Bools) -> None:
        """Forget the others."""
        if not which.all():
            self.rows = self.rows.take(which)

    def replace_slice(self, number: int, slices: int, rows: KeyTotals) -> None:
        """J3: of the keys of one slice, those that are not in `rows` have no totals any more;
        `rows` may hold keys of other slices too."""
        mine = slice_of(self.rows.keys, slices) == number
        self.keep(~mine | np.isin(self.rows.keys, rows.keys, assume_unique=True))
        self.put(rows)

    def _places(self, keys: U64) -> tuple[I64, Bools]:
        at = np.searchsorted(self.rows.keys, keys)
        known = at < len(self.rows.keys)
        known[known] = self.rows.keys[at[known]] == keys[known]
        return at, known


def slice_of(keys: U64, slices: int) -> I64:
    """Which slice of `slices` each key is in, (n,): keys are hashes, so slices are of one size."""
    return (keys % np.uint64(slices)).astype(np.int64)


def faded(rows: KeyTotals, bucket: int, fading: Fading) -> tuple[F64, F64]:
    """(negatives, clicks), (n,) each, as of the end of a bucket."""
    weight = fading.weight(bucket - rows.bucket)
    return rows.negatives * weight, rows.clicks * weight
