"""The newest rows of catalogues, for replicas (A5). One thread reads the log; others look up."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from stream.columns import WEIGHTS, is_missing
from stream.decoding.catalogues.catalogue_columns import CatalogueColumns, FoundRows, found_of
from stream.decoding.catalogues.rows import WrongRow
from stream.kernels import Bools
from stream.log.rows import StoredRows
from stream.record import Record


class NewestRows:
    """Of all catalogues that are declared."""

    def __init__(self, columns: CatalogueColumns, held: Mapping[str, StoredRows]) -> None:
        """`held`: by catalogue; empty, unless `go_on` is asked first."""
        self.columns, self.held = columns, held
        self.told_ms = dict.fromkeys(held, 0)  # time of the newest record, by catalogue
        self.wrong = 0  # records that could not be read
        self._topic_ids: dict[str, str] = {}

    def go_on(self, name: str, topic_id: str, since_ms: int) -> int:
        """Where to read a catalogue on from: behind what was written of this topic by these rules,
        if its newest record is of `since_ms` or later. Otherwise that is deleted, and the answer is
        0. Raises RowsFailed."""
        self._topic_ids[name] = topic_id
        held = self.held[name]
        said = json.loads(held.position or b"{}")
        same = bool(topic_id) and said.get("topic_id") == topic_id
        if same and said["decides"] == self._decides(name) and said["told_ms"] >= since_ms:
            self.told_ms[name] = said["told_ms"]
            return int(said["offset"])
        held.clear()
        return 0

    def _decides(self, name: str) -> str:
        return self.columns.readers[name].decides

    def read(self, name: str, records: Sequence[Record]) -> None:
        """The next records of a catalogue. Raises RowsFailed."""
        if not records:
            return
        reader, held = self.columns.readers[name], self.held[name]
        rows: dict[bytes, bytes] = {}
        for record in records:
            self.told_ms[name] = max(self.told_ms[name], record.timestamp_ms)
            try:
                row = reader.read(record)
            except WrongRow:  # the labeler puts it into quarantine
                self.wrong += 1
                continue
            if row is not None:
                rows[row.key] = row.value
        held.put(list(rows), list(rows.values()))
        rules = {"topic_id": self._topic_ids.get(name, ""), "decides": self._decides(name)}
        at = {"offset": records[-1].offset + 1, "told_ms": self.told_ms[name]}
        held.commit(json.dumps({**rules, **at}).encode())

    def filled(self, table: pa.Table) -> pa.Table:
        """A request's rows with what they do not say themselves. Raises RowsFailed."""
        asked, found = table, self.columns.columns(table, self._find, table.schema.names)
        for feature in self.columns.features:
            if feature.column not in found:
                continue
            at, decides = table.schema.get_field_index(feature.column), feature.column
            if feature.kind == WEIGHTS:  # they belong to their list, whoever says that
                decides = feature.weighted_column
            missing = is_missing(_whole(asked, decides))
            both = _chosen(_whole(asked, feature.column), found[feature.column], missing)
            table = table.set_column(at, table.schema.field(at), both)
        return table

    def age_s(self, now_ms: int) -> float | None:
        """Seconds since the newest record of the catalogue that is furthest behind; None = one was
        never read."""
        oldest = min(self.told_ms.values(), default=0)
        return (now_ms - oldest) / 1_000 if oldest else None

    def _find(self, name: str, keys: pa.Array) -> FoundRows:
        return found_of(keys, self.held[name].get)


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _chosen(given: pa.Array, found: pa.Array, missing: Bools) -> pa.Array:
    """What was found where the request says nothing."""
    if missing.all():
        return found
    places = np.arange(len(given))
    both = pa.concat_arrays([given, found])
    return both.take(pa.array(np.where(missing, places + len(given), places)))
