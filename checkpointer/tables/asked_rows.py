"""The newest rows of catalogues for some keys alone, for who asks by hand (A5): of other keys
nothing is held."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa

from stream import Record
from stream.decoding.catalogues import CatalogueColumns, NewestRows, WrongRow
from stream.log.rows import MemoryStorage, StoredRows

#: What all rows that one request asks for may take: no row is as large as a record.
_BYTES_MAX = 1 << 30


class AskedRow(NamedTuple):
    """What a catalogue says of one key."""

    there: bool  # whether there is a row now
    written_ms: int = 0  # time of the record that says so; 0 = no record does
    wrong: str = ""  # what is wrong with a newer record, which counts as not written (A1)


class AskedRows:
    """Of some keys, by catalogue. `read` is told all records of it, in their order."""

    def __init__(self, columns: CatalogueColumns, asked: Mapping[str, Collection[bytes]]) -> None:
        self._columns, self._asked = (
            columns,
            {name: frozenset(keys) for name, keys in asked.items()},
        )
        self._held = {name: StoredRows(MemoryStorage(), _BYTES_MAX) for name in columns.readers}
        self._newest = NewestRows(columns, self._held)
        self._said: dict[tuple[str, bytes], AskedRow] = {}

    def read(self, name: str, records: Iterable[Record]) -> None:
        """The next records of a catalogue."""
        reader, asked = self._columns.readers[name], self._asked.get(name, frozenset())
        for record in records:
            if record.key is None or record.key not in asked:
                continue
            before = self.row(name, record.key)
            try:
                row = reader.read(record)
            except WrongRow as error:
                wrong = f"offset {record.offset}: {error}"
                self._said[name, record.key] = before._replace(wrong=wrong)
                continue
            if row is not None:
                self._held[name].put([row.key], [row.value])
                self._said[name, row.key] = AskedRow(bool(row.value), record.timestamp_ms)

    def row(self, name: str, key: bytes) -> AskedRow:
        """What was read of a key."""
        return self._said.get((name, key), AskedRow(False))

    def attributes(self, name: str, key: bytes) -> dict[str, object]:
        """What its row says, by the names of features; of what it does not say None."""
        features = [f for f in self._columns.features if f.column in self._columns.places(name)]
        (row,) = self._held[name].get([key])
        said = self._columns.readers[name].attributes(row)
        return {f.name: value for f, value in zip(features, said, strict=True)}

    def filled(self, table: pa.Table) -> pa.Table:
        """Rows of a request with what they do not say themselves, where their keys were asked."""
        return self._newest.filled(table)
