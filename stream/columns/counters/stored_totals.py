"""Totals of one thing that is counted, on disk, and the most recent ones as columns (J4a)."""

from stream.columns.counters.recent_totals import RecentTotals
from stream.columns.counters.row_bytes import TotalsBytes
from stream.columns.counters.stored_keys import StoredKeys
from stream.columns.counters.totals import KeyTotals
from stream.kernels import U64
from stream.log.rows import StoredRows


class StoredTotals(StoredKeys[KeyTotals]):
    """A total is small beside what a row takes in memory: none of them is held there as a row."""

    def __init__(self, stored: StoredRows, name: str, slices: int, bytes_max: int) -> None:
        """`bytes_max`: of those in memory."""
        super().__init__(stored, name, slices, TotalsBytes(), held=False)
        self._recent = RecentTotals(bytes_max)

    @property
    def memory_bytes(self) -> int:
        """Memory of those that are held."""
        return self._recent.memory_bytes

    def drop_recent(self) -> None:
        """What is held is of no use: what lies on disk is deleted."""
        self._recent.clear()

    def find(self, keys: U64) -> KeyTotals:
        found, held = self._recent.find(keys)
        self._stored.hits += int(held.sum())
        if held.all():
            return found
        rows = super().find(keys[~held])
        for column, new in zip(found[1:], rows[1:], strict=True):
            column[~held] = new
        self._recent.put(rows)
        return found

    def put(self, rows: KeyTotals) -> None:
        super().put(rows)
        self._recent.put(rows)

    def forget(self, keys: U64) -> None:
        super().forget(keys)
        self._recent.forget(keys)

    def forget_all(self) -> None:
        super().forget_all()
        self._recent.clear()

    def replace_slice(self, number: int, rows: KeyTotals) -> None:
        super().replace_slice(number, rows)
        self._recent.update(rows)
        self._recent.keep_of_slice(number, self._slices, rows.keys)
