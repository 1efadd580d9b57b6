"""The counters and sequences that a request is given: the newest ones, by the code that labels are
joined by (J5, J6)."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from checkpointer.store import COUNTS_FILE, CountsFile, Files, decode_counts_file
from learners import ModelConfig
from stream.columns import FEATURE_PREFIX, TS_MS, Feature, list_lengths
from stream.columns.counters import CounterColumns, KeySequences, SequenceColumns, counters
from stream.kernels import F64

#: Between two looks where there is no file yet, ms.
LOOK_MS = 5_000


class ServedCounts:
    """One model's counters and sequences from one file. Never changed: threads may share it."""

    def __init__(self, config: ModelConfig, file: CountsFile) -> None:
        declared = declared_by(config)
        sizes = (file.bucket_ms, file.negative_rate, file.hash_keys)
        self.file, self._columns = file, CounterColumns(declared, counters(declared), *sizes)
        self._clicks = SequenceColumns(declared, file.bucket_ms, file.hash_keys)

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with the counters and sequences that they do not say themselves; with
        `ts_ms` where a sequence gives ages."""
        for name, values in self.values(table).items():
            at = table.schema.get_field_index(FEATURE_PREFIX + name)
            given = table.column(at).to_numpy()
            both = np.where(np.isnan(given), values, given).astype(np.float32)
            table = table.set_column(at, table.schema.field(at), pa.array(both))
        return self._with_clicks(table)

    def _with_clicks(self, table: pa.Table) -> pa.Table:
        if not self._clicks.kept:
            return table
        ts_ms = np.zeros(table.num_rows, np.int64)
        if TS_MS in table.schema.names:
            ts_ms = table.column(TS_MS).to_numpy()
        file = self.file
        found = self._clicks.of_states(table, file.sequences, file.bucket, ts_ms)
        for name, lists in found.items():
            at = table.schema.get_field_index(FEATURE_PREFIX + name)
            given = table.column(at).combine_chunks()
            if list_lengths(given).any():
                lists = pc.if_else(pa.array(list_lengths(given) > 0), given, lists)
            table = table.set_column(at, table.schema.field(at), lists)
        return table

    def values(self, table: pa.Table) -> Mapping[str, npt.NDArray[np.float32]]:
        """By counter, (n,): what a model reads of it."""
        return self._columns.of_totals(table, self.file.totals, self.file.bucket)

    def shows_and_clicks(self, table: pa.Table) -> dict[str, tuple[F64, F64]]:
        """By counter, shows and clicks, (n,) each, that its value is made of."""
        return self._columns.shows_and_clicks(table, self.file.totals, self.file.bucket)

    def clicks(self, table: pa.Table) -> dict[str, KeySequences]:
        """By sequence, the clicks that are given of each row."""
        return self._clicks.given_clicks(table, self.file.sequences, self.file.bucket)

    def age_s(self, now_ms: int) -> float | None:
        """Seconds since the newest impression that is counted arrived; None = nothing is."""
        return (now_ms - self.file.until_ms) / 1_000 if self.file.hash_keys else None


class CountsReader:
    """Looks for newer totals in the store, about twice a bucket."""

    def __init__(self, files: Files) -> None:
        self._files, self._look_at_ms, self._pause_ms = files, 0, 0
        self._of: tuple[str, ModelConfig] | None = None
        self.newest: ServedCounts | None = None

    def look(self, model: str, config: ModelConfig, now_ms: int) -> None:
        """Raises Damaged, and OSError where the store fails; then what is held stays. A clock that
        was set back holds up no look."""
        if not any(one.kept_by for one in declared_by(config).values()):
            self.newest = self._of = None
            return
        early = 0 < self._look_at_ms - now_ms <= self._pause_ms
        if self._of == (model, config) and early:
            return
        try:
            file = decode_counts_file(self._files.read(f"{model}/{COUNTS_FILE}"))
        except FileNotFoundError:
            file = CountsFile.empty()
        self.newest, self._of = ServedCounts(config, file), (model, config)
        self._pause_ms = file.bucket_ms // 2 if file.hash_keys else LOOK_MS
        self._look_at_ms = now_ms + self._pause_ms


def declared_by(config: ModelConfig) -> Mapping[str, Feature]:
    """The declarations that a model carries."""
    found = {name: config.feature(name) for name in config.declared}
    return {name: one for name, one in found.items() if one is not None}
