"""The fraud filter's tables: what a row holds, and the little that is asked of a table.

Values are JSON values, so that the same rows lie in a dict (tests, the simulator) and in a Faust table on rocksdict.
Every row keeps the last position counted per input (F2), so a table that fell behind catches up by counting again.
"""

from collections.abc import Callable, Iterable, Iterator
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
    """`pairs` and `sources`: pages of counted activity (`Row`). `vendors`: history of settled cells (`VendorRow`).
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


#: Rows of one source that lie in one entry of a table: what a table costs is its entries, and people look at many
#: vendors at once; but one that looks at all of them must not outgrow a record.
PAGE_ROWS_MAX = 64


def rows_in(table: Table) -> Iterator[tuple[str, Json]]:
    """(key, value) of every row of `pairs` or `sources`: an entry of the table is a page, a dict of rows by key."""
    for _, page in table.items():
        yield from page.items()


class Rows:
    """A table and its rows in memory: read once at the start, written at a commit, dropped with their last cell.

    The rows of two windows are held in memory: about 1 kB a pair that was active within them. A row that comes and
    goes between two commits is never written. Rows of one source share pages of at most PAGE_ROWS_MAX.
    """

    def __init__(self, table: Table, source_of: Callable[[str], str]) -> None:
        self._table, self._source_of = table, source_of
        self._rows: dict[str, Row] = {}
        self._pages: dict[str, dict[str, Row]] = {}  # what the table holds, rows that leave it included
        self._page_of: dict[str, str] = {}  # row -> its page
        self._changed: set[str] = set()
        self._leaving: set[str] = set()  # dropped here, and from the table at the next write
        self._newest: dict[int, set[str]] = {}  # cell -> rows whose newest cell it was when they changed

    def __len__(self) -> int:
        return len(self._rows)

    def load(self) -> list[tuple[str, Row]]:
        """Read all rows of the table."""
        self._pages = {page: {key: Row.of(value) for key, value in rows.items()} for page, rows in self._table.items()}
        self._page_of = {key: page for page, rows in self._pages.items() for key in rows}
        self._rows = {key: row for rows in self._pages.values() for key, row in rows.items()}
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
        pages = {self._take_out(key) for key in self._leaving}
        self._leaving.clear()
        self._drop(before)
        pages |= {self._put_in(key) for key in self._changed}
        self._changed.clear()
        for page in sorted(pages):
            rows = self._pages[page]
            if rows:
                self._table[page] = {key: row.value() for key, row in rows.items()}
            else:
                del self._pages[page]
                self._table.pop(page, None)

    def _take_out(self, key: str) -> str:
        page = self._page_of.pop(key)
        del self._pages[page][key]
        return page

    def _put_in(self, key: str) -> str:
        """The row's page; a new row's is the first of its source that has room."""
        page = self._page_of.get(key)
        if page is None:
            source, number = self._source_of(key), 0
            page = f"{number}:{source}"
            while len(self._pages.get(page, ())) >= PAGE_ROWS_MAX:
                number += 1
                page = f"{number}:{source}"
            self._page_of[key] = page
        self._pages.setdefault(page, {})[key] = self._rows[key]
        return page

    def _drop(self, before: int) -> None:
        """Older cells of rows that stay go when they next change."""
        for number in [n for n in self._newest if n < before]:
            for key in self._newest.pop(number):
                row = self._rows.get(key)
                if row is not None and row.newest < before:
                    del self._rows[key]
                    self._changed.discard(key)
                    if key in self._page_of:
                        self._leaving.add(key)
