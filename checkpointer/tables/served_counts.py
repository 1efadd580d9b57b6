"""The counters that a request is given: the newest totals, by the code that labels are joined by
(J5)."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from checkpointer.store import COUNTS_FILE, CountsFile, Files, decode_counts_file
from learners import ModelConfig
from stream.columns import FEATURE_PREFIX, Feature
from stream.columns.counters import CounterColumns, counters

#: Between two looks where there is no file yet, ms.
LOOK_MS = 5_000


class ServedCounts:
    """One model's counters from one file. Never changed: threads may share it."""

    def __init__(self, config: ModelConfig, file: CountsFile) -> None:
        declared = declared_by(config)
        self._file, self._columns = (
            file,
            CounterColumns(
                declared, counters(declared), file.bucket_ms, file.negative_rate, file.hash_keys
            ),
        )

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with the counters that they do not say themselves."""
        found = self._columns.of_totals(table, self._file.totals, self._file.bucket)
        for name, values in found.items():
            at = table.schema.get_field_index(FEATURE_PREFIX + name)
            given = table.column(at).to_numpy()
            both = np.where(np.isnan(given), values, given).astype(np.float32)
            table = table.set_column(at, table.schema.field(at), pa.array(both))
        return table

    def age_s(self, now_ms: int) -> float | None:
        """Seconds since the newest impression that is counted arrived; None = nothing is."""
        return (now_ms - self._file.until_ms) / 1_000 if self._file.hash_keys else None


class CountsReader:
    """Looks for newer totals in the store, about twice a bucket."""

    def __init__(self, files: Files) -> None:
        self._files, self._look_at_ms = files, 0
        self._of: tuple[str, ModelConfig] | None = None
        self.newest: ServedCounts | None = None

    def look(self, model: str, config: ModelConfig, now_ms: int) -> None:
        """Raises Damaged, and OSError where the store fails; then what is held stays."""
        if not counters(declared_by(config)):
            self.newest = self._of = None
            return
        if self._of == (model, config) and now_ms < self._look_at_ms:
            return
        try:
            file = decode_counts_file(self._files.read(f"{model}/{COUNTS_FILE}"))
        except FileNotFoundError:
            file = CountsFile.empty()
        self.newest, self._of = ServedCounts(config, file), (model, config)
        self._look_at_ms = now_ms + (file.bucket_ms // 2 if file.hash_keys else LOOK_MS)


def declared_by(config: ModelConfig) -> Mapping[str, Feature]:
    """The declarations that a model carries."""
    found = {name: config.feature(name) for name in config.declared}
    return {name: one for name, one in found.items() if one is not None}
