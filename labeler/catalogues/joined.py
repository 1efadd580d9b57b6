"""What impressions are given of all catalogues: their rows as of each impression's arrival (A3).

One index serves all partitions of a labeler. Pure: it is told what was read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from labeler.catalogues.versions import CatalogueBegin, RowVersions
from stream import Record, StreamConfig
from stream.columns import Impressions
from stream.decoding import BadRecord, MissingShares
from stream.decoding.catalogues import CatalogueColumns, FoundRows
from stream.log.rows import StoredRows


class JoinedCatalogues:
    """Of catalogues that are read on from where their rows were written."""

    def __init__(
        self,
        stream: StreamConfig,
        hold: Callable[[str], StoredRows],
        begins: Mapping[str, CatalogueBegin],
    ) -> None:
        """`hold`: where the rows of a catalogue lie. `begins`: where each begins. Raises
        RowsFailed."""
        self._stream = stream
        self._columns = CatalogueColumns(
            stream.declared, stream.record_bytes_max, stream.catalogue_row_bytes_max
        )
        self.of = {
            name: RowVersions(stream, reader, hold(name), begins[name])
            for name, reader in self._columns.readers.items()
        }
        self._needs: dict[int, int] = {}
        self.missing = MissingShares(stream.catalogued)

    @property
    def low_ms(self) -> int:
        """What arrived earlier is answered no more."""
        return max(one.low_ms for one in self.of.values())

    @property
    def bad_ms(self) -> int:
        """Records that are no row, and arrived by then, are not told any more."""
        return max(one.bad_ms for one in self.of.values())

    def read(self, name: str, records: Sequence[Record]) -> None:
        """The next records of a catalogue. Raises RowsFailed."""
        self.settle()
        self.of[name].read(records)

    def lacks(self, arrival_ms: int) -> bool:
        """Whether more must be read before an impression of this arrival is handled."""
        return any(one.lacks(arrival_ms) for one in self.of.values())

    def need(self, partition: int, arrival_ms: int) -> None:
        """A partition's next impressions arrive at this time or later. It counts from the next
        `settle` on, so that all partitions may say theirs."""
        self._needs[partition] = arrival_ms

    def done(self, partition: int) -> None:
        """A partition needs nothing for now: it stands still, or is another's."""
        self._needs.pop(partition, None)

    def forget(self) -> None:
        """All partitions begin again, and say anew what they need."""
        self._needs.clear()

    def joined(self, rows: Impressions) -> Impressions:
        """The impressions with the columns of all catalogues behind their own; what is missing is
        counted. Raises RowsFailed."""
        rows = self.looked_up(rows)
        self.missing.add(rows)
        return rows

    def looked_up(self, rows: Impressions) -> Impressions:
        """The same, without counting. Raises RowsFailed."""

        def find(name: str, keys: pa.Array) -> FoundRows:
            return self.of[name].find(keys, rows.arrival_ms)

        found, table = self._columns.columns(rows.table, find), rows.table
        for column in self._stream.catalogue_columns:
            field = pa.field(column.column, column.type, nullable=False)
            table = table.append_column(field, found[column.column])
        return replace(rows, table=table)

    def bad_between(self, after_ms: int, until_ms: int) -> dict[str, list[BadRecord]]:
        """By topic, what could not be read of the rows that arrived after the first time, by the
        second."""
        topics = self._stream.catalogues
        return {topics[name]: one.bad_between(after_ms, until_ms) for name, one in self.of.items()}

    def close(self) -> None:
        for one in self.of.values():
            one.held.close()

    def settle(self) -> None:
        """What every partition is past becomes the state. Raises RowsFailed."""
        if self._needs:
            low = min(self._needs.values())
            for one in self.of.values():
                one.settle(low)
