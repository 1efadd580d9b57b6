"""The numbers that a model reads of a counter: one piece of code for training and serving (J4)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stream.columns.counters.counted import CountedValues, counted_by
from stream.columns.counters.counted_rows import Columns, counted_keys
from stream.columns.counters.fading import Fading
from stream.columns.counters.totals import CounterTotals, KeyTotals, faded
from stream.columns.declaration import Feature
from stream.columns.kept_options import CLICKS, RATE
from stream.hashing import NO_KEY, HashKey
from stream.kernels import F64, U64

Floats = npt.NDArray[np.float32]


class CounterColumns:
    """Makes the columns of declared counters from totals."""

    def __init__(
        self,
        declared: Mapping[str, Feature],
        counters: Mapping[str, Feature],
        bucket_ms: int,
        negative_rate: float,
        hash_keys: Mapping[str, HashKey],
    ) -> None:
        """`counters`: by name; `declared`: these and what they are of. `negative_rate`: the share
        of impressions without a click that is counted at all. `hash_keys`: `counter_keys`."""
        self._declared, self.counters, self._hash_keys = declared, counters, hash_keys
        self._negative_rate = negative_rate
        self.counted = tuple(sorted({counted_by(one) for one in counters.values()}))
        self.fading = {one: Fading(one.half_life_ms, bucket_ms) for one in self.counted}

    def keys(self, columns: Columns) -> dict[CountedValues, U64]:
        """For which keys these rows ask, (n,) each."""
        of = {one.of for one in self.counted}
        found = {
            name: counted_keys(name, columns, self._declared, self._hash_keys.get(name, NO_KEY))
            for name in of
        }
        return {one: found[one.of] for one in self.counted}

    def columns(self, found: Mapping[CountedValues, tuple[F64, F64]]) -> dict[str, Floats]:
        """By counter, (n,): of the faded (negatives, clicks) of each row's key."""
        return {
            name: self._values(one, *found[counted_by(one)]) for name, one in self.counters.items()
        }

    def of_totals(
        self, columns: Columns, totals: Mapping[str, CounterTotals], bucket: int
    ) -> dict[str, Floats]:
        """By counter, (n,): as of the end of a bucket. `totals`: by `CountedValues.name`."""
        return self.columns(self._of_keys(columns, totals, bucket))

    def shows_and_clicks(
        self, columns: Columns, totals: Mapping[str, CounterTotals], bucket: int
    ) -> dict[str, tuple[F64, F64]]:
        """By counter, what its value is made of, (n,) each, before anything is added."""
        found = self._of_keys(columns, totals, bucket)
        made = {}
        for name, one in self.counters.items():
            negatives, clicks = found[counted_by(one)]
            made[name] = (negatives / self._negative_rate + clicks, clicks)
        return made

    def _of_keys(
        self, columns: Columns, totals: Mapping[str, CounterTotals], bucket: int
    ) -> dict[CountedValues, tuple[F64, F64]]:
        """The faded (negatives, clicks) of each row's key."""
        found = {}
        for one, keys in self.keys(columns).items():
            rows: KeyTotals = totals.get(one.name, CounterTotals()).find(keys)
            found[one] = faded(rows, bucket, self.fading[one])
        return found

    def _values(self, declared: Feature, negatives: F64, clicks: F64) -> Floats:
        shows = negatives / self._negative_rate + clicks
        if declared.gives == RATE:
            shows = shows + declared.prior_shows
            values = (clicks + declared.prior_clicks) / shows
        else:
            values = clicks if declared.gives == CLICKS else shows
        rounded: Floats = values.astype(np.float32)
        return rounded
