"""What the pipeline keeps, made up for some impressions: as a labeler joins it to them, and as a
replica gives it to requests."""

import random

import numpy as np
import pyarrow as pa

from checkpointer.store import CountsFile, decode_counts_file, encode_counts_file
from checkpointer.tables import ServedCounts
from everspun import Config
from labeler.counts import JoinedCounts
from stream import Record
from stream.columns import Impressions
from stream.columns.counters import (
    CounterTotals,
    KeyClicks,
    KeySequences,
    KeyTotals,
    Sequences,
    no_sequences,
    updated,
)
from stream.internal_topics import CountRecord, encode_counts


class KeptState:
    """Of most of the values that these impressions, which arrived at one time, are asked by."""

    def __init__(
        self, config: Config, rows: Impressions, rng: random.Random, values: tuple[str, ...]
    ) -> None:
        """`values`: of the clicks."""
        stream, self.config = config.stream, config
        arrival_ms = int(rows.arrival_ms[0]) if len(rows) else 0
        self.index = JoinedCounts(stream, 0)
        self.index.need(0, arrival_ms)
        self.bucket = self.index.bucket_of(arrival_ms)
        self.rng, self.values, self.numbers = (
            rng,
            values,
            np.random.default_rng(rng.randrange(1 << 32)),
        )
        counters, sequences = stream.counter_columns, stream.sequence_columns
        totals = {one.name: self._totals(k) for one, k in counters.keys(rows.table).items()}
        clicks = {
            one.name: updated(*self._clicks(keys, arrival_ms), self.bucket, one.held)
            for one, keys in sequences.keys(rows.table).items()
        }
        sizes = (stream.counts_bucket_ms, stream.counts_slices)
        record = CountRecord(1, self.bucket, *sizes, totals, {}, sequences=clicks)
        parts = encode_counts(record, stream.record_bytes_max)
        self.index.read(Record(i, 0, None, *part) for i, part in enumerate(parts))
        states = {name: Sequences(one) for name, one in clicks.items()}
        file = CountsFile(
            self.bucket,
            stream.counts_bucket_ms,
            stream.negative_rate,
            stream.kept_keys,
            {name: CounterTotals(one) for name, one in totals.items()},
            sequences.served(states, self.bucket),
        )
        file = decode_counts_file(encode_counts_file(file))
        self.served = ServedCounts(config.model, file)

    def joined(self, rows: Impressions) -> Impressions:
        """As a labeler does."""
        return self.index.joined(rows)

    def filled(self, request: pa.Table) -> pa.Table:
        """As a replica does."""
        return self.served.filled(request)

    def _some(self, keys: np.ndarray) -> np.ndarray:
        distinct = np.unique(keys[keys != 0])
        return distinct[self.numbers.random(len(distinct)) < 0.8]

    def _totals(self, keys: np.ndarray) -> KeyTotals:
        keys = self._some(keys)
        shows = self.numbers.random((2, len(keys))) * 100
        ages = self.numbers.integers(0, 3_000, len(keys))
        return KeyTotals(keys, shows[0], shows[1], self.bucket - ages)

    def _clicks(self, keys: np.ndarray, now_ms: int) -> tuple[KeySequences, KeyClicks]:
        keys = self._some(keys)
        whose = np.repeat(keys, self.numbers.integers(1, 9, len(keys)))
        times = now_ms - self.numbers.integers(-100_000, 1 << 36, len(whose))
        values = pa.array([self.rng.choice(self.values) for _ in whose], pa.string())
        clicks = KeyClicks(whose, times, values, np.ones(len(whose), np.int64))
        return no_sequences().find(keys), clicks
