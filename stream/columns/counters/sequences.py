"""The clicks of one thing that is kept, by key (J6)."""

import numpy as np

from stream.columns.counters.key_sequences import KeySequences, no_sequences, together
from stream.columns.counters.totals import slice_of
from stream.kernels import U64, Bools


class Sequences:
    """Keys stand sorted in arrays: 24 bytes a key, and 12 a click beside its value."""

    def __init__(self, rows: KeySequences | None = None) -> None:
        self.rows = no_sequences() if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows.keys)

    def find(self, keys: U64) -> KeySequences:
        """Of these keys, in their order, whatever it is; no clicks where there are none."""
        return self.rows.find(keys)

    def put(self, rows: KeySequences) -> None:
        """These in the place of those that there are. Their keys rise, none twice."""
        if not len(rows.keys):
            return
        both = together([self.rows, rows])
        stays = ~np.isin(self.rows.keys, rows.keys, assume_unique=True)
        at = np.flatnonzero(np.append(stays, np.ones(len(rows.keys), np.bool_)))
        self.rows = both.take(at[np.argsort(both.keys[at], kind="stable")])

    def keep(self, which: Bools) -> None:
        """Forget the others."""
        if not which.all():
            self.rows = self.rows.take(which)

    def replace_slice(self, number: int, slices: int, rows: KeySequences) -> None:
        """J3: of the keys of one slice, those that are not in `rows` have no clicks any more;
        `rows` may hold keys of other slices too."""
        mine = slice_of(self.rows.keys, slices) == number
        self.keep(~mine | np.isin(self.rows.keys, rows.keys, assume_unique=True))
        self.put(rows)
