"""What a model reads of the clicks that are kept: one piece of code for training and serving
(J6)."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.columns.counters.counted_rows import Columns, counted_keys, counted_values
from stream.columns.counters.kept_clicks import KeptClicks, declared_sequences, kept_by
from stream.columns.counters.key_sequences import KeyClicks, KeySequences
from stream.columns.counters.sequences import Sequences
from stream.columns.declaration import Feature
from stream.columns.derived import ages
from stream.hashing import NO_KEY, HashKey
from stream.kernels import I64, U64


class SequenceColumns:
    """Makes the columns of declared sequences from what is kept of clicks."""

    def __init__(
        self, declared: Mapping[str, Feature], bucket_ms: int, hash_keys: Mapping[str, HashKey]
    ) -> None:
        """`declared`: sequences, and what they are by. `hash_keys`: `counter_keys`."""
        self._declared, self._hash_keys, self._bucket_ms = declared, hash_keys, bucket_ms
        self.sequences = declared_sequences(declared)
        self.kept = tuple(sorted({kept_by(one) for one in self.sequences.values()}))

    def idle_buckets(self, one: KeptClicks) -> int:
        """Who has clicked nothing for more buckets than these has no clicks any more."""
        return -(-one.idle_ms // self._bucket_ms)

    def keys(self, columns: Columns) -> dict[KeptClicks, U64]:
        """Whose clicks these rows ask for, (n,) each."""
        found = {
            by: counted_keys(by, columns, self._declared, self._hash_keys.get(by, NO_KEY))
            for by in {one.by for one in self.kept}
        }
        return {one: found[one.by] for one in self.kept}

    def clicks(self, rows: pa.RecordBatch, sign: int) -> dict[KeptClicks, KeyClicks]:
        """What these rows of `examples` say of clicks: of those with a label of 1, whose key and
        value are not missing."""
        rows = rows.filter(pa.array(rows.column("label").to_numpy() > 0))
        if not rows.num_rows:
            return {}
        delays = np.maximum(rows.column("click_delay_ms").to_numpy(), 0)
        times: I64 = rows.column("ts_ms").to_numpy() + delays
        found = {}
        for one, keys in self.keys(rows).items():
            values = counted_values(one.of, rows, self._declared)
            known = (keys != 0) & (pc.binary_length(values).to_numpy(False) > 0)
            signs = np.full(int(known.sum()), sign, np.int64)
            found[one] = KeyClicks(keys[known], times[known], values.filter(pa.array(known)), signs)
        return found

    def given(self, one: KeptClicks, rows: KeySequences, bucket: int) -> KeySequences:
        """What is given of these clicks as of the end of a bucket."""
        return rows.newest(one.given, bucket - rows.bucket <= self.idle_buckets(one))

    def columns(
        self, found: Mapping[KeptClicks, KeySequences], ts_ms: I64
    ) -> dict[str, pa.ListArray]:
        """By sequence, (n,), newest click first, of what is given. `ts_ms`: times of the
        impressions, (n,)."""
        return {
            name: _column(one, found[kept_by(one)], ts_ms) for name, one in self.sequences.items()
        }

    def served(self, states: Mapping[str, Sequences], bucket: int) -> dict[str, Sequences]:
        """What of these, by name, anybody is given as of the end of a bucket."""
        return {
            one.name: Sequences(self.given(one, states[one.name].rows, bucket))
            for one in self.kept
            if one.name in states
        }

    def of_states(
        self, columns: Columns, states: Mapping[str, Sequences], bucket: int, ts_ms: I64
    ) -> dict[str, pa.ListArray]:
        """By sequence, (n,): as of the end of a bucket. `states`: by `KeptClicks.name`."""
        return self.columns(self._of_keys(columns, states, bucket), ts_ms)

    def given_clicks(
        self, columns: Columns, states: Mapping[str, Sequences], bucket: int
    ) -> dict[str, KeySequences]:
        """By sequence, the clicks that its values are made of, of each row."""
        found = self._of_keys(columns, states, bucket)
        return {name: found[kept_by(one)] for name, one in self.sequences.items()}

    def _of_keys(
        self, columns: Columns, states: Mapping[str, Sequences], bucket: int
    ) -> dict[KeptClicks, KeySequences]:
        found = {}
        for one, keys in self.keys(columns).items():
            rows = states.get(one.name, Sequences()).find(keys)
            found[one] = self.given(one, rows, bucket)
        return found


def _column(declared: Feature, given: KeySequences, ts_ms: I64) -> pa.ListArray:
    values = given.values
    if declared.ages:
        values = ages(np.repeat(ts_ms, given.lengths), given.times)
    return pa.ListArray.from_arrays(pa.array(given.ends.astype(np.int32)), values)
