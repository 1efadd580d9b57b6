"""The fraud filter's tables: what a row holds, and the little that is asked of a table.

Values are JSON values, so that the same rows lie in a dict (tests, the simulator) and in a Faust table on rocksdict.
Every row keeps the last position counted per input (F2), so a table that fell behind catches up by counting again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

Json = Any


class Table(Protocol):
    """A mapping of strings to JSON values. A value read is never changed in place, only set anew."""

    def get(self, key: str, /) -> Json: ...

    def __setitem__(self, key: str, value: Json, /) -> None: ...

    def pop(self, key: str, default: Json, /) -> Json: ...

    def items(self) -> Iterable[tuple[str, Json]]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Tables:
    """`pairs` and `sources`: counted activity (`Row`). `vendors`: history of settled cells (`VendorRow`).
    `progress`: how far each input is counted and judged (`InputRow`), cells settled, and watermarks promised."""

    pairs: Table
    sources: Table
    vendors: Table
    progress: Table


def dict_tables() -> Tables:
    """Tables in memory, for tests and simulation. Rows are lists and dicts that the filter never shares."""
    rows: list[dict[str, Json]] = [{} for _ in range(4)]
    return Tables(*rows)


@dataclass
class Cell:
    """Activity within one cell of event time."""

    views: int = 0
    clicks: int = 0
    gaps_fast: int = 0
    rejected: int = 0  # 1 = a verdict covers it, and it does not enter history


@dataclass
class Row:
    """Counted activity of a source, on one vendor or on all: cells by number (event time // cell_ms)."""

    ends: dict[str, int] = field(default_factory=dict)  # input -> end of the last signal counted here (F2)
    cells: dict[int, Cell] = field(default_factory=dict)
    click_ts_ms: int = 0  # the latest click counted

    @classmethod
    def of(cls, value: Json) -> "Row":
        if value is None:
            return cls()
        ends, cells, click_ts_ms = value
        return cls(dict(ends), {int(number): Cell(*counts) for number, counts in cells.items()}, click_ts_ms)

    @property
    def newest(self) -> int:
        """The number of the latest cell."""
        return max(self.cells, default=-1)

    def trim(self, before: int) -> None:
        """Drop the cells below `before`, which no window can hold any more."""
        if min(self.cells, default=before) < before:
            self.cells = {number: cell for number, cell in self.cells.items() if number >= before}

    def value(self) -> Json:
        cells = {str(number): [c.views, c.clicks, c.gaps_fast, c.rejected] for number, c in self.cells.items()}
        return [dict(self.ends), cells, self.click_ts_ms]

    def window(self, last: int, span: int) -> Cell:
        """The sum of the `span` cells that end with `last`."""
        total = Cell()
        for number, cell in self.cells.items():
            if last - span < number <= last:
                total.views += cell.views
                total.clicks += cell.clicks
                total.gaps_fast += cell.gaps_fast
        return total

    def reject(self, last: int, span: int) -> None:
        """Mark the cells of a window as covered by a verdict."""
        for number, cell in self.cells.items():
            if last - span < number <= last:
                cell.rejected = 1


@dataclass
class VendorRow:
    """What honest sources did to a vendor in settled cells up to `cell`: those at or below it are not added again."""

    cell: int = -1
    views: float = 0.0
    clicks: float = 0.0

    @classmethod
    def of(cls, value: Json) -> "VendorRow":
        return cls() if value is None else cls(*value)

    def value(self) -> Json:
        return [self.cell, self.views, self.clicks]


@dataclass
class InputRow:
    """An input: its fold position E, and the watermark judged there."""

    end: int | None = None
    watermark_ms: int = 0

    @classmethod
    def of(cls, value: Json) -> "InputRow":
        return cls() if value is None else cls(*value)

    def value(self) -> Json:
        return [self.end, self.watermark_ms]


def pair_key(source: str, vendor: str) -> str:
    """One key for (source, vendor), whatever characters they hold."""
    return f"{len(source)}:{source}{vendor}"


def pair_of(key: str) -> tuple[str, str]:
    """The (source, vendor) of a `pair_key`."""
    length, _, rest = key.partition(":")
    return rest[: int(length)], rest[int(length) :]


class Rows:
    """A table and its rows in memory: read once at the start, written at a commit, dropped with their last cell.

    The rows of two windows are held in memory: about 1 kB a pair that was active within them. A row that comes and
    goes between two commits is never written.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows: dict[str, Row] = {}
        self._stored: set[str] = set()  # keys that the table holds
        self._changed: set[str] = set()
        self._leaving: set[str] = set()  # dropped here, and from the table at the next write
        self._newest: dict[int, set[str]] = {}  # cell -> rows whose newest cell it was when they changed

    def __len__(self) -> int:
        return len(self._rows)

    def load(self) -> list[tuple[str, Row]]:
        """Read all rows of the table."""
        self._rows = {key: Row.of(value) for key, value in self._table.items()}
        self._stored = set(self._rows)
        for key, row in self._rows.items():
            self._newest.setdefault(row.newest, set()).add(key)
        return sorted(self._rows.items())

    def __getitem__(self, key: str) -> Row:
        """The row, or a new one that is kept once it is `changed`."""
        return self._rows.get(key) or Row()

    def changed(self, key: str, row: Row) -> None:
        self._rows[key] = row
        self._changed.add(key)
        self._leaving.discard(key)
        self._newest.setdefault(row.newest, set()).add(key)

    def write(self, before: int) -> None:
        """Write what changed, without rows whose cells all lie below `before`.

        Those leave the table with the next write only: until the commit that follows this one is durable, their
        signals may come again, and must find them.
        """
        for key in self._leaving:
            self._table.pop(key, None)
            self._stored.discard(key)
        self._leaving.clear()
        self._drop(before)
        for key in sorted(self._changed):
            self._table[key] = self._rows[key].value()
        self._stored |= self._changed
        self._changed.clear()

    def _drop(self, before: int) -> None:
        """Older cells of rows that stay go when they next change."""
        for number in [n for n in self._newest if n < before]:
            for key in self._newest.pop(number):
                row = self._rows.get(key)
                if row is not None and row.newest < before:
                    del self._rows[key]
                    self._changed.discard(key)
                    if key in self._stored:
                        self._leaving.add(key)
