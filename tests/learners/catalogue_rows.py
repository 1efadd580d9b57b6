"""Rows of catalogues, made up for some impressions: as a labeler joins them, and as a replica gives
them to requests."""

import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from everspun import Config
from labeler.catalogues import CatalogueBegin, JoinedCatalogues
from stream import Record
from stream.columns import FEATURE_PREFIX, KEYS, Impressions
from stream.decoding.catalogues import CatalogueColumns, NewestRows
from stream.log.rows import MemoryStorage, StoredRows

#: How many records of a catalogue are read at once.
READ = 50


def beat(offset: int, ms: int) -> Record:
    """A heartbeat of a catalogue (A2)."""
    headers = (("control", b"heartbeat"), ("clock_ms", str(ms).encode()))
    return Record(offset, ms, b"\0heartbeat", None, headers)


class CatalogueState:
    """Of most of the keys that these impressions, which arrived at one time, name: some rows are
    written twice, some deleted, some cannot be read, some are of later."""

    def __init__(
        self,
        config: Config,
        rows: Impressions,
        rng: random.Random,
        value: Callable[[Any, dict[str, Any], random.Random, bool], Any],
    ) -> None:
        """`value`: of a column, beside what the row holds already; odd or not."""
        self._stream, self._rng, self._value = config.stream, rng, value
        at_ms = int(rows.arrival_ms[0]) if len(rows) else 1_000_000
        stream = config.stream
        columns = CatalogueColumns(
            stream.declared, stream.record_bytes_max, stream.catalogue_row_bytes_max
        )
        self.newest = NewestRows(
            columns, {n: StoredRows(MemoryStorage(), 1 << 30) for n in stream.catalogues}
        )
        self.index = JoinedCatalogues(
            stream,
            lambda name: StoredRows(MemoryStorage(), 1 << 30),
            dict.fromkeys(stream.catalogues, CatalogueBegin(0)),
        )
        for name in stream.catalogues:
            before = self._records(name, rows.table, at_ms)
            self.newest.read(name, before)
            late = self._records(name, rows.table, at_ms + 2_000, len(before))
            records = [*before, *late]
            for at in range(0, len(records), READ):
                self.index.read(name, records[at : at + READ])
        if rng.random() < 0.5:  # some of later rows, some of those that are the state
            self.index.need(0, at_ms)
            self.index.settle()

    def joined(self, rows: Impressions) -> Impressions:
        """As a labeler does."""
        return self.index.joined(rows) if self._stream.catalogues else rows

    def filled(self, request: pa.Table) -> pa.Table:
        """As a replica does."""
        return self.newest.filled(request) if self._stream.catalogues else request

    def _records(self, name: str, table: pa.Table, ms: int, first: int = 0) -> list[Record]:
        """Of one catalogue, arriving in the second before `ms`, and that time itself."""
        rng, of = self._rng, self._stream.catalogued.values()
        keys = {one.key for one in of if one.catalogue == name}
        named: set[str] = set()
        for key in sorted(keys):
            named |= set(table.column(key if key in KEYS else FEATURE_PREFIX + key).to_pylist())
        out = [beat(first, ms - 1_000)]
        for key in sorted(named - {""}):
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                out.append(Record(first + len(out), ms - 500, key.encode(), self._row(name)))
        return [*out, beat(first + len(out), ms)]

    def _row(self, name: str) -> bytes | None:
        rng, bag = self._rng, dict[str, Any]()
        if rng.random() < 0.05:
            return None
        odd = rng.random() < 0.2
        for feature, one in self._stream.catalogued.items():
            for column in one.catalogue_columns(feature):
                if one.catalogue == name and rng.random() < 0.8:
                    bag[column.name] = self._value(column, bag, rng, odd)
        return json.dumps(bag).encode()
